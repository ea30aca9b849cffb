"""A run's files -> the README.md of its adapter and of its merged weights, and the pictures beside it."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_finetune.card_check import check_card, check_docstring
from hf_finetune.card_metadata import eval_results, metadata
from hf_finetune.errors import RecipeError, first_line, plural
from hf_finetune.files import read_json, sha256, unreadable, whole_file
from hf_finetune.intervals import RESAMPLES
from hf_finetune.licences import adapter_license
from hf_finetune.page import score_rows, worse_metrics
from hf_finetune.pictures import number
from hf_finetune.rendering import as_python, template
from hf_finetune.report import Report
from hf_finetune.run import Run
from hf_finetune.settings import Settings, written
from hf_finetune.snippets import bits, has_public_rows, may_quote_rows, usages

DATA_FACTS = ("source", "rows", "answers", "longer_than_max_length")
"""What data.json holds of a run with a training, besides numbers."""
LOSS_CURVE, COMPARISON = "loss_curve.png", "comparison.svg"


def write_card(folder: Path) -> list[Path]:
    """Leaves README.md and its pictures in a run's `adapter/`, over what PEFT or TRL put there, and in `merged/`.

    Raises:
        RecipeError: when the run has no adapter, a file of it is damaged, or the card could not be published.
    """
    run, report = Run.read(folder), Report.read(folder)
    if not run.training:
        raise RecipeError(f"{folder}: trained no adapter, so there is nothing to write a card on. Name another run.")
    if not (folder / "merged").is_dir():
        report = replace(report, merged={})  # they were removed
    forms = ["adapter", *(["merged"] if report.merged else [])]
    made = [(folder / form / name, content) for form in forms for name, content in card_files(folder, form, report)]
    for path, content in made:
        with whole_file(path) as temporary:
            temporary.write_bytes(content)
    return [path for path, _ in made if path.name == "README.md"]


def card_files(folder: Path, form: str = "adapter", report: Report | None = None) -> list[tuple[str, bytes]]:
    """The files of the card on a run's adapter or merged weights, their names and bytes; README.md is the last.

    `report` is told instead of what report.json says.
    """
    run, data, report = Run.read(folder), _read_data(folder / "data.json"), report or Report.read(folder)
    verified = verified_parts(folder)
    check_docstring(run.recipe, f"Take that out of its docstring in {folder / 'run.json'}")
    files = {COMPARISON: render_comparison(report).encode()}
    if (folder / LOSS_CURVE).is_file():
        files[LOSS_CURVE] = (folder / LOSS_CURVE).read_bytes()
    results = eval_results(run, data, report, form)
    if results:
        files[f".eval_results/{run.recipe['name']}.yaml"] = results.encode()
    card = render_card(run, data, report, verified, form, frozenset(files))
    check_card(card, _quoted(run, data, report, verified))
    return [*files.items(), ("README.md", card.encode())]


def render_card(
    run: Run, data: Mapping[str, Any], report: Report, verified: Mapping[str, Any] | None = None,
    form: str = "adapter", files: frozenset[str] = frozenset(),
) -> str:  # fmt: skip
    """The card's text: the same bytes for the same files. `files` are those that lie beside it."""
    return template("card.md.jinja", keep_trailing_newline=True).render(
        run=run,
        data=data,
        report=report,
        is_merged=form == "merged",
        pictures={"loss": LOSS_CURVE in files, "comparison": COMPARISON in files},
        metadata=metadata(run, data, report, form),
        description=inspect.cleandoc(run.recipe["docstring"]),
        base_link=_base_link(run),
        sibling=_sibling(run, form),
        numerics=_numerics(run),
        method="QLoRA" if bits(run) == 4 else "LoRA",
        usages=usages(run, report, verified or {}, form),
        are_rows_shown=may_quote_rows(run),
        is_quantised=bits(run) < 16,
        are_rows_public=has_public_rows(run),
        data_source=_data_source(data),
        licence=_licence(run),
        answers=sorted(data["answers"].get("train", {})),
        hardware=_hardware(run),
        smaller=_smaller_batches(run),
        changed=_settings(run, changed_only=True),
        settings=_settings(run),
        worse=_worse(report),
        resamples=RESAMPLES,
    )  # fmt: skip


def render_comparison(report: Report) -> str:
    """The primary metric of each column with its interval, as an SVG picture."""
    return template("comparison.svg.jinja", trim_blocks=True, lstrip_blocks=True).render(
        report=report, picture=score_rows(report)
    )


def _read_data(path: Path) -> dict[str, Any]:
    """What data.json of a run says.

    Raises:
        RecipeError: when it is not there or damaged.
    """
    try:
        data = dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise unreadable(path, error) from error
    lacking = [name for name in DATA_FACTS if not isinstance(data.get(name), dict)]
    if lacking:
        raise RecipeError(f"{path}: is damaged: it lacks {lacking[0]!r}. Remove it and start the run's command again.")
    return data


def verified_parts(folder: Path) -> dict[str, Any]:
    """What verified.json says of the files that are there now; of files that were others then nothing."""
    path = folder / "verified.json"
    try:
        parts = dict(read_json(path)) if path.exists() else {}
    except (OSError, ValueError, TypeError) as error:
        raise RecipeError(
            f"{path}: cannot be read ({first_line(error)}). Remove it: hf-finetune verify {folder} makes it again."
        ) from error

    def is_of_now(form: str, part: Any) -> bool:
        known = part.get("files", {}) if isinstance(part, dict) else None
        place = folder / ("adapter" if form == "several" else form)
        files = {place / name: own for name, own in known.items()} if isinstance(known, dict) else None
        return files is not None and all(not file.is_file() or sha256(file) == own for file, own in files.items())

    return {form: part for form, part in parts.items() if is_of_now(form, part)}


def _quoted(run: Run, data: Mapping[str, Any], report: Report, verified: Mapping[str, Any]) -> list[str]:
    """The texts on a card that are not ours to word."""
    answers = [str(part.get(name, "")) for part in verified.values() for name in ("answer", "gold")]
    docstring = inspect.cleandoc(run.recipe["docstring"])
    texts = [docstring, as_python(report.example_prompt), *answers, *data.get("remarks", ()), *report.notes]
    return sorted((text for text in texts if len(text) > 3), key=len, reverse=True)


_LOCAL_SETTINGS = ("output_dir", "run_name", "report_to", "model_name_or_path", "model_revision")


def _settings(run: Run, changed_only: bool = False) -> dict[str, dict[str, Any]]:
    """Value and origin of the settings, less those that only say where and on what."""
    defaults = Settings().model_dump()
    shown = {name: setting for name, setting in run.settings.items() if name not in _LOCAL_SETTINGS}
    return {
        name: {"value": written(setting["value"]), "origin": setting["origin"]}
        for name, setting in shown.items()
        if not changed_only or setting["value"] != defaults.get(name)
    }


def _worse(report: Report) -> dict[str, list[str]]:
    """What fine-tuning made worse, the base's value and the fine-tuned model's; forgetting is told beside it."""
    return {
        metric.name: [number(metric.values[column], metric.digits) for column in ("base", "tuned")]
        for metric in worse_metrics(report)
        if metric.values is not report.general_loss
    }


def _numerics(run: Run) -> str:
    form = {
        4: f"{run.settings['bnb_4bit_quant_type']['value'].upper()} (4-bit)",
        8: "8-bit",
        16: "unquantised",
    }
    return f"{form[bits(run)]} base weights computed in {run.computing['dtype']}"


def _base_link(run: Run) -> str:
    name, commit = run.base_model["name"], run.base_model["commit"]
    return f"[{name}](https://huggingface.co/{name}) (commit `{commit}`)" if commit else f"`{name}` (a local folder)"


def _sibling(run: Run, form: str) -> str:
    """The repo with the adapter, on the card of the merged weights, and the reverse; empty where there is none."""
    name = run.published.get("adapter" if form == "merged" else "merged")
    return f"[{name}](https://huggingface.co/{name})" if name else ""


def _data_source(data: Mapping[str, Any]) -> str:
    source = data["source"]
    if source["is_on_hub"]:
        return f"[{source['name']}](https://huggingface.co/datasets/{source['name']}), commit `{source['commit']}`."
    return f"The local file `{source['name']}`, SHA-256 `{next(iter(source['files'].values()))}`."


def _licence(run: Run) -> str:
    """What is known of the licences of the adapter, of its rows and of its base."""
    own = adapter_license(run.license, run.data, run.base_model)
    if own and run.is_demo:
        return f"The adapter, these rows and the demonstration model are under `{own}`."
    sources = {"data set": run.data, "base": run.base_model}
    known = {what: source.get("license_name") or source.get("license") for what, source in sources.items()}
    told = [f"that of the {what} is {f'`{licence}`' if licence else 'not known'}" for what, licence in known.items()]
    first = (
        f"The licence is `{own}`, as the recipe has it"
        if own
        else "No licence is stated for the adapter, as nothing is known of its rows"
    )
    if not own and not any(known.values()):
        return "No licence is stated: neither that of the rows nor that of the base is known."
    if own == "other" and run.license != "other":
        first = (
            f"The licence is what the recipe claims, `{run.license}`, with the terms that come along from its sources"
        )
    return f"{first}: {'; '.join(told)}."


def _smaller_batches(run: Run) -> str:
    """Which batches were taken in smaller pieces than the settings say; nothing if all went through as asked for."""
    used = {name: value for session in run.sessions for name, value in session.get("used", {}).items()}
    if not used:
        return ""
    told = ", ".join(f"`{name}={value}`" for name, value in sorted(used.items()))
    return f"Where memory did not hold batches as they were asked for, they were computed as with {told}. "


def _hardware(run: Run) -> str:
    gpus = run.hardware["gpus"]
    where = gpus[0]["name"] if gpus else f"{run.hardware['cpu']}, {plural(run.hardware['cores'], 'core')}, no GPU"
    several = f", {run.num_processes} processes" if run.num_processes > 1 else ""
    return f"{where}{several} (peak memory {run.totals['peak_memory_gib']:.1f} GiB)"
