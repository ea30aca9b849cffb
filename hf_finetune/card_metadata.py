"""What a card tells the Hub: the YAML at its top, and the results as `.eval_results` has them."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hf_finetune.card_check import HUB_ID
from hf_finetune.licences import adapter_license
from hf_finetune.report import Report
from hf_finetune.run import Run
from hf_finetune.snippets import bits

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TASK = "text-generation"
RELATIONS = {"adapter": "adapter", "merged": "finetune"}
"""What the Hub calls an adapter, and weights with one merged in, beside their base."""


def metadata(run: Run, data: Mapping[str, Any], report: Report, form: str = "adapter") -> str:
    """The card's YAML header, with keys and values that the Hub accepts."""
    from huggingface_hub import ModelCardData

    source, base = data["source"], run.base_model["name"]
    on_hub = run.base_model["commit"] and re.fullmatch(HUB_ID, base)
    license = adapter_license(run.license, run.data, run.base_model)
    card = ModelCardData(
        base_model=base if on_hub else None,
        base_model_relation=RELATIONS[form] if on_hub else None,
        datasets=[source["name"]] if source["is_on_hub"] and re.fullmatch(HUB_ID, source["name"]) else None,
        eval_results=_results(source, report, form),
        language=run.recipe["language"],
        library_name="peft" if form == "adapter" else "transformers",
        license=license,
        license_name=license_name(run) if license == "other" else None,
        model_name=run.recipe["name"],
        pipeline_tag=TASK,
        tags=tags(run, form),
    )
    return str(card.to_yaml())


def _results(source: Mapping[str, Any], report: Report, form: str) -> "list[EvalResult]":
    """The metrics as model-index has them."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=TASK,
            dataset_type=source["name"] if source["is_on_hub"] else "local-file",
            dataset_name=source["name"],
            dataset_revision=source["commit"],
            metric_type=name,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for name, value in scores(report, form).items()
    ]


def scores(report: Report, form: str) -> dict[str, float]:
    """The metrics of what a card is of."""
    return report.merged["scores"] if form == "merged" else report.scores["tuned"]


def tags(run: Run, form: str) -> list[str]:
    """What the model is found by."""
    kinds = ["lora"] if form == "adapter" else []
    return ["hf_finetune", *kinds, run.recipe["name"], *(["qlora"] if kinds and bits(run) == 4 else [])]


def license_name(run: Run) -> str | None:
    """What a licence is called that the Hub has no id for: those of the recipe, the data set and the base."""
    sources = [source.get("license_name") or source.get("license") for source in (run.data, run.base_model)]
    known = dict.fromkeys(name for name in [run.license, *sources] if name not in (None, "other", "unknown"))
    return "-and-".join(re.sub(r"[^a-z0-9.]+", "-", str(name).lower()).strip("-") for name in known) or None


def eval_results(run: Run, data: Mapping[str, Any], report: Report, form: str = "adapter") -> str | None:
    """The primary metric as `.eval_results/*.yaml` has it; None where the data set is not on the Hub."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    source, name = data["source"], report.primary_metric
    if not (source["is_on_hub"] and re.fullmatch(HUB_ID, source["name"])):
        return None
    rows = report.merged["rows"] if form == "merged" else report.rows
    entry = EvalResultEntry(
        dataset_id=source["name"],
        task_id="default",
        value=round(scores(report, form)[name], 4),
        dataset_revision=source["commit"],
        date=run.started[:10],
        notes=f"{name} on {rows} rows that hf_finetune kept apart from the training",
    )
    return str(yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True))
