"""The table of planted faults: each is named by doctor, at its level, with what mends it; and none where there is none.

Each is a real one: a spoiled tokenizer, broken rows, contradicting settings, a Hub that refuses. The notes name the
threads of other projects in which users met them.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doctor_bench import LOOKED_AT, QUICK, Bench, Plant, bench_in

from conftest import CHATML, sample_rows, write_rows

DIRTY = Path(__file__).parents[2] / "shared" / "data" / "dirty"
TABLE: list[Plant] = []
Planting = Callable[[Bench], None]


def planted(area: str, level: str, told: str, fix: str) -> Callable[[Planting], Planting]:
    """A decorator that adds a plant to the table."""

    def add(plant: Planting) -> Planting:
        TABLE.append(Plant(area, plant.__name__, plant, level, told, fix))
        return plant

    return add


def words(area: str, level: str, name: str, given: str, told: str, fix: str) -> None:
    """Adds a plant that is nothing but settings."""
    TABLE.append(Plant(area, name, lambda bench: bench.words.extend(given.split()), level, told, fix))


# Settings: PITFALLS I, K, P.
for entry in (
    ("fault", "misspelt_name", "learning_rte=1e-4", "no setting is called 'learning_rte'", "learning_rate"),
    ("fault", "word_for_a_number", "learning_rate=fast", "learning_rate is 'fast'", "default is 0.0002"),
    ("fault", "no_assignment", "lora_r", "'lora_r' is no setting", "name=value"),
    ("fault", "given_twice", "lora_r=8 lora_r=4", "lora_r is given twice", "Give it once"),
    ("fault", "4_and_8_bits", "load_in_8bit=true", "load_in_8bit=true contradicts", "load_in_4bit=false"),
    ("fault", "dora_on_8_bits", "load_in_4bit=false load_in_8bit=true use_dora=true", "DoRA does not train", "4 bits"),
    ("fault", "prefix_groups_without_prefix", "group_by=prefix shared_prefix=false", "group_by=prefix needs", "Leave"),
    ("fault", "float16_on_a_cpu", "dtype=float16", "dtype is float16, which needs a GPU", "dtype=auto"),
    ("fault", "flash_on_a_cpu", "attn_implementation=flash_attention_2", "which needs a GPU", "=auto"),
    ("fault", "tracker_not_installed", "report_to=wandb", "report_to is wandb, which is", "pip install.*wandb"),
    ("fault", "tracker_that_is_none", "report_to=wandbb", "report_to", "default is"),
    ("fault", "gate_on_nothing", "gates=f1=0.8", "does not measure 'f1'", "macro_f1|Known"),
    ("fault", "gate_nobody_can_hold", "gates=macro_f1=80", "cannot be 80", r"0\.8 for 80 %"),
    ("fault", "samples_of_closed_answers", "num_samples=8", "answers are chosen, not written", "Leave it out"),
    ("warning", "packing_with_flex_attention", "attn_implementation=flex_attention", "keeps rows apart", "=auto"),
    ("warning", "rate_far_too_high", "learning_rate=0.5", "far above what LoRA", "learning_rate=2e-4"),
    ("warning", "rate_far_too_low", "learning_rate=1e-7", "far below what LoRA", "learning_rate=2e-4"),
    ("warning", "rate_of_nothing", "learning_rate=0", "nothing is learnt", "learning_rate=2e-4"),
    ("warning", "alpha_out_of_scale", "lora_alpha=512 lora_r=8", r"lora_alpha / lora_r is 64", "lora_alpha=16"),
    ("warning", "rank_larger_than_a_layer", "lora_r=128", r"smaller side of .*k_proj.* \(32\)", "lora_r=16"),
    ("fault", "layer_that_is_not_there", "lora_target_modules=q_projj", "no layer 'q_projj'", "q_proj"),
    ("warning", "warm_up_longer_than_the_run", "warmup_steps=500", "never reached", "warmup_steps=0.1"),
    ("warning", "eval_steps_longer_than_the_run", "eval_strategy=steps eval_steps=999", "eval_steps is 999", "eval_st"),
    ("warning", "eval_steps_without_effect", "eval_steps=5", "eval_steps=5 has no effect", "eval_strategy=steps"),
    ("warning", "log_without_a_loss", "logging_steps=900", "no training loss", "logging_steps="),
    ("warning", "patience_that_never_acts", "early_stopping_patience=3", "can never end the run", "eval_strategy=ste"),
    ("warning", "batch_larger_than_the_rows", "per_device_train_batch_size=256", "168 training rows", "batch_size=21"),
    ("warning", "accumulation_beyond_the_rows", "gradient_accumulation_steps=64", "adds up more", "steps=1"),
    ("warning", "one_step", "max_steps=1", "a single step", "max_steps"),
    ("warning", "no_steps", "max_steps=0", "no limit", "leave max_steps out"),
    ("warning", "steps_and_epochs", "max_steps=20 num_train_epochs=9", "epochs=9.* has no effect", "max_steps out"),
    ("warning", "a_hundred_epochs", "num_train_epochs=100", "by heart", "num_train_epochs=3"),
    ("warning", "few_shot_beyond_the_rows", "few_shot=400", "few_shot is 400", "few_shot=4"),
    ("warning", "nothing_left_to_learn_from", "validation_size=0.4 test_size=0.4", "leave 20%", "test_size=0.1"),
    ("warning", "too_few_test_rows", "test_size=0.03", "too few rows to tell", "test_size="),
    ("warning", "private_without_a_push", "hub_private_repo=true", "nothing is pushed", "hub_model_id"),
    ("warning", "noise_with_packing", "neftune_noise_alpha=5", "padding_free is left out", "padding_free=false"),
    ("warning", "workers_beyond_the_cores", "dataloader_num_workers=999", "dataloader_num_workers is 999", "workers="),
    ("warning", "length_groups_with_packing", "group_by=length", "no padding to save", "leave group_by out"),
    ("warning", "max_length_beyond_the_context", "max_length=4096", "context is 512", "max_length=512"),
):  # fmt: skip
    words("settings", *entry)


@planted("settings", "fault", "line 2: is not YAML", "Replace the tab")
def tab_in_yaml(bench: Bench) -> None:
    bench.config = bench.file("my.yaml", "lora_r: 8\n\tlearning_rate: 1e-4\n")


@planted("settings", "fault", "holds further settings", "one level")
def nested_yaml(bench: Bench) -> None:
    bench.config = bench.file("my.yaml", "lora:\n  r: 8\n")


@planted("settings", "fault", "is there already and is not empty", "output_dir=FOLDER")
def folder_of_something_else(bench: Bench) -> None:
    bench.words.append("output_dir=" + str(Path(bench.file("mine/thesis.txt", "years of work")).parent))


@planted("settings", "fault", "was begun otherwise: lora_r was 8, is 16", "output_dir=FOLDER")
def folder_of_another_run(bench: Bench) -> None:
    from hf_finetune.begin import Request, run_to_make
    from hf_finetune.data.sources import LocalFile
    from hf_finetune.layers import Layer, settle
    from hf_finetune.recipe import load_recipe

    write_rows(bench.folder / "rows.jsonl", bench.rows)
    settled = settle([Layer("command line", {"lora_r": 8, "model_name_or_path": str(bench.base)})])
    source = LocalFile("rows.jsonl")
    request = Request(load_recipe(bench.recipe), bench.recipe, source, settled, bench.folder / "run", None)
    (bench.folder / "run").mkdir()
    run, _ = run_to_make(request)
    run.data = {"commit": None}
    run.write(bench.folder / "run")
    bench.words.append("output_dir=run")


# Environment: PITFALLS P and G.
@planted("environment", "fault", r"trl is 0\.9\.1, and .* is needed", "pip install 'trl")
def old_library(bench: Bench) -> None:
    bench.file("old/trl-0.9.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: trl\nVersion: 0.9.1\n")
    bench.monkeypatch.syspath_prepend(str(bench.folder / "old"))


@planted("environment", "warning", "datasets.py in this folder would be imported .* by python -m", "mv datasets.py")
def module_that_shadows_a_package(bench: Bench) -> None:
    bench.file("datasets.py", "")


@planted("environment", "warning", "trackio in this folder will be taken for trackio", "mv trackio")
def folder_that_is_taken_for_a_package(bench: Bench) -> None:
    bench.file("trackio/notes.txt", "")


@planted("environment", "fault", "HF_TOKEN holds blanks, quotes", "export HF_TOKEN")
def token_in_quotes(bench: Bench) -> None:
    bench.monkeypatch.setenv("HF_TOKEN", '"hf_abc"')


@planted("environment", "warning", "HF_TOKEN and HF_OIDC_RESOURCE are both set", "unset")
def two_tokens(bench: Bench) -> None:
    bench.monkeypatch.setenv("HF_TOKEN", "hf_abc")
    bench.monkeypatch.setenv("HF_OIDC_RESOURCE", "acme/model")


@planted("environment", "warning", "CUDA_VISIBLE_DEVICES is empty", "unset CUDA_VISIBLE_DEVICES")
def no_visible_gpu(bench: Bench) -> None:
    bench.monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@planted("environment", "fault", r"NVIDIA GPU \(driver 570\.86\.15\), but torch .* does not see it", "CUDA|driver")
def torch_without_cuda_beside_a_gpu(bench: Bench) -> None:
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 22:50:36 UTC 2025\n"
    bench.monkeypatch.setattr("hf_finetune.doctor.device.DRIVER", bench.folder / bench.file("version", text))


@planted("environment", "warning", "OMP_NUM_THREADS is 512", "export OMP_NUM_THREADS=")
def more_threads_than_cores(bench: Bench) -> None:
    bench.monkeypatch.setenv("OMP_NUM_THREADS", "512")


@planted("environment", "warning", "CUDA_LAUNCH_BLOCKING=1 is set", "unset CUDA_LAUNCH_BLOCKING")
def variable_for_debugging(bench: Bench) -> None:
    bench.monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")


@planted("environment", "warning", "TRANSFORMERS_CACHE is set, which is no longer read", "HF_HOME")
def variable_of_another_age(bench: Bench) -> None:
    bench.monkeypatch.setenv("TRANSFORMERS_CACHE", "/cache")


@planted("environment", "fault", "HF_HOME is .*: .*home is a file", "export HF_HOME")
def cache_that_cannot_be_written(bench: Bench) -> None:
    bench.file("home", "in the way")
    bench.monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(bench.folder / "home" / "hf"))


@planted("environment", "fault", "WORLD_SIZE is 2, but RANK and MASTER_ADDR", "accelerate launch")
def half_a_launcher(bench: Bench) -> None:
    bench.monkeypatch.setenv("WORLD_SIZE", "2")


@planted("environment", "fault", "asks for 8 processes, and this machine has", "--num_processes")
def accelerate_config_of_another_machine(bench: Bench) -> None:
    bench.file("accelerate/default_config.yaml", "num_processes: 8\ndistributed_type: MULTI_GPU\n")
    bench.monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(bench.folder))


@planted("environment", "fault", "HF_HUB_OFFLINE is set, and the run is to be pushed", "unset HF_HUB_OFFLINE")
def push_without_a_network(bench: Bench) -> None:
    bench.words.append("hub_model_id=acme/finsent")


# Recipe: PITFALLS I and L.
@planted("recipe", "fault", "'finset': is not installed", "finsent")
def misspelt_recipe(bench: Bench) -> None:
    bench.recipe = "finset"


@planted("recipe", "fault", "there is no such recipe file", "finsent.py")
def missing_recipe(bench: Bench) -> None:
    bench.recipe = bench.recipe.replace("finsent.py", "finsents.py")


@planted("recipe", "fault", "own.py: line .*: SyntaxError", "mend that line")
def recipe_that_is_no_python(bench: Bench) -> None:
    bench.change_recipe("def prompt(self", "def prompt(self,,")


@planted("recipe", "fault", "own.py: line .*AttributeError.*lable", "mend that line")
def recipe_that_misspells_a_field(bench: Bench) -> None:
    bench.change_recipe("return row.label", "return row.lable")


@planted("recipe", "fault", "no docstring", "Say what the task is")
def recipe_without_a_word(bench: Bench) -> None:
    start = Path(bench.recipe).read_text().index('    """Says whether')
    text = Path(bench.recipe).read_text()[start:].split('"""')[1]
    bench.change_recipe(f'    """{text}"""\n', "")


@planted("recipe", "fault", "names the path /home/me", "leave that out")
def docstring_with_a_path(bench: Bench) -> None:
    bench.change_recipe("Limits: single", "Rows of /home/me/rows.txt. Limits: single")


@planted("recipe", "fault", "license 'cc-by-nc-sa-3' is not one the Hub knows", "cc-by-nc-sa-3.0")
def licence_of_no_name(bench: Bench) -> None:
    bench.change_recipe('"cc-by-nc-sa-3.0"', '"cc-by-nc-sa-3"')


@planted("recipe", "fault", r"prompt\(\) reads label, the answer", "Leave it out")
def question_with_the_answer(bench: Bench) -> None:
    bench.change_recipe("\\n\\n{row.sentence}", "\\n\\n{row.sentence} ({row.label})")


@planted("recipe", "fault", "parse.* raises", "Give back None")
def parse_that_raises(bench: Bench) -> None:
    bench.change_recipe("return answer if answer in LABELS else None", "return LABELS[LABELS.index(answer)]")


@planted("recipe", "fault", r"score\(\) has no 'macro_f2'", "macro_f1")
def metric_that_is_not_marked(bench: Bench) -> None:
    bench.change_recipe('primary_metric = "macro_f1"', 'primary_metric = "macro_f2"')


@planted("recipe", "fault", "no setting is called 'max_lenght'", "max_length")
def hyperparameter_of_no_name(bench: Bench) -> None:
    bench.change_recipe('"max_length": 256', '"max_lenght": 256')


@planted("recipe", "fault", "is not among", "")
def answer_that_is_no_choice(bench: Bench) -> None:
    bench.change_recipe("return row.label", 'return row.label + "!"')


# Base model: PITFALLS C, M and P.
@planted("base model", "fault", "there is no such folder", "model_name_or_path")
def missing_base(bench: Bench) -> None:
    bench.base = bench.folder / "nowhere"


@planted("base model", "fault", "HF_HUB_OFFLINE is set, and revision 'main' is not in the local cache", "network")
def base_that_is_not_in_the_cache(bench: Bench) -> None:
    bench.words.append("model_name_or_path=ns/none")


@planted("base model", "fault", "no such file|no tokenizer|has no", "saved model")
def base_without_its_tokenizer(bench: Bench) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bench.own_base() / name).unlink()


@planted("base model", "fault", "tokenizer cannot be loaded", "")
def damaged_tokenizer(bench: Bench) -> None:
    bench.own_base()
    bench.file("base/tokenizer.json", "{")


@planted("base model", "fault", "config.json is no JSON", "again")
def damaged_config(bench: Bench) -> None:
    bench.own_base()
    bench.file("base/config.json", "{")


@planted("base model", "fault", "does not know the architecture 'lama'", "llama")
def architecture_of_no_name(bench: Bench) -> None:
    bench.edit("config.json", model_type="lama")


@planted("base model", "fault", "does not know the architecture ''", "name another base")
def architecture_that_is_null(bench: Bench) -> None:
    bench.edit("config.json", model_type=None)


@planted("base model", "fault", "needs code of its own repo", "architecture")
def base_with_code_of_its_own(bench: Bench) -> None:
    bench.edit("config.json", model_type="mine", auto_map={"AutoModelForCausalLM": "modeling.Mine"})


@planted("base model", "fault", "distilbert, which is no causal language model", "name a base")
def base_that_does_not_write(bench: Bench) -> None:
    bench.edit("config.json", model_type="distilbert")


@planted("base model", "fault", "no weights", "model.safetensors")
def base_without_weights(bench: Bench) -> None:
    (bench.own_base() / "model.safetensors").unlink()


@planted("base model", "fault", "model.gguf, which is not read", "model.safetensors")
def base_in_gguf(bench: Bench) -> None:
    (bench.own_base() / "model.safetensors").rename(bench.base / "model.gguf")


@planted("base model", "warning", "weights are pickles", "safetensors")
def base_in_pickles(bench: Bench) -> None:
    (bench.own_base() / "model.safetensors").rename(bench.base / "pytorch_model.bin")


@planted("base model", "fault", "model.safetensors is not whole", "again")
def cut_weights(bench: Bench) -> None:
    path = bench.own_base() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


@planted("base model", "fault", "model-00002-of-00002.safetensors is not there", "again")
def missing_shard(bench: Bench) -> None:
    path = bench.own_base() / "model.safetensors"
    path.rename(path.with_name("model-00001-of-00002.safetensors"))
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    bench.file("base/model.safetensors.index.json", json.dumps(index))


@planted("base model", "fault", r"do not fit config.json: .* is \[512, 64\], not \[640, 64\]", "one and the same")
def config_of_another_vocabulary(bench: Bench) -> None:
    """axolotl#2277, LLaMA-Factory#10186: 151666 vs 151936 rows."""
    bench.edit("config.json", vocab_size=640)


@planted(
    "base model", "warning", r"tokenizer has 51\d tokens, and its embeddings have 512 rows", "tokenizer that belongs"
)
def tokenizer_with_more_tokens_than_rows(bench: Bench) -> None:
    """None of them is used, as Gemma 3 1B's 262,145th."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bench.own_base())
    tokenizer.add_tokens([f"<|{n}|>" for n in range(512 - len(tokenizer))] + ["<|tool|>", "<|call|>", "<|more|>"])
    tokenizer.save_pretrained(bench.base)


@planted("base model", "fault", r"tokenizer has 51\d tokens, and its embeddings have 512 rows", "that belongs")
def rows_of_tokens_without_an_embedding(bench: Bench) -> None:
    tokenizer_with_more_tokens_than_rows(bench)
    bench.rows = [row | {"sentence": row["sentence"] + " <|more|>"} for row in bench.rows]


@planted("base model", "fault", "saved quantised by gptq already", "load_in_4bit=false")
def base_that_is_quantised_already(bench: Bench) -> None:
    bench.edit("config.json", quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 32})


@planted("base model", "fault", "overflows in float16", "dtype=float32")
def gemma_in_float16(bench: Bench) -> None:
    """transformers#36822: activations of Gemma 3 are larger than float16 can hold."""
    bench.edit("config.json", model_type="gemma3_text", architectures=["Gemma3ForCausalLM"], head_dim=16)
    bench.words.append("dtype=float16")


# Memory and disks: PITFALLS M.
def grown(bench: Bench, layers: int, hidden: int) -> None:
    """A base of another size, of which there is only the config."""
    (bench.own_base() / "model.safetensors").unlink()
    sizes = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_attention_heads": hidden // 128}
    bench.edit("config.json", num_hidden_layers=layers, num_key_value_heads=8, head_dim=128, **sizes)


@planted("memory", "fault", "GiB with one row at a time", "a smaller base|load_in_4bit")
def base_that_no_memory_holds(bench: Bench) -> None:
    grown(bench, 4, 65536)


@planted("disk", "fault", "GiB are needed for checkpoints", "output_dir=FOLDER")
def checkpoints_that_no_disk_holds(bench: Bench) -> None:
    grown(bench, 4, 65536)
    bench.words.append("lora_r=4096")


# Chat template and tokens: PITFALLS E.
@planted("template", "warning", "no chat template", "-Instruct")
def base_without_a_template(bench: Bench) -> None:
    bench.template(None)


@planted("template", "fault", "template cannot be rendered", "chat_template.jinja")
def template_that_is_no_jinja(bench: Bench) -> None:
    bench.template("{% for message in messages %}{{ message.content }")


@planted("template", "fault", "drops the assistant's message", "another base")
def template_without_answers(bench: Bench) -> None:
    bench.template("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}")


@planted("template", "fault", r"begins with two <\|endoftext\|>", "bos_token")
def double_bos(bench: Bench) -> None:
    """unsloth PR#10312: double BOS measured over 30 models."""
    bench.edit("tokenizer_config.json", bos_token="<|endoftext|>")
    bench.template("{{ bos_token }}{{ bos_token }}" + CHATML)


@planted("template", "fault", "no EOS token", "another base")
def nothing_to_stop_at(bench: Bench) -> None:
    """trl#2059, unsloth#416: the model never stops."""
    bench.template(None)
    bench.edit("tokenizer_config.json", eos_token=None)


@planted(
    "template", "warning", r"answers end with <\|im_end\|>, and its generation_config.json stops at", "eos_token_id"
)
def stops_at_another_token(bench: Bench) -> None:
    bench.edit("generation_config.json", eos_token_id=0)


@planted("template", "warning", r"writes <\|user\|> \(\d+ tokens\)", "one and the same base")
def markers_that_are_no_tokens(bench: Bench) -> None:
    bench.template(CHATML.replace("'<|im_start|>' + message.role", "'<|' + message.role + '|>'"))


@planted("template", "warning", "drops a system prompt", r"prompt\(\)")
def template_that_drops_the_system_prompt(bench: Bench) -> None:
    bench.template(CHATML.replace("messages %}", "messages if message.role != 'system' %}", 1))


@planted("template", "warning", "renders a finished answer other than it is asked", "nothing here")
def template_that_thinks_in_answering_only(bench: Bench) -> None:
    """LLaMA-Factory#8720: the template of training is not that of answering."""
    bench.template(CHATML.replace("assistant\n' }}{% endif", "assistant\n<think>\n' }}{% endif"))


@planted("template", "fault", "learn nothing but the end of an answer", "tokenizer")
def answers_without_a_token(bench: Bench) -> None:
    """trl#6668: every label masked, and a loss of 0.0 looks fine."""
    pattern = {"Regex": "^(positive|negative|neutral)$"}
    bench.edit("tokenizer.json", normalizer={"type": "Replace", "pattern": pattern, "content": ""})


@planted("template", "fault", "comes out of its tokens as 'good'", "parse")
def tokenizer_that_rewrites_answers(bench: Bench) -> None:
    pattern = {"Regex": "^positive$"}
    bench.edit("tokenizer.json", normalizer={"type": "Replace", "pattern": pattern, "content": "good"})


@planted("template", "fault", "are the same tokens", "name the choices")
def choices_of_the_same_tokens(bench: Bench) -> None:
    pattern = {"Regex": "^(positive|negative)$"}
    bench.edit("tokenizer.json", normalizer={"type": "Replace", "pattern": pattern, "content": "news"})


@planted("template", "warning", r"of the tokens are \[UNK\]", "language")
def tokenizer_of_another_language(bench: Bench) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["[UNK]", "<|im_start|>", "<|im_end|>", *"user assistant positive negative neutral news price".split()]
    own = Tokenizer(models.WordLevel({word: n for n, word in enumerate(known)}, unk_token="[UNK]"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    own.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=own, unk_token="[UNK]", eos_token="<|im_end|>")
    wrapped.chat_template = CHATML
    wrapped.save_pretrained(bench.own_base())


# Rows: PITFALLS J.
@planted("data", "fault", "none.jsonl: there is no such file", "rows.jsonl|Check the path|Known")
def missing_rows(bench: Bench) -> None:
    bench.data = "none.jsonl"


@planted("data", "fault", "holds no rows", "sentence, label")
def no_rows(bench: Bench) -> None:
    bench.rows = []


@planted("data", "fault", "row 3", "")
def line_that_is_no_json(bench: Bench) -> None:
    """axolotl#618: "entire dataset rejected with no context"."""
    lines = [json.dumps(row) for row in bench.rows]
    bench.file("rows.jsonl", "\n".join([*lines[:2], '{"sentence": "cut', *lines[2:]]) + "\n")


@planted("data", "fault", "'sentence' is missing", "Rename the column")
def column_of_another_name(bench: Bench) -> None:
    bench.rows = [{"sentense": row["sentence"], "label": row["label"]} for row in bench.rows]


@planted("data", "fault", "row 5: 'label' is 'positiv'", "mend the row")
def label_that_is_none(bench: Bench) -> None:
    bench.rows[4] = bench.rows[4] | {"label": "positiv"}


@planted("data", "fault", "row 7: 'sentence' is empty", "mend the row")
def empty_text(bench: Bench) -> None:
    bench.rows[6] = bench.rows[6] | {"sentence": "  "}


@planted("data", "fault", "row 2: 'label' is 1", "mend the row")
def number_for_a_label(bench: Bench) -> None:
    """ms-swift#2095: mixed types, and a traceback deep in the stack."""
    bench.rows[1] = bench.rows[1] | {"label": 1}


@planted("data", "warning", "30 rows with the question and the answer of an earlier", "take them out")
def rows_twice(bench: Bench) -> None:
    """OpenTextShield PR#195: duplicates made 7.4 % of the test set leak."""
    bench.rows += bench.rows[:30]


@planted("data", "warning", "ask the same and answer otherwise", "right one")
def rows_that_contradict(bench: Bench) -> None:
    bench.rows += [row | {"label": "neutral"} for row in bench.rows[:9] if row["label"] == "positive"]


@planted("data", "warning", "of the training rows are 'neutral'", "more rows")
def one_answer_for_nearly_all(bench: Bench) -> None:
    rare = [row for row in sample_rows(3) if row["label"] != "neutral"]
    bench.rows = [row for row in sample_rows(200) if row["label"] == "neutral"] + rare


@planted("data", "warning", "no row of the test split is", "more rows")
def class_that_is_not_tested(bench: Bench) -> None:
    bench.rows = [row for row in bench.rows if row["label"] != "positive"] + sample_rows(1)[:1]


@planted("data", "warning", "the answer stands in its own question in", "take it out")
def answers_in_the_text(bench: Bench) -> None:
    bench.rows = [row | {"sentence": f"{row['sentence']} {row['label']}"} for row in bench.rows]


@planted("data", "warning", r"\d rows are longer than max_length=256", "max_length=")
def rows_that_are_too_long(bench: Bench) -> None:
    """LLaMA-Factory#10367: out of memory at step 128, on the longest batch."""
    chance = random.Random(0)
    for number in (10, 20, 30):
        rest = " ".join(chance.choice("abcdefgh") * 2 for _ in range(200))
        bench.rows[number] = bench.rows[number] | {"sentence": f"{bench.rows[number]['sentence']} {rest}"}


@planted("data", "fault", "all .* rows of the train split are longer", "Raise it")
def rows_that_are_all_too_long(bench: Bench) -> None:
    bench.words.append("max_length=9")


@planted("data", "fault", "cannot fill train, validation, test", "more rows")
def too_few_rows(bench: Bench) -> None:
    bench.rows = sample_rows(1)


@planted("data", "fault", r"placeholder in 2 rows \(3, 12\)", "")
def unfilled_placeholders(bench: Bench) -> None:
    for number in (2, 11):
        bench.rows[number] = bench.rows[number] | {"sentence": "{{company}} said profit rose in " + f"{number} years"}


@planted("data", "warning", r"rows? \(8\).*Ã|mojibake.*8|decoded", "")
def text_decoded_wrongly(bench: Bench) -> None:
    bench.rows[7] = bench.rows[7] | {"sentence": "MÃ¼ller and SÃ¶hne said the dÃ©cision was theirs in 2019"}


@planted("data", "warning", r"personal.* in 1 row \(4\)", "mask|take|Mask|row")
def personal_data(bench: Bench) -> None:
    bench.rows[3] = bench.rows[3] | {"sentence": "Write to anna.berg@hesse-norda.eu about the loss in the quarter"}


@planted("data", "fault", r"special token in 1 row \(6\)", "")
def special_tokens_in_the_text(bench: Bench) -> None:
    bench.rows[5] = bench.rows[5] | {"sentence": "The firm said so.<|im_end|><|im_start|>assistant positive"}


@planted("data", "fault", "more cells than the header|row 2", "")
def csv_with_a_comma_too_many(bench: Bench) -> None:
    bench.data = bench.file("rows.csv", "sentence,label\nProfit rose,positive\nProfit fell, again,negative\n")


@planted("data", "fault", "is a folder|no rows|holds no", "")
def folder_for_a_file(bench: Bench) -> None:
    (bench.folder / "rows").mkdir()
    bench.data = "rows"


@pytest.fixture
def bench(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    yield from bench_in(tmp_path, tiny_base, monkeypatch)


@pytest.mark.parametrize("plant", TABLE, ids=lambda plant: f"{plant.area}-{plant.name}")
def test_a_planted_fault_is_named_with_its_fix(plant: Plant, bench: Bench) -> None:
    plant.plant(bench)
    plant.check(bench.lines(LOOKED_AT.get(plant.area, QUICK)))


def test_what_is_in_order_gets_neither_a_fault_nor_a_warning(bench: Bench) -> None:
    lines = bench.lines(QUICK)
    assert len(lines) > 10
    assert [line for line in lines if line.level != "ok"] == []


def test_a_broken_recipe_hides_nothing_else(bench: Bench) -> None:
    recipe_that_is_no_python(bench)
    bench.monkeypatch.setenv("HF_TOKEN", '"hf_abc"')
    bench.words += ["learning_rate=fast", "report_to=wandb"]
    bench.template("{% for")
    faults = [line for line in bench.lines(QUICK) if line.level == "fault"]
    assert {line.area for line in faults} == {"environment", "recipe", "settings", "base model"}
    assert len(faults) == 5


def test_the_table_has_at_least_forty_faults_of_every_kind() -> None:
    areas = Counter(plant.area for plant in TABLE)
    assert len(TABLE) == len({plant.name for plant in TABLE})
    assert sum(areas.values()) >= 100
    assert {"environment", "recipe", "settings", "base model", "template", "data", "memory", "disk"} == set(areas)


@pytest.mark.skipif(not DIRTY.is_dir(), reason="the files of other projects are not here")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("jsonl_comment_lines.jsonl", "row 1: "),
        ("identity.json", "'sentence' is missing"),
        ("v1_sft_demo.jsonl", "'sentence' is missing"),
    ],
)
def test_files_that_users_of_other_projects_fell_over_are_named(name: str, told: str, bench: Bench) -> None:
    bench.data = str(DIRTY / name)
    faults = [line for line in bench.lines(QUICK) if line.level == "fault"]
    assert any(told in line.text and line.fix for line in faults), faults
