"""`hf-finetune prepare`: from somebody's rows to a data set that can be trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from hf_finetune.data.cleaning import LEVELS
from hf_finetune.errors import RecipeError, plural
from hf_finetune.interruption import interruption
from hf_finetune.processes import cores

SHOWN = 2
"""Examples of each check on the screen."""
CHECKS_SHOWN = 12


class Pair(click.ParamType[tuple[str, str]]):
    """Two words with = between."""

    name = "pair"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """The two; a usage error where there are not."""
        if not isinstance(value, str):
            return value  # type: ignore[return-value]  # click passes what is converted already
        left, sign, right = value.rpartition("=")
        if not (left and sign and right):
            form = (param and param.metavar) or "NAME=VALUE"
            self.fail(f"{value!r} is not of the form {form}.", param, ctx)
        return left, right


class Words(click.ParamType[tuple[str, ...]]):
    """Words with commas between."""

    name = "words"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The words, without white space around them."""
        if not isinstance(value, str):
            return value  # type: ignore[return-value]  # click passes what is converted already
        return tuple(part.strip() for part in value.split(",") if part.strip())


@click.command()
@click.argument("source")
@click.option("-o", "--output", metavar="DIR", help="Where the data set goes; prepared/NAME if not given.")
@click.option(
    "--map",
    "mapping",
    type=Pair(),
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Which column a field is, such as prompt=question.",
)
@click.option(
    "--fix",
    type=click.Choice(LEVELS),
    default="safe",
    show_default=True,
    help="How much is cleaned; safe: white space, Unicode, exact duplicates; more: mis-decoded text too.",
)
@click.option("--mask-personal", is_flag=True, help="Write [EMAIL] and the like in the place of personal data.")
@click.option("--region", metavar="COUNTRY", help="Whose telephone numbers are meant, such as DE.")
@click.option("--keep", multiple=True, metavar="CHECK", help="Keep rows in which this check finds a fault.")
@click.option(
    "--drop",
    multiple=True,
    metavar="CHECK",
    help="Drop rows in which this check finds something, such as near_duplicate, too_long or personal_data.",
)
@click.option("--labels", type=Words(), metavar="A,B,C", help="All labels that there may be.")
@click.option("--group", metavar="COLUMN", help="Rows with the same value in it stay on one side of the split.")
@click.option(
    "--mix",
    type=Pair(),
    multiple=True,
    metavar="FILE=SHARE",
    help="General data against forgetting, such as general.jsonl=0.15: a share of the training rows.",
)
@click.option("--base", metavar="MODEL", help="Tell lengths in the tokens of this model; its tokenizer is loaded.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Tell which rows are longer, and by how much.")
@click.option(
    "--similarity",
    type=click.FloatRange(0.1, 1),
    default=0.8,
    show_default=True,
    metavar="S",
    help="The token Jaccard index of near-duplicates.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**64 - 1), default=42, show_default=True, metavar="N", help="Of the split."
)
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes; one a CPU core, with the same result.")
@click.option(
    "--format", type=click.Choice(["parquet", "jsonl"]), default="parquet", show_default=True, help="Of the files."
)
@click.option("--license", "license_id", metavar="ID", help="The data's licence, such as cc-by-4.0, for the card.")
@click.option("--language", type=Words(), metavar="CODES", help="The data's languages, such as en,de, for the card.")
@click.option("--overwrite", is_flag=True, help="Replace a data set that this command wrote.")
@click.option("--strict", is_flag=True, help="End with exit code 1 when any row was dropped.")
@click.option("--push", "repo_id", metavar="ID", help="Push it to this data set repo of the Hub, a private one.")
def prepare(
    source: str, output: str | None, mapping: Sequence[tuple[str, str]], fix: str, mask_personal: bool,
    region: str | None, keep: Sequence[str], drop: Sequence[str], labels: Sequence[str] | None, group: str | None,
    mix: Sequence[tuple[str, str]], base: str | None, max_tokens: int | None, similarity: float, seed: int,
    workers: int | None, format: str, license_id: str | None, language: Sequence[str] | None, overwrite: bool,
    strict: bool, repo_id: str | None,
) -> int:  # fmt: skip
    """Make a data set for fine-tuning of SOURCE: a file, a folder, or a data set of the Hub (OWNER/NAME).

    Its layout is found. Rows are cleaned and checked, duplicates dropped, and split 80/10/10 so that no test row has a
    near-duplicate in the training rows. DIR then holds what datasets.load_dataset(DIR) loads, a data card, a page with
    pictures, and each dropped or changed row with its reason. Memory does not grow with the texts. The same command
    goes on after a stop, whatever stopped it.
    """
    interruption.listen()
    if max_tokens and not base:
        raise click.UsageError("--max-tokens counts the tokens of a model: name it with --base MODEL.")
    if "too_long" in drop and not max_tokens:
        raise click.UsageError("--drop too_long: say how long that is with --max-tokens N.")
    from hf_finetune.curate.curating import prepare_data
    from hf_finetune.curate.plan import Plan, find_feeds

    _check_words(keep, drop, region, language)
    _check_licence(license_id)
    if repo_id:
        _check_push(repo_id)
    feeds = find_feeds(source, [(name, _share(name, share, mix)) for name, share in mix])
    place, commit = _base(base)
    plan = Plan(
        feeds, fix, mask_personal, tuple(keep), tuple(drop), dict(mapping), tuple(labels or ()), region, group,  # type: ignore[arg-type]  # click has checked the words
        place, commit, max_tokens, similarity, seed, format, license_id, tuple(language or ()),  # type: ignore[arg-type]
    )  # fmt: skip
    folder = Path(output) if output else Path("prepared") / _stem(feeds[0].name)
    facts = prepare_data(plan, folder, workers or cores(), overwrite, click.echo)
    for line in summary(facts, folder):
        click.echo(line)
    if repo_id:
        from hf_finetune.curate.pushing import push_data

        push_data(folder, repo_id, click.echo)
    rejected = facts["rows"]["rejected"]
    if strict and (rejected or facts["notes"]):
        dropped = f"{plural(rejected, 'row')} dropped; see {folder}/rejected.jsonl"
        noted = f", and {plural(len(facts['notes']), 'note')} on files above" if facts["notes"] else ""
        click.echo(f"error: --strict: {dropped}{noted}.", err=True)
        return 1
    return 0


def summary(facts: Mapping[str, Any], folder: Path) -> list[str]:
    """What was found and made, in lines for the screen, and what to do next."""
    rows = facts["rows"]
    lines = [""]
    for source in facts["sources"]:
        read, usable = plural(source["rows_read"], "row"), source["rows_usable"]
        lines.append(f"source    {source['name']} ({'; '.join(source['forms'])}): {read}, {usable:,} usable")
        lines.append(f"          {source['reason']}")
    lines.append(f"dropped   {plural(rows['rejected'], 'row')}{_listed(facts['rejected'])}")
    lines += _examples(facts, facts["rejected"])
    lines.append(f"changed   {plural(rows['changed'], 'row')}{_listed(facts['changed'])}")
    if facts["stayed"]:
        lines.append(f"noted     in rows that stay{_listed(facts['stayed'])}")
        lines += _examples(facts, facts["stayed"])
    lines += [f"noted     {one['file']}: {one['message']} {one['advice']}" for one in facts["notes"][:CHECKS_SHOWN]]
    for one in facts["rare_labels"][:CHECKS_SHOWN]:
        lines.append(f"noted     {one['file']}, row {one['row']:,}: {one['message']} {one['advice']}")
    lines += [f"noted     {name} was found in no row" for name in _without_rows(facts)]
    lines += _about_split(facts)
    unit = "tokens" if "tokens" in facts["lengths"] else "words"
    own = facts["lengths"][unit]["splits"]["train"]
    lines.append(f"length    median {own['median']:,} {unit}, 99 % up to {own['p99']:,}, longest {own['longest']:,}")
    lines.append(f"columns   {', '.join(facts['layout']['columns'])}: read by {facts['layout']['read_by']}")
    made = "README.md, index.html, data_card.json, data/, rejected.jsonl, changed.jsonl"
    return [*lines, "", f"made      {folder}: {made}", *next_steps(facts, folder)]


def next_steps(facts: Mapping[str, Any], folder: Path) -> list[str]:
    """Commands that go on from here."""
    name = _stem(folder.name).replace("-", "_").lower()
    base = facts["options"]["base"] or "MODEL"
    lines = [f'load      datasets.load_dataset("{folder}")']
    if facts["layout"]["command"]:
        lines.append(f"train     trl {facts['layout']['command']} --dataset_name {folder} --model_name_or_path {base}")
    columns = ", ".join(facts["layout"]["columns"])
    row = f"(then give its Row the columns {columns}, and the run --data {folder})"
    return [*lines, f"recipe    hf-finetune new {name}    {row}"]


def _about_split(facts: Mapping[str, Any]) -> list[str]:
    rows, leaks = facts["rows"], facts["leakage"]
    groups = plural(facts["near_duplicate_groups"], "group")
    lines = [
        f"alike     {plural(facts['near_duplicates'], 'near-duplicate')} in {groups}, kept on one side of the split"
    ]
    told = ", ".join(f"{rows[name]:,} {name}" for name in ("train", "validation", "test") if rows[name])
    if facts["is_split"]:
        near = f"{leaks['near_in_train']:,} of {leaks['compared_with_all']:,} compared with all training rows"
        asked = f"{leaks['prompts_in_train']:,} test questions in train"
        asked = "rows share a few prompts, so answers tell them apart" if leaks["with_answers"] else asked
        lines += [f"split     {told}", f"leakage   {asked}; near-duplicates: {near}"]
    else:
        groups = plural(facts["independent_groups"], "independent group")
        lines.append(f"split     {told}: {groups} of rows are too few for three splits")
    for mix in facts.get("mixed_in", []):
        short = "" if mix["rows"] == mix["wanted"] else f", where {mix['wanted']:,} were wanted: there are no more"
        lines.append(f"mixed in  {plural(mix['rows'], 'row')} of {mix['source']}{short}")
    return lines


def _without_rows(facts: Mapping[str, Any]) -> list[str]:
    """The checks of --keep and --drop that have met nothing."""
    options = facts["options"]
    met = {*facts["examples"], *(one["check"] for one in facts["notes"])}
    asked = [(option, name) for option in ("keep", "drop") for name in options[option]]
    return [f"--{option} {name}" for option, name in asked if name not in met]


def _listed(counts: Mapping[str, int]) -> str:
    return ": " + ", ".join(f"{name} {count:,}" for name, count in counts.items()) if counts else ""


def _examples(facts: Mapping[str, Any], checks: Mapping[str, int]) -> list[str]:
    """The first rows in which each check found something."""
    lines = []
    for check in [name for name in checks if facts["examples"].get(name)][:CHECKS_SHOWN]:
        for one in facts["examples"][check][:SHOWN]:
            lines.append(f"  {check}: {one['file']}, row {one['row']:,}: {one['message']} {one['advice']}")
    return lines


def _share(name: str, written: str, all_mixes: Sequence[tuple[str, str]]) -> float:
    """The share of a mix as a number.

    Raises:
        RecipeError: when it is none, or all together leave nothing.
    """
    try:
        shares = [float(share) for _, share in all_mixes]
    except ValueError:
        raise RecipeError(f"--mix {name}={written}: is no share. Write it as 0.15.") from None
    if not all(0 < share < 1 for share in shares) or sum(shares) >= 1:
        raise RecipeError(f"--mix {name}={written}: shares lie between 0 and 1, and leave room for the data itself.")
    return float(written)


def _base(base: str | None) -> tuple[str | None, str | None]:
    """Where the base lies, and its commit."""
    if base is None:
        return None, None
    from hf_finetune.model import find_base_model
    from hf_finetune.settings import Settings

    found = find_base_model(Settings(model_name_or_path=base))
    return found.location, found.commit


def _check_licence(license_id: str | None) -> None:
    from hf_finetune.errors import nearest
    from hf_finetune.licences import LICENSES

    if license_id and license_id not in LICENSES:
        raise RecipeError(f"--license {license_id}: the Hub knows no such licence. {nearest(license_id, LICENSES)}")


def _check_push(repo_id: str) -> None:
    """Whether it may be pushed, before hours of work."""
    from hf_finetune.curate.pushing import check_push

    check_push(repo_id)


def _check_words(keep: Sequence[str], drop: Sequence[str], region: str | None, language: Sequence[str] | None) -> None:
    """Whether all that is named is there, before hours of work."""
    from hf_finetune.curate.names import check_languages, check_names, check_region

    check_names("--keep", keep)
    check_names("--drop", drop)
    if both := set(keep) & set(drop):
        raise RecipeError(f"--keep and --drop: both name {min(both)}. Leave one out.")
    check_region(region)
    check_languages(language or ())


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].split(".")[0] or "data"
