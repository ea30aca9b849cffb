"""All that can be set in a run, in TRL's names."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=0.5)]

OPTIMIZER_BYTES: dict[str, float] = {
    "adamw_torch": 8, "adamw_torch_fused": 8, "paged_adamw_32bit": 8,  # two moments in float32 (arXiv:1711.05101)
    "adamw_8bit": 2, "paged_adamw_8bit": 2,  # in 8 bits (arXiv:2110.02861)
    "lion_8bit": 1, "paged_lion_8bit": 1,  # one moment (arXiv:2302.06675)
    "rmsprop": 4,  # the mean square
    "adafactor": 0.1,  # the sums of rows and columns (arXiv:1804.04235); for matrices of rank 16 about a fortieth
    "sgd": 0,
}  # fmt: skip
"""Bytes of state for each value that is trained, by `optim`. Paged ones may be moved out where memory is short."""


class Settings(BaseModel):
    """All that can be set, with its default; a comment beside a number says where it comes from."""

    model_config = ConfigDict(
        frozen=True, allow_inf_nan=False, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )

    model_name_or_path: str = ""
    """Base model: a Hub id or a folder. The recipe names it."""
    model_revision: str = "main"
    """Branch, tag or commit of the base model; resolved to a commit and recorded."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """What is computed in. auto: bfloat16, float16 on a GPU without it (T4), float32 on a CPU."""
    attn_implementation: Literal[
        "auto", "eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3"
    ] = "auto"
    """Attention kernel, as transformers names it; auto: the best that the architecture supports."""

    load_in_4bit: bool = True
    """Hold the base in 4 bits (QLoRA)."""
    load_in_8bit: bool = False
    """Hold the base in 8 bits instead."""
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"  # QLoRA, arXiv:2305.14314, section 3
    """4-bit number format."""
    use_bnb_nested_quant: bool = True  # double quantisation, arXiv:2305.14314, section 3
    """Quantise the quantisation constants too: 0.37 bits a parameter less."""

    lora_r: Positive = 16  # TRL's ModelConfig and PEFT's QLoRA guide
    """Rank of the adapter."""
    lora_alpha: Positive = 32  # twice the rank, as in TRL's ModelConfig
    """Scale of the adapter: alpha / r multiplies it."""
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)  # arXiv:2305.14314, appendix B: 0.05 for small models
    """Dropout on the adapter's input."""
    lora_target_modules: list[str] = Field(
        default=["all-linear"], min_length=1
    )  # arXiv:2305.14314, section 4: all layers are needed
    """Layers that get an adapter: all-linear, or names separated by commas."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(r) (rank-stabilised LoRA, arXiv:2312.03732)."""
    use_dora: bool = False
    """Train magnitude and direction apart (DoRA, arXiv:2402.09353)."""

    learning_rate: float = Field(default=2e-4, ge=0)  # arXiv:2305.14314, table 9, up to 13B
    """Peak learning rate."""
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "constant",
        "constant_with_warmup",
        "cosine_with_restarts",
        "polynomial",
        "inverse_sqrt",
    ] = "cosine"  # alignment-handbook, zephyr-7b-beta QLoRA config
    """How the learning rate changes after warm-up."""
    warmup_steps: float = Field(default=0.1, ge=0)  # alignment-handbook, zephyr-7b-beta QLoRA config
    """Warm-up: a number of steps, or below 1 a share of the run."""
    num_train_epochs: float = Field(default=3.0, gt=0)  # transformers' TrainingArguments
    """Passes over the training split."""
    max_steps: int = -1  # transformers' TrainingArguments
    """Stop after this many steps; -1: after num_train_epochs."""
    per_device_train_batch_size: Positive = 16  # arXiv:2305.14314, table 9
    """Rows a step on one device."""
    gradient_accumulation_steps: Positive = 1  # transformers' TrainingArguments
    """Batches added up before the weights change."""
    per_device_eval_batch_size: Positive = 32  # twice the training batch, as no gradients are held; TRL's SFTConfig: 8
    """Rows at a time in evaluation."""
    max_grad_norm: float = Field(default=0.3, ge=0)  # arXiv:2305.14314, appendix B
    """Gradients are clipped to this norm."""
    weight_decay: float = Field(default=0.0, ge=0)  # arXiv:2305.14314, appendix B
    """AdamW's weight decay."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)  # transformers' TrainingArguments
    """AdamW's first decay rate."""
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)  # arXiv:2305.14314, appendix B
    """AdamW's second decay rate."""
    adam_epsilon: float = Field(default=1e-8, gt=0)  # transformers' TrainingArguments
    """AdamW's epsilon."""
    # transformers' TrainingArguments, from torch 2.8 on
    optim: Literal[
        "adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "adafactor",
        "lion_8bit", "paged_lion_8bit", "rmsprop", "sgd",
    ] = "adamw_torch_fused"  # fmt: skip
    """Optimiser, as transformers names it."""
    neftune_noise_alpha: float | None = None
    """Noise on the embeddings while training (NEFTune, arXiv:2310.05914)."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Compute activations again in the backward pass: less memory, a third more time; auto: in as many layers as it
    takes for the rest to fit."""
    dequantize_once: bool | Literal["auto"] = "auto"
    """Hold 4-bit layers as the numbers they stand for, not dequantise them in each pass; auto: when that takes no more
    than a quarter of the free memory."""
    fused_lora: bool = True  # ours
    """Compute a layer and its adapter in one step."""
    padding_free: bool = True  # ours: nothing is computed for padding
    """Lay the rows of a batch end to end, each seeing itself alone, instead of filling them up to one length."""
    shared_prefix: bool = True  # ours
    """With padding_free: compute what the rows of a batch begin with once; lora_dropout then drops the same of it."""
    group_by: Literal["length", "prefix"] | None = None  # ours: rows at random, so that no batch is of one kind
    """Rows that come in one batch: of like length (less padding where padding_free is off), or whose prompts begin
    alike, as on one schema (computed once). Each epoch still has each row once."""
    supervised_only: bool = True  # ours
    """Project onto the vocabulary only where a token carries loss."""
    max_length: Positive = 1024  # TRL's SFTConfig
    """Rows with more tokens leave the training; they are counted and shown, never cut silently."""
    keep_tokens: bool = True  # ours: the next run on the same rows begins sooner
    """Keep the tokens of 5,000 rows or more, below HF_HOME/hf_finetune (2 GiB at most)."""
    dataloader_num_workers: int = Field(default=0, ge=0)  # transformers' TrainingArguments
    """Processes that prepare batches."""
    seed: int = Field(default=42, ge=0)  # transformers' TrainingArguments
    """Seed of the split, the adapter's start and the order of rows."""

    eval_strategy: Literal["epoch", "steps"] = "epoch"
    """When the validation loss is taken and a checkpoint is kept."""
    eval_steps: Positive = 100  # SFTConfig takes logging_steps, 10: too often, as each evaluation keeps a checkpoint
    """With eval_strategy=steps: every so many steps."""
    early_stopping_patience: int = Field(default=2, ge=0)  # EarlyStoppingCallback's 1 stops at the first rise
    """Stop after so many evaluations without a lower validation loss; 0: never."""
    save_total_limit: Positive = 2  # a damaged last one then loses little; TrainingArguments keeps all
    """Newest checkpoints kept on disk, besides the best one."""
    logging_steps: Positive = 10  # TRL's SFTConfig
    """Steps between two lines of training_log.jsonl."""
    report_to: list[Literal["none", "trackio", "mlflow", "wandb", "tensorboard"]] = ["none"]
    """Experiment trackers, through their own integrations in transformers."""
    run_name: str | None = None
    """The run's name in a tracker."""
    output_dir: str = ""
    """The run's folder; empty: runs/RECIPE."""
    price_per_hour: float | None = Field(default=None, ge=0)
    """What this machine costs, in US dollars an hour; run.json then says what the run has cost."""

    hub_model_id: str | None = None
    """Push the finished run to this repo of the Hub; --push-to-hub says the same."""
    hub_private_repo: bool = False
    """Make that repo private, where it is not there yet."""

    few_shot: int = Field(default=4, ge=0)  # ours
    """Training rows shown to the base before each question, for a column beside base and fine-tuned; 0: without it."""
    few_shot_draws: Positive = 3  # ours: the choice of examples matters (arXiv:2102.09690)
    """How often the rows to show are drawn; the column is the mean."""
    baseline: Literal["tfidf"] | None = None
    """A column of TF-IDF, which needs no GPU: a logistic regression, or the nearest training row's answer."""
    num_samples: int = Field(default=0, ge=0)  # ours
    """Answers sampled to each open question, for pass@k (arXiv:2107.03374); 0: none."""
    temperature: float = Field(default=0.8, gt=0)  # arXiv:2107.03374, section 3.3: the best for 100 samples
    """How freely these are sampled."""
    measure_forgetting: bool = True  # ours
    """Also take the loss on general questions that have nothing to do with the task, before and after."""
    gates: dict[str, float] = {}
    """What the run must reach, such as macro_f1=0.8,gain=0.02; exit code 3 if it does not."""
    validation_size: Share = 0.1  # ours: of 80/10/10
    """Share of the rows that pick the best checkpoint."""
    test_size: Share = 0.1  # ours: of 80/10/10, to learn from more than datasets' train_test_split leaves (0.75)
    """Share of the rows that are only evaluated."""
    max_train_rows: Positive | None = None
    """Learn from so many rows of the training split only; fewer ones are always part of more."""
    max_test_rows: Positive | None = None
    """Evaluate on so many rows of the test split only."""
    leave_out_faulty_rows: bool = False  # ours: a broken row is better mended
    """Go on without rows that are broken or cannot be marked, which are named and counted, instead of stopping."""
    near_duplicate_similarity: float = Field(default=0.8, gt=0, le=1)  # Lee et al., arXiv:2107.06499
    """Token Jaccard index from which two prompts must not stand in two splits."""

    @property
    def optimizer_bytes(self) -> float:
        """What the optimiser holds on the device for each value that is trained; a paged one has to hold nothing."""
        return 0 if self.optim.startswith("paged_") else OPTIMIZER_BYTES[self.optim]

    @field_validator("lora_target_modules", "report_to", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("gates", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(name.strip() and sign for name, sign, _ in pairs):
            raise ValueError("it should be name=number, such as gates=macro_f1=0.8,gain=0.02")
        given = {name.strip(): number.strip() for name, _, number in pairs}
        if len(given) < len(pairs):
            raise ValueError("it should name each gate once")
        return given

    @field_validator(
        "run_name",
        "neftune_noise_alpha",
        "price_per_hour",
        "hub_model_id",
        "group_by",
        "baseline",
        "max_train_rows",
        "max_test_rows",
        mode="before",
    )
    @classmethod
    def _none(cls, value: object) -> object:
        return None if isinstance(value, str) and value.lower() in ("none", "null", "") else value

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_as_number(cls, value: object, info: Any) -> object:
        kind = cls.model_fields[info.field_name].annotation
        if isinstance(value, bool) and bool not in (kind, *get_args(kind)):
            raise ValueError("it should be a value, not a truth value")
        return value


def written(value: Any) -> str:
    """A setting's value as it is written on the command line."""
    if isinstance(value, dict):
        return ",".join(f"{name}={written(own)}" for name, own in value.items())
    if isinstance(value, list):
        return ",".join(map(written, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
