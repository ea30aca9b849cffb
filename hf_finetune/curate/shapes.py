"""Samples -> columns of a layout that TRL's trainers and `datasets` read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_finetune.data.samples import Message, Sample
from hf_finetune.errors import RecipeError

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Shape:
    """The columns that a prepared data set has."""

    name: str
    columns: tuple[str, ...]
    trainer: str
    """Who reads them."""
    task: str
    """As the Hub calls it."""
    command: str
    """Of TRL's command line."""


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("question", ("prompt", "completion"), "TRL's SFTTrainer (prompt-completion, conversational)",
              "text-generation", "sft"),
        Shape("chat", ("messages",), "TRL's SFTTrainer (conversational)", "text-generation", "sft"),
        Shape("text", ("text",), "TRL's SFTTrainer (language modelling)", "text-generation", "sft"),
        Shape("label", ("text", "label"), "a recipe, or transformers' Trainer for text classification",
              "text-classification", ""),
        Shape("preference", ("prompt", "chosen", "rejected"), "TRL's DPOTrainer and RewardTrainer",
              "text-generation", "dpo"),
        Shape("rated", ("prompt", "completion", "label"), "TRL's KTOTrainer", "text-generation", "kto"),
    )
}  # fmt: skip


def shape_of(sample: Sample) -> str:
    """The name of the narrowest shape that holds a sample."""
    if sample.rejected:
        return "preference"
    if sample.is_good is not None:
        return "rated"
    if sample.label is not None and len(sample.messages) <= 2:
        return "label"
    roles = [message.role for message in sample.messages]
    if roles == ["assistant"]:
        return "text"
    return "question" if [role for role in roles if role != "system"] == ["user", "assistant"] else "chat"


def common_shape(counted: Mapping[str, int]) -> Shape:
    """The narrowest shape that holds samples of all these.

    Raises:
        RecipeError: pairs or ratings beside samples that have none.
    """
    names = {name for name, count in counted.items() if count}
    special = names & {"preference", "rated"}
    if special and len(names) > 1:
        told = ", ".join(f"{counted[name]:,} rows are {name}" for name in sorted(names))
        raise RecipeError(
            f"rows: {told}, and one data set cannot hold both. Prepare each alone, or say what a row is with --map."
        )
    return SHAPES[names.pop() if len(names) == 1 else "chat"]


def as_row(sample: Sample, shape: Shape, weighted: bool) -> dict[str, Any]:
    """A sample in the columns of a shape; `weighted` keeps the weight of each turn."""
    if shape.name == "label":
        return {"text": sample.prompt or sample.completion, "label": sample.label}
    if shape.name == "text":
        return {"text": sample.completion}
    if shape.name == "chat":
        return {"messages": _turns(sample.messages, weighted)}
    cut = -len(sample.rejected) if sample.rejected else -1
    prompt, answer = _turns(sample.messages[:cut], weighted), _turns(sample.messages[cut:], weighted)
    if shape.name == "preference":
        return {"prompt": prompt, "chosen": answer, "rejected": _turns(sample.rejected, weighted)}
    row: dict[str, Any] = {"prompt": prompt, "completion": answer}
    return row | ({"label": sample.is_good} if shape.name == "rated" else {})


def schema(shape: Shape, weighted: bool) -> "pyarrow.Schema":
    """The columns with their types, and of each row the source that it is from."""
    import pyarrow as pa

    weight = [("weight", pa.float64())] if weighted else []
    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), *weight]))
    types = {"text": pa.string(), "label": pa.bool_() if shape.name == "rated" else pa.string()}
    return pa.schema([*((name, types.get(name, turns)) for name in shape.columns), ("source", pa.string())])


def _turns(messages: Sequence[Message], weighted: bool) -> list[dict[str, Any]]:
    weights = [{"weight": message.weight} if weighted else {} for message in messages]
    return [{"role": one.role, "content": one.content, **own} for one, own in zip(messages, weights, strict=True)]
