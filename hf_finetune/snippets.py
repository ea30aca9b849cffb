"""Python that asks the fine-tuned model a question with public libraries alone, and what it was seen to print."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hf_finetune.rendering import template
from hf_finetune.report import Report
from hf_finetune.run import Run

Way = Literal["adapter", "merged", "several", "vllm", "vllm_merged"]

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as `max_lora_rank` (its config/lora.py), besides 1."""
SEVERAL_NOTE = (
    "The second may be any adapter on this very base, such as one of another recipe; here it is the same one twice."
)


@dataclass(frozen=True)
class Usage:
    """A way to use the model, and what came of it when it was tried."""

    title: str
    snippet: str
    note: str = ""
    is_vllm: bool = False
    verified: Mapping[str, Any] = field(default_factory=dict)
    """Of verified.json, where that executed these very words."""

    @property
    def fence(self) -> str:
        """What encloses the answer: longer than any run of backticks in it."""
        answer, fence = str(self.verified.get("answer", "")), "```"
        while fence in answer:
            fence += "`"
        return fence

    @property
    def versions(self) -> str:
        """What it was executed with: `python 3.11.7, torch 2.13.0`."""
        return ", ".join(f"{library} {number}" for library, number in self.verified.get("versions", {}).items())


def usages(run: Run, report: Report, verified: Mapping[str, Any], form: str) -> list[Usage]:
    """The ways to use a run's adapter, or its merged weights; each with what verified.json says of it."""
    is_plain = not run.settings["use_dora"]["value"]  # neither PEFT's mixed batches nor vLLM take DoRA
    titles: dict[Way, str] = {"adapter": "The adapter"} if form == "adapter" else {}
    titles |= {"several": "Several adapters on one base"} if form == "adapter" and is_plain else {}
    titles |= {"merged": "The merged weights"} if report.merged else {}
    vllm: Way = "vllm" if form == "adapter" else "vllm_merged"
    if form == "merged" or is_plain:
        titles[vllm] = "With vLLM"
    shown = []
    for way, title in titles.items():
        snippet = usage_snippet(run, report, way)
        own = verified.get(way, {})
        note = _vllm_note(run, form) if way == vllm else SEVERAL_NOTE if way == "several" else ""
        shown.append(Usage(title, snippet, note, way == vllm, own if own.get("snippet") == snippet else {}))
    return shown


def usage_snippet(run: Run, report: Report, way: Way = "adapter") -> str:
    """Python that asks the fine-tuned model one test row's question, where the card may quote it."""
    name = "usage_vllm.py.jinja" if way.startswith("vllm") else "usage.py.jinja"
    is_merged = way in ("merged", "vllm_merged")
    rank = run.settings["lora_r"]["value"]
    return template(name).render(
        is_merged=is_merged,
        repo=run.published.get("merged" if is_merged else "adapter"),
        is_several=way == "several",
        base=run.base_model["name"],
        commit=run.base_model["commit"],
        base_model=run.base_model,
        bits=bits(run),
        settings={name: setting["value"] for name, setting in run.settings.items()},
        dtype=run.computing["dtype"],
        merged_dtype=report.merged.get("dtype"),
        max_lora_rank=next((own for own in VLLM_RANKS if own >= rank), rank),
        recipe=run.recipe["name"],
        prompt=report.example_prompt if may_quote_rows(run) else None,
        max_new_tokens=report.max_new_tokens,
    )


def may_quote_rows(run: Run) -> bool:
    """Whether the card may quote the rows of a run: a card is made to be published."""
    return run.are_rows_shown or has_public_rows(run)


def has_public_rows(run: Run) -> bool:
    """Whether anybody can read the rows of a run: on the Hub, or the samples that ship with this package."""
    is_sample = run.is_demo and run.license is not None  # of a user's own rows no licence is known
    return run.data["is_on_hub"] or is_sample


def bits(run: Run) -> int:
    """Of the base's weights as they were held in the run."""
    if run.settings["load_in_4bit"]["value"]:
        return 4
    return 8 if run.settings["load_in_8bit"]["value"] else 16


def _vllm_note(run: Run, form: str) -> str:
    """How its numbers are others than those of the results."""
    if form == "adapter" and bits(run) < 16:
        return "vLLM holds the base unquantised here, unlike the results above, so some answers may differ."
    return "vLLM rounds differently from the results above, so single answers may differ."
