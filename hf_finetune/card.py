"""Run, data and report -> the README.md of the model repo; from the run's files and nothing else."""

import inspect
from pathlib import Path
from typing import Any

from hf_finetune.errors import plural
from hf_finetune.files import read_json, write_text
from hf_finetune.rendering import template
from hf_finetune.report import Report
from hf_finetune.run import Run
from hf_finetune.settings import Settings, written


def write_card(folder: Path) -> Path:
    """Leaves `adapter/README.md` in a run's folder, written over what PEFT or TRL put there."""
    path = folder / "adapter" / "README.md"
    write_text(path, render_card(Run.read(folder), read_json(folder / "data.json"), Report.read(folder)))
    return path


def render_card(run: Run, data: dict[str, Any], report: Report) -> str:
    """The card's text: the same bytes for the same files."""
    return template("card.md.jinja").render(
        run=run,
        data=data,
        report=report,
        metadata=metadata(run, data, report),
        description=inspect.cleandoc(run.recipe["docstring"]),
        base_link=_base_link(run),
        numerics=_numerics(run),
        method="QLoRA" if _bits(run) == 4 else "LoRA",
        snippet=usage_snippet(run, report),
        data_source=_data_source(data),
        answers=sorted(data["answers"].get("train", {})),
        hardware=_hardware(run),
        changed=_changed(run),
    )


def metadata(run: Run, data: dict[str, Any], report: Report) -> str:
    """The card's YAML header, with keys and values that the Hub accepts."""
    from huggingface_hub import EvalResult, ModelCardData

    dataset = data["source"]["name"]
    on_hub = data["source"]["is_on_hub"]
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=dataset if on_hub else "local-file",
            dataset_name=dataset,
            dataset_revision=data["source"]["commit"],
            metric_type=name,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for name, value in report.scores["tuned"].items()
    ]
    base = run.base_model["name"] if run.base_model["commit"] else None
    card = ModelCardData(
        base_model=base,
        base_model_relation="adapter" if base else None,
        datasets=[dataset] if on_hub else None,
        eval_results=results,
        language=run.recipe["language"],
        library_name="peft",
        license=run.license,
        model_name=run.recipe["name"],
        pipeline_tag="text-generation",
        tags=["hf_finetune", "lora", run.recipe["name"], *(["qlora"] if _bits(run) == 4 else [])],
    )
    return str(card.to_yaml())


def usage_snippet(run: Run, report: Report) -> str:
    """Python that asks the fine-tuned model one test row's question with transformers and peft alone."""
    settings = {name: setting["value"] for name, setting in run.settings.items()}
    return template("usage.py.jinja").render(
        base=run.base_model["name"],
        commit=run.base_model["commit"],
        base_model=run.base_model,
        bits=_bits(run),
        settings=settings,
        dtype=run.computing["dtype"],
        prompt=report.example_prompt,
        max_new_tokens=report.max_new_tokens,
    )


_LOCAL_SETTINGS = ("output_dir", "run_name", "report_to", "model_name_or_path", "model_revision")


def _changed(run: Run) -> dict[str, dict[str, Any]]:
    """Value and origin of the settings that differ from the defaults, less those that only say where and on what."""
    defaults = Settings().model_dump()
    shown = {name: setting for name, setting in run.settings.items() if name not in _LOCAL_SETTINGS}
    return {
        name: {"value": written(setting["value"]), "origin": setting["origin"]}
        for name, setting in shown.items()
        if setting["value"] != defaults.get(name)
    }


def _bits(run: Run) -> int:
    if run.settings["load_in_4bit"]["value"]:
        return 4
    return 8 if run.settings["load_in_8bit"]["value"] else 16


def _numerics(run: Run) -> str:
    form = {
        4: f"{run.settings['bnb_4bit_quant_type']['value'].upper()} (4-bit)",
        8: "8-bit",
        16: "unquantised",
    }
    return f"{form[_bits(run)]} base weights computed in {run.computing['dtype']}"


def _base_link(run: Run) -> str:
    name, commit = run.base_model["name"], run.base_model["commit"]
    return f"[{name}](https://huggingface.co/{name}) (commit `{commit}`)" if commit else f"`{name}`, a local folder,"


def _data_source(data: dict[str, Any]) -> str:
    source = data["source"]
    if source["is_on_hub"]:
        return f"[{source['name']}](https://huggingface.co/datasets/{source['name']}), commit `{source['commit']}`."
    return f"The local file `{source['name']}`, SHA-256 `{next(iter(source['files'].values()))}`."


def _hardware(run: Run) -> str:
    gpus = run.hardware["gpus"]
    where = gpus[0]["name"] if gpus else f"{run.hardware['cpu']}, {plural(run.hardware['cores'], 'core')}, no GPU"
    several = f", {run.num_processes} processes" if run.num_processes > 1 else ""
    return f"{where}{several} (peak memory {run.totals['peak_memory_gib']:.1f} GiB)"
