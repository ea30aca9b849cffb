"""Settings come in layers, each value knows where it was written, and every mistake is told there."""

from pathlib import Path
from typing import Any, get_args

import pytest

from hf_finetune.errors import RecipeError
from hf_finetune.layers import COMMAND_LINE, Layer, Settled, parse_assignments, read_yaml, settle
from hf_finetune.settings import OPTIMIZER_BYTES, Settings, written


def yaml_file(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def from_yaml(folder: Path, text: str) -> Settled:
    return settle([read_yaml(yaml_file(folder, text))])


def from_words(*words: str) -> Settings:
    return settle([parse_assignments(words)]).values


def refusal(*layers: Layer) -> str:
    with pytest.raises(RecipeError) as caught:
        settle(layers)
    return str(caught.value)


# Layers


def test_without_layers_all_settings_have_their_defaults() -> None:
    settled = settle([])
    assert settled.values == Settings()
    assert set(settled.origins.values()) == {"default"}


def test_the_last_layer_wins_and_is_the_origin() -> None:
    settled = settle(
        [
            Layer("recipe", {"lora_r": 8, "seed": 1, "max_length": 256}),
            Layer("run.yaml", {"lora_r": 32, "seed": 2}),
            parse_assignments(["seed=3"]),
        ]
    )
    found = {name: (getattr(settled.values, name), settled.origins[name]) for name in ("lora_r", "seed", "max_length")}
    assert found == {"lora_r": (32, "run.yaml"), "seed": (3, COMMAND_LINE), "max_length": (256, "recipe")}
    assert settled.origins["weight_decay"] == "default"


def test_a_layer_that_repeats_the_default_is_still_its_origin() -> None:
    assert settle([Layer("recipe", {"seed": 42})]).origins["seed"] == "recipe"


def test_every_setting_is_recorded_with_value_and_origin() -> None:
    recorded = settle([Layer("recipe", {"lora_r": 8})]).as_json()
    assert set(recorded) == set(Settings.model_fields)
    assert recorded["lora_r"] == {"value": 8, "origin": "recipe"}
    assert recorded["lora_alpha"] == {"value": 32, "origin": "default"}


def test_every_setting_has_a_description() -> None:
    fields = Settings.model_fields
    assert len(fields) > 40
    assert [name for name, field in fields.items() if not field.description] == []


# The command line


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("learning_rate=2e-4", "learning_rate", 0.0002),
        ("lora_r=8", "lora_r", 8),
        ("load_in_4bit=false", "load_in_4bit", False),
        ("use_dora=True", "use_dora", True),
        ("lora_target_modules=q_proj, v_proj,", "lora_target_modules", ["q_proj", "v_proj"]),
        ("report_to=trackio,mlflow", "report_to", ["trackio", "mlflow"]),
        ("output_dir=runs/a=b", "output_dir", "runs/a=b"),
        ("--learning_rate=0.1", "learning_rate", 0.1),
        ("seed = 7", "seed", 7),
        ("run_name=12", "run_name", "12"),
        ("max_steps=-1", "max_steps", -1),
    ],
)
def test_a_word_is_read_as_a_value_of_the_settings_type(word: str, name: str, value: object) -> None:
    assert getattr(from_words(word), name) == value


@pytest.mark.parametrize("word", ["none", "None", "null", "NULL", ""])
def test_none_and_null_mean_absent_where_a_setting_may_be_absent(word: str) -> None:
    values = from_words(f"run_name={word}", f"neftune_noise_alpha={word}")
    assert values.run_name is None
    assert values.neftune_noise_alpha is None


def test_none_is_no_value_where_a_setting_may_not_be_absent() -> None:
    with pytest.raises(RecipeError, match="command line: lora_r is 'none'; it should be a valid integer"):
        from_words("lora_r=none")


def test_a_word_without_a_value_is_told() -> None:
    with pytest.raises(RecipeError, match=r"command line: 'lora_r' is no setting\. Write name=value"):
        parse_assignments(["seed=1", "lora_r"])


def test_a_name_given_twice_is_told() -> None:
    with pytest.raises(RecipeError, match=r"command line: seed is given twice\. Give it once\."):
        parse_assignments(["seed=1", "lora_r=8", "--seed=1"])


# Mistakes


def test_an_unknown_name_is_told_with_the_nearest_one_and_its_origin() -> None:
    told = refusal(Layer("recipe", {"learning_rte": 1}))
    assert told == "recipe: no setting is called 'learning_rte'. Did you mean 'learning_rate'?"


def test_where_the_settings_stand_is_told_in_place_of_all_their_names() -> None:
    told = refusal(Layer("recipe", {"zzz": 1}))
    assert told == "recipe: no setting is called 'zzz'. hf-finetune run RECIPE --dry-run lists all settings."


@pytest.mark.parametrize(("name", "fix"), [("bf16", "Write dtype=bfloat16."), ("fp16", "Write dtype=float16.")])
def test_a_number_format_leads_to_dtype(name: str, fix: str) -> None:
    assert refusal(Layer("command line", {name: "true"})) == f"command line: no setting is called {name!r}. {fix}"


def test_the_hyphenated_spelling_of_a_name_leads_to_the_right_one() -> None:
    assert refusal(parse_assignments(["learning-rate=1"])).endswith("Did you mean 'learning_rate'?")


def test_a_word_for_a_number_is_told_with_the_default() -> None:
    told = refusal(parse_assignments(["learning_rate=fast"]))
    assert told.startswith("command line: learning_rate is 'fast'; it should be a valid number")
    assert told.endswith("The default is 0.0002.")


@pytest.mark.parametrize("name", ["lora_r", "learning_rate", "seed", "run_name", "lora_target_modules", "dtype"])
@pytest.mark.parametrize("value", [True, False])
def test_a_truth_value_for_another_setting_is_told(name: str, value: bool) -> None:
    # Python takes True for 1 and YAML takes `yes` for True: `seed: yes` would be seed 1.
    told = refusal(Layer("recipe", {name: value}))
    assert told.startswith(f"recipe: {name} is {value}; it should be a value, not a truth value.")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lora_r", 0),
        ("lora_r", 2.5),
        ("lora_dropout", 1),
        ("learning_rate", -1e-4),
        ("num_train_epochs", 0),
        ("validation_size", 0.5),
        ("test_size", 0),
        ("near_duplicate_similarity", 1.1),
        ("dtype", "float8"),
        ("lr_scheduler_type", "cosin"),
        ("report_to", "tracio"),
        ("load_in_4bit", "maybe"),
        ("eval_strategy", "no"),
        ("learning_rate", "nan"),
        ("seed", -1),
        ("optim", 5),
    ],
)
def test_a_value_outside_its_range_is_told_where_it_was_written(name: str, value: object) -> None:
    assert refusal(Layer("recipe", {name: value})).startswith(f"recipe: {name} is ")


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "max_grad_norm", "num_train_epochs"])
def test_an_infinite_number_is_told(name: str) -> None:
    assert refusal(parse_assignments([f"{name}=inf"])).startswith(f"command line: {name} is 'inf'")


def test_all_mistakes_of_all_layers_are_told_at_once() -> None:
    lines = refusal(
        Layer("recipe", {"learning_rte": 1, "lora_r": 0}), parse_assignments(["seed=x", "no_such=1"])
    ).split("\n")
    assert sorted(line.split(":")[0] for line in lines) == [COMMAND_LINE, COMMAND_LINE, "recipe", "recipe"]


def test_the_first_five_of_many_mistakes_are_shown_with_the_number_of_the_others() -> None:
    lines = refusal(Layer("recipe", {f"unknown_{number}": 1 for number in range(8)})).split("\n")
    assert len(lines) == 6
    assert lines[-1] == "(and 3 more faults)"


def test_a_mistake_that_a_later_layer_mends_is_none() -> None:
    assert settle([Layer("recipe", {"lora_r": 0}), parse_assignments(["lora_r=8"])]).values.lora_r == 8


def test_the_base_cannot_be_held_in_4_and_in_8_bits() -> None:
    told = refusal(Layer("recipe", {"load_in_4bit": True}), parse_assignments(["load_in_8bit=true"]))
    assert told == ("command line: load_in_8bit=true contradicts load_in_4bit=true (recipe). Add load_in_4bit=false.")


def test_dora_does_not_go_with_8_bits() -> None:
    told = refusal(Layer("recipe", {"use_dora": True}), parse_assignments(["load_in_4bit=0", "load_in_8bit=1"]))
    assert told.startswith("recipe: DoRA does not train on an 8-bit base")


def test_8_bits_alone_and_dora_on_4_bits_are_no_contradiction() -> None:
    assert from_words("load_in_4bit=false", "load_in_8bit=true").load_in_8bit
    assert from_words("use_dora=true").use_dora


def test_settings_cannot_be_changed_once_settled() -> None:
    values: Any = settle([]).values
    with pytest.raises(ValueError, match="frozen"):
        values.seed = 1


# YAML


def test_a_number_in_scientific_notation_is_a_number_in_yaml(tmp_path: Path) -> None:
    # PyYAML reads 2e-4, without a point, as text (YAML 1.1).
    settled = from_yaml(tmp_path, "learning_rate: 2e-4\n")
    assert settled.values.learning_rate == 0.0002
    assert settled.origins["learning_rate"] == str(tmp_path / "settings.yaml")


def test_lists_texts_and_nulls_are_read_from_yaml(tmp_path: Path) -> None:
    text = "# my run\nlora_target_modules: [q_proj, v_proj]\nreport_to: trackio\nrun_name: null\nneftune_noise_alpha:\n"
    assert from_yaml(tmp_path, text).values.model_dump(exclude_defaults=True) == {
        "lora_target_modules": ["q_proj", "v_proj"],
        "report_to": ["trackio"],
    }


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"])
def test_an_empty_yaml_file_sets_nothing(tmp_path: Path, text: str) -> None:
    assert from_yaml(tmp_path, text).values == Settings()


def test_yes_for_a_number_in_yaml_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"settings\.yaml: seed is True; it should be a value, not a truth value"):
        from_yaml(tmp_path, "seed: yes\n")


def test_null_for_a_number_in_yaml_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"settings\.yaml: lora_r is None; it should be a valid integer"):
        from_yaml(tmp_path, "lora_r: null\n")


def test_a_tab_in_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"settings\.yaml: line 3: is not YAML .* Replace the tab by spaces"):
        from_yaml(tmp_path, "# tabs\nlora_r: 8\n\tseed: 1\n")


def test_what_is_not_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"settings\.yaml: line 2: is not YAML .* Write name: value lines\."):
        from_yaml(tmp_path, 'seed: 1\nrun_name: "a" b\n')


def test_nested_yaml_is_told_with_the_names_that_hold_more(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"settings\.yaml: lora, train holds further settings\. .* one level"):
        from_yaml(tmp_path, "seed: 1\nlora:\n  r: 8\ntrain: {epochs: 3}\n")


@pytest.mark.parametrize(("text", "kind"), [("- lora_r\n", "list"), ("lora_r=8\n", "str"), ("8\n", "int")])
def test_yaml_that_is_no_mapping_is_told(tmp_path: Path, text: str, kind: str) -> None:
    with pytest.raises(RecipeError, match=rf"settings\.yaml: is {kind}, not name: value lines\."):
        from_yaml(tmp_path, text)


def test_an_unknown_name_in_yaml_is_told_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"settings\.yaml: no setting is called '8'"):
        from_yaml(tmp_path, "8: 16\n")


def test_a_missing_yaml_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: cannot be read: No such file .* --config"):
        read_yaml(tmp_path / "none.yaml")


def test_a_yaml_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_bytes("run_name: Ä\n".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"settings\.yaml: is not UTF-8 text"):
        read_yaml(tmp_path / "settings.yaml")


@pytest.mark.parametrize("text", ["run_name: \x07\n", "run_name: 2024-13-45\n"], ids=["control character", "no date"])
def test_a_value_that_yaml_cannot_read_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match=r"settings\.yaml: "):
        from_yaml(tmp_path, text)


def test_a_name_given_twice_in_yaml_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="seed"):
        from_yaml(tmp_path, "seed: 1\nlora_r: 8\nseed: 2\n")


def test_a_setting_of_two_types_has_one_fault() -> None:
    with pytest.raises(RecipeError) as caught:
        settle([Layer("command line", {"gradient_checkpointing": "maybe"})])
    assert str(caught.value) == (
        "command line: gradient_checkpointing is 'maybe'; it should be 'auto', true or false. The default is 'auto'."
    )
    assert settle([Layer("command line", {"gradient_checkpointing": "true"})]).values.gradient_checkpointing is True


@pytest.mark.parametrize("value", ["maybe", "none", 2, None, [True]])
def test_the_words_for_a_truth_value_are_told(value: object) -> None:
    told = refusal(Layer("recipe", {"fused_lora": value}))
    assert told == f"recipe: fused_lora is {value!r}; it should be true or false. The default is True."


@pytest.mark.parametrize(("name", "words"), [("group_by", "'length' or 'prefix'"), ("baseline", "'tfidf'")])
def test_none_is_told_among_the_words_of_a_setting_that_may_be_absent(name: str, words: str) -> None:
    told = refusal(parse_assignments([f"{name}=foo"]))
    assert told == f"command line: {name} is 'foo'; it should be {words}, or none. The default is None."


def test_none_is_not_told_among_the_words_of_a_setting_that_may_not_be_absent() -> None:
    assert "none" not in refusal(parse_assignments(["eval_strategy=foo"]))


def test_gates_are_names_with_numbers() -> None:
    settled = settle([parse_assignments(["gates=macro_f1=0.8, gain=2e-2"])])
    assert settled.values.gates == {"macro_f1": 0.8, "gain": 0.02}
    assert settle([Layer("recipe", {"gates": {"gain": 1}})]).values.gates == {"gain": 1.0}
    assert settle([Layer("recipe", {"gates": {"gain": 1}}), parse_assignments(["gates="])]).values.gates == {}
    for words, fault in (
        ("gates=macro_f1", "gates is 'macro_f1'; it should be name=number, such as"),
        ("gates=gain=much", "gates: gain is 'much'; it should be a valid number"),
        ("gates=gain=nan", "gates: gain is 'nan'; it should be a finite number"),
        ("gates=gain=1,gain=2", "it should name each gate once"),
    ):
        assert fault in refusal(parse_assignments([words]))


def test_a_yaml_file_may_hold_gates_as_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("gates:\n  macro_f1: 0.8\n")
    assert settle([read_yaml(path)]).values.gates == {"macro_f1": 0.8}


def test_each_value_is_read_as_it_is_written() -> None:
    chosen = Settings(gates={"gain": 0.02, "macro_f1": 0.8}, lora_target_modules=["q_proj", "v_proj"], max_steps=7)
    for values in (Settings(), chosen):
        words = [f"{name}={written(value)}" for name, value in values.model_dump().items()]
        assert len(words) > 50
        assert settle([parse_assignments(words)]).values == values


def test_a_paged_optimizer_has_to_hold_nothing_on_the_device() -> None:
    assert set(OPTIMIZER_BYTES) == set(get_args(Settings.model_fields["optim"].annotation))
    held = {name: Settings.model_validate({"optim": name}).optimizer_bytes for name in OPTIMIZER_BYTES}
    assert (held["adamw_torch"], held["adamw_8bit"], held["paged_adamw_8bit"], held["sgd"]) == (8, 2, 0, 0)
