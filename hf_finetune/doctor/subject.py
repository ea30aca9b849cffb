"""What doctor looks at: what was asked for, and what one area has found of it for the areas after it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.chat import ChatFormat
from hf_finetune.data.sources import Source
from hf_finetune.doctor.line import Line
from hf_finetune.layers import Settled
from hf_finetune.model import BaseModel
from hf_finetune.prepare import Encoded, Prepared, Read
from hf_finetune.processes import num_processes
from hf_finetune.recipe import Recipe, recipe_file
from hf_finetune.settings import Settings

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from hf_finetune.estimate.fit import Estimator


@dataclass
class Subject:
    """What a run is asked for, as far as that could be made out; None and empty where it could not."""

    settled: Settled
    recipe: Recipe[Any] | None = None
    source: Source | None = None
    """Where the rows come from."""
    license: str | None = None
    """Of the adapter; None where it is not known."""
    folder: Path = Path("runs")
    """Where the run goes."""
    odd_rows: Path | None = None
    """Rows that the recipe's contract is checked with."""
    is_demo: bool = False
    may_download: bool = False
    """Whether data sets that are not small may be downloaded."""
    already: list[Line] = field(default_factory=list)
    """What was found wrong while all this was made out, with its area."""

    base: BaseModel | None = None
    config: "PretrainedConfig | None" = None
    skeleton: "PreTrainedModel | None" = None
    """The base without its weights."""
    weights_bytes: int = 0
    """Of the base's weights as they are saved; 0 where that is not known."""
    missing_bytes: int = 0
    """Of the base's weights that are to be downloaded yet."""
    chat: ChatFormat | None = None
    data_license: dict[str, Any] = field(default_factory=dict)
    read: Read | None = None
    """All rows of the source, those left out by their faults alone."""
    prepared: Prepared | None = None
    encoded: Encoded | None = None
    drawn: Sequence[int] = ()
    """Of the training rows in it, those that stand for all where it holds a part; the others are the longest."""
    num_train_rows: int = 0
    """That are learnt from; 0 where that is not known."""
    estimator: "Estimator | None" = None

    @property
    def settings(self) -> Settings:
        """The settings of the run."""
        return self.settled.values

    def is_asked(self, name: str) -> bool:
        """Whether the user has set a setting: in a file, or on the command line."""
        return self.settled.origins[name] not in ("default", "recipe", "demo")

    @cached_property
    def recipe_file(self) -> str:
        """The file of the recipe; empty where there is none."""
        return str(recipe_file(self.recipe)) if self.recipe else ""

    @property
    def steps(self) -> int:
        """The steps of the run; 0 where that is not known."""
        if not self.num_train_rows:
            return 0
        if self.settings.max_steps > 0:
            return self.settings.max_steps
        return max(1, -int(-self.steps_in_epoch * self.settings.num_train_epochs // 1))

    @property
    def steps_in_epoch(self) -> int:
        """The steps of one pass over the rows; 0 where that is not known."""
        batches = -(-self.num_train_rows // (self.settings.per_device_train_batch_size * num_processes()))
        return -(-batches // self.settings.gradient_accumulation_steps)
