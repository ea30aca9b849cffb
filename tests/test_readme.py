"""What the README says is what there is: its commands, its help text, its figures."""

import re
from pathlib import Path

import click
import pytest

from hf_finetune.cli import commands
from hf_finetune.cli.advise import advise
from hf_finetune.cli.card import card
from hf_finetune.cli.doctor import doctor
from hf_finetune.cli.estimate import estimate
from hf_finetune.cli.launch import launch
from hf_finetune.cli.prepare import prepare
from hf_finetune.cli.push import push
from hf_finetune.cli.run import run
from hf_finetune.recipe import load_recipe
from hf_finetune.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BASH = re.findall(r"```bash\n(.*?)```", README, re.S)
LINES = [line.split("#")[0].strip() for block in BASH for line in block.splitlines() if line.strip()]


def test_ci_runs_the_readmes_test_command() -> None:
    (command,) = [line for line in LINES if "pytest" in line]
    # Without `|| exit 1`, `set -e` would not stop at a failure inside a list of commands.
    assert f"{command} || exit 1" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_every_command_of_the_readme_exists() -> None:
    called = [line.split()[1] for line in LINES if line.startswith("hf-finetune ")]
    assert called
    assert set(called) <= set(commands.commands)


def test_every_setting_in_the_readme_exists_and_parses() -> None:
    words = [word for line in LINES if "-m hf_finetune" in line for word in re.findall(r"(?<= )(\w+)=", line)]
    words += re.findall(r"`(\w+)=\w+", README)
    assert len(words) > 5
    assert set(words) - {"HF_HUB_DISABLE_TELEMETRY"} <= set(Settings.model_fields)


def test_every_option_in_the_readme_exists() -> None:
    own = {option for parameter in run.params for option in parameter.opts if option.startswith("--")}
    given = {word for line in LINES if "hf_finetune" in line for word in line.partition("-m hf_finetune")[2].split()}
    options = {word for word in given if word.startswith("--")}
    assert options
    assert options <= own


def test_every_option_of_launch_in_the_readme_exists() -> None:
    own = {option for parameter in launch.params for option in parameter.opts}
    given = [word for line in LINES if line.startswith("hf-finetune launch") for word in line.split()]
    options = {word for word in given if word.startswith("--")}
    assert options
    assert options <= own


def test_every_option_of_estimate_and_advise_in_the_readme_exists() -> None:
    for command in (estimate, advise):
        own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = [word for line in LINES if line.startswith(f"hf-finetune {command.name} ") for word in line.split()]
        options = {word for word in given if word.startswith("--")}
        assert options
        assert options <= own


@pytest.mark.parametrize(
    ("command", "program"),
    [
        (run, "accelerate launch -m hf_finetune"),
        (launch, "hf-finetune launch"),
        (doctor, "hf-finetune doctor"),
        (estimate, "hf-finetune estimate"),
        (card, "hf-finetune card"),
        (prepare, "hf-finetune prepare"),
        (push, "hf-finetune push"),
    ],
)
def test_the_help_text_in_the_readme_is_the_programs(command: click.Command, program: str) -> None:
    context = click.Context(command, info_name=program, terminal_width=100)
    shown = re.search(rf"<!-- help: {command.name} -->\n```\n(.*?)```\n<!-- /help -->", README, re.S)
    assert shown is not None
    assert shown[1] == command.get_help(context) + "\n"


def test_files_that_the_readme_links_to_are_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links
    assert all((ROOT / link).is_file() for link in links)


@pytest.mark.parametrize("recipe", ["finsent"])
def test_a_recipe_is_as_long_as_the_readme_says(recipe: str) -> None:
    lines = (ROOT / "recipes" / f"{recipe}.py").read_text(encoding="utf-8").splitlines()
    assert f"is one, {len(lines)} lines long" in README
    assert 45 <= len(lines) <= 60


def test_the_readmes_entry_point_group_is_the_one_that_is_read() -> None:
    from hf_finetune.recipe import ENTRY_POINT_GROUP

    assert f'[project.entry-points."{ENTRY_POINT_GROUP}"]' in README
    assert load_recipe("finsent").name == "finsent"
