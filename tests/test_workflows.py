"""The workflows and the action in .github/: valid, linted, held to rules of our own, and executed on this machine."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trusted_run
import yaml

import comment
import facts
import find_recipes
import publisher
from figures import Figures, Gate, Pair, Score, Unfit, checked, collect, read_all, render
from hf_finetune.demo import BASE_MODEL, rows_file
from hf_finetune.files import read_json
from hf_finetune.layers import read_yaml
from loopback_hub import LoopbackHub
from workflow_runner import ROOT, Expression, Job, Runner, Unsupported, filled, holds, shown

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS = sorted((GITHUB / "actions").glob("*/action.yml"))
SCRIPTS = sorted([*(ROOT / ".ci").glob("[!c]*"), *GITHUB.rglob("*.sh")])
UNTRUSTED = re.compile(r"\$\{\{.*?\}\}", re.S)
QUICK = "max_steps=2 max_test_rows=8 few_shot=0 measure_forgetting=false"


def workflow_files() -> list[Any]:
    return [pytest.param(path, id=path.parent.name if path.name == "action.yml" else path.name) for path in (
        *WORKFLOWS, *ACTIONS,
    )]  # fmt: skip


def tool(name: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """The finished process of a command that is installed beside this Python."""
    command = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert command is not None, f"{name} is not installed: pip install '.[dev]'"
    return subprocess.run([command, *words], capture_output=True, text=True, check=False)


def schema_faults(path: Path) -> str:
    """What GitHub's own schema has against a workflow or an action; empty where nothing."""
    schema = "vendor.github-actions" if path.name == "action.yml" else "vendor.github-workflows"
    done = tool("check-jsonschema", "--builtin-schema", schema, str(path))
    return "" if done.returncode == 0 else done.stdout + done.stderr


def lint_faults(*paths: Path) -> str:
    """What zizmor has against workflows; empty where nothing."""
    options = ["--offline", "--no-progress", "--persona", "pedantic", "--config", str(GITHUB / "zizmor.yml")]
    done = tool("zizmor", *options, *map(str, paths))
    return "" if done.returncode == 0 else done.stdout + done.stderr


def shell_faults(*paths: Path) -> str:
    """What shellcheck has against scripts; empty where nothing."""
    done = tool("shellcheck", *map(str, paths))
    return "" if done.returncode == 0 else done.stdout + done.stderr


def steps_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All steps of a workflow or an action."""
    if "runs" in document:
        return list(document["runs"]["steps"])
    return [step for job in document["jobs"].values() for step in job["steps"]]


def rule_faults(text: str) -> list[str]:
    """What a workflow or an action has against the rules of this repository."""
    document = yaml.safe_load(text)
    faults = []
    for line in text.splitlines():
        used = re.search(r"uses: (\S+)(.*)", line)
        if used and not used[1].startswith("./") and not (
            re.search(r"@[0-9a-f]{40}$", used[1]) and re.fullmatch(r" # v\d+\.\d+\.\d+", used[2])
        ):  # fmt: skip
            faults.append(f"not pinned by a commit with its version beside it: {line.strip()}")
    for step in steps_of(document):
        name = step.get("name", step.get("uses"))
        if UNTRUSTED.search(step.get("run", "")):
            faults.append(f"an expression within a script: {name}")
        if "actions/checkout@" in step.get("uses", "") and step.get("with", {}).get("persist-credentials") is not False:
            faults.append(f"a checkout that leaves its token: {name}")
        both = [step.get("env", {}).get(key) for key in ("HF_OIDC_RESOURCE", "HF_TOKEN")]
        is_either = "inputs.token == ''" in str(both[0]) or all("RELEASE_WITH_TOKEN" in str(value) for value in both)
        if all(both) and not is_either:
            faults.append(f"trusted publishing and a token in one step: {name}")
    if "jobs" not in document:
        return faults
    triggers = document[True]  # YAML reads `on` so
    if "pull_request_target" in triggers:
        faults.append("pull_request_target")
    if document.get("permissions") != {}:
        faults.append("permissions for all jobs")
    cancels = document.get("concurrency", {}).get("cancel-in-progress")
    if cancels is None:
        faults.append("no concurrency")
    if "tags" in ((triggers or {}).get("push") or {}) and cancels is not False:
        faults.append("a release that is cancelled")
    for name, job in document["jobs"].items():
        if "permissions" not in job:
            faults.append(f"{name}: no permissions of its own")
        if "timeout-minutes" not in job:
            faults.append(f"{name}: no timeout")
        if "pull_request" in triggers and "write" in job.get("permissions", {}).values():
            faults.append(f"{name}: may write for a pull request")
    return faults


@pytest.mark.parametrize("path", workflow_files())
def test_a_file_is_valid(path: Path) -> None:
    assert schema_faults(path) == ""


def test_the_files_are_linted() -> None:
    assert lint_faults(GITHUB) == ""


def test_the_scripts_are_linted() -> None:
    assert SCRIPTS
    assert shell_faults(*SCRIPTS) == ""


@pytest.mark.parametrize("path", workflow_files())
def test_a_file_keeps_our_rules(path: Path) -> None:
    assert rule_faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", workflow_files())
def test_the_scripts_in_a_file_are_linted(path: Path, tmp_path: Path) -> None:
    scripts = [step["run"] for step in steps_of(yaml.safe_load(path.read_text(encoding="utf-8"))) if "run" in step]
    assert scripts
    for number, script in enumerate(scripts):
        (tmp_path / f"{number}.sh").write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    assert shell_faults(*tmp_path.iterdir()) == ""


def test_a_fault_of_the_schema_is_seen(tmp_path: Path) -> None:
    broken = tmp_path / "test.yml"
    broken.write_text(WORKFLOWS[0].read_text(encoding="utf-8").replace("runs-on:", "run-on:", 1), encoding="utf-8")
    assert "run-on" in schema_faults(broken)
    action = tmp_path / "action.yml"
    action.write_text(ACTIONS[0].read_text(encoding="utf-8").replace("using: composite", "using: bash"))
    assert schema_faults(action)


def test_faults_for_the_linters_are_seen(tmp_path: Path) -> None:
    broken = tmp_path / ".github" / "workflows" / "recipes.yml"
    broken.parent.mkdir(parents=True)
    text = (GITHUB / "workflows" / "recipes.yml").read_text(encoding="utf-8")
    broken.write_text(text.replace('echo "$NUMBER"', "echo ${{ github.event.pull_request.title }}"), encoding="utf-8")
    assert "template-injection" in lint_faults(broken)
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/bash\nrm -rf $1/*\n", encoding="utf-8")
    assert "SC2086" in shell_faults(script)


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("test.yml", " # v6.0.2", "", "not pinned"),
        ("test.yml", "de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2", "v6", "not pinned"),
        ("test.yml", "permissions: {}", "permissions: write-all", "permissions for all jobs"),
        ("test.yml", "    timeout-minutes: 20\n", "", "lint: no timeout"),
        ("test.yml", "    permissions:\n      contents: read\n", "", "lint: no permissions"),
        ("test.yml", "persist-credentials: false", "fetch-depth: 0", "leaves its token"),
        ("recipes.yml", "contents: read", "pull-requests: write", "may write for a pull request"),
        ("recipes.yml", "  pull_request:\n", "  pull_request_target:\n", "pull_request_target"),
        ("recipes.yml", 'echo "$NUMBER"', "echo ${{ github.event.pull_request.title }}", "within a script"),
        ("release.yml", "cancel-in-progress: false", "cancel-in-progress: true", "a release that is cancelled"),
        ("release.yml", "  cancel-in-progress: false\n", "", "no concurrency"),
        ("action.yml", 'HF_TOKEN: ""', "HF_TOKEN: ${{ inputs.token }}", "trusted publishing and a token"),
        ("action.yml", 'push.sh"', 'push.sh" "${{ inputs.push-to }}"', "within a script"),
    ],
)
def test_a_breach_of_our_rules_is_seen(file: str, old: str, new: str, fault: str) -> None:
    (path,) = GITHUB.rglob(file)
    text = path.read_text(encoding="utf-8")
    assert old in text
    assert any(fault in found for found in rule_faults(text.replace(old, new, 1)))


def test_only_these_jobs_may_write() -> None:
    found = {
        f"{path.stem}.{name}": {key for key, value in job["permissions"].items() if value == "write"}
        for path in WORKFLOWS
        for name, job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].items()
    }
    assert {name: rights for name, rights in found.items() if rights} == {
        "comment.comment": {"pull-requests"}, "release.check": {"id-token"}, "release.publish": {"id-token"},
    }  # fmt: skip


def test_the_pythons_that_are_tested_are_those_of_the_package() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    said = [line.rsplit(" ", 1)[1] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)]
    jobs = yaml.safe_load((GITHUB / "workflows" / "test.yml").read_text(encoding="utf-8"))["jobs"]
    assert project["requires-python"] == f">={said[0]}"
    assert [jobs[name]["strategy"]["matrix"]["python"] for name in ("tests", "wheel")] == [said, said]


def test_each_recipe_has_gates_for_the_demonstration_model() -> None:
    recipes = find_recipes.names(ROOT / "recipes")
    assert recipes
    for recipe in recipes:
        assert read_yaml(GITHUB / "gates" / f"{recipe}.yml").values["gates"]


def test_every_branch_that_an_action_is_pinned_to_says_one_version() -> None:
    texts = "".join(path.read_text(encoding="utf-8") for path in (*WORKFLOWS, *ACTIONS))
    found = set(re.findall(r"uses: (actions/[\w-]+)\S*@(\w{40}) # (\S+)", texts))
    assert len(found) == len({name for name, _, _ in found}) == 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'a' == 'A'", True),
        ("inputs.none || vars.model || 'x'", "acme/m"),
        ("inputs.demo && '--demo' || ''", "--demo"),
        ("!(inputs.none || vars.none)", True),
        ("format('--tag {0}', vars.model)", "--tag acme/m"),
        ("fromJSON('[1, 2]')", [1, 2]),
        ("vars.model != 'acme/m' && 'no' || 'it''s'", "it's"),
        ("inputs.a-b.c", None),
    ],
)
def test_expressions_are_worked_out(text: str, value: Any) -> None:
    contexts = {"inputs": {"demo": True}, "vars": {"model": "acme/m"}}
    assert Expression(text, contexts).value() == value
    assert filled(f"<${{{{ {text} }}}}>", contexts) == f"<{shown(value)}>"


def test_an_expression_that_is_not_understood_is_refused() -> None:
    for text in ("hashFiles('x')", "nothing.here", "'a' ? 'b'", "('a'"):
        with pytest.raises(Unsupported):
            Expression(text, {}).value()


def test_a_step_is_left_out_after_a_failure_unless_it_asks_for_it() -> None:
    contexts = {"status": {"success": False, "failure": True}, "github": {"event_name": "push"}}
    assert [holds(text, contexts) for text in (None, "github.event_name == 'push'", "${{ !cancelled() }}")] == [
        False, False, True,
    ]  # fmt: skip


FIGURES = Figures(
    "finsent", "main", "c" * 40, "macro_f1", Score(0.70, 0.6, 0.8, 79), Score(0.65, 0.5, 0.7, 79),
    Pair(79, 7, 1, 0.07), [Gate("macro_f1", "at least", 0.68, 0.65, False), Gate("gain", "at least", 0.0, 0.3, True)],
)  # fmt: skip


def as_json(figures: Figures) -> Any:
    return json.loads(json.dumps(asdict(figures)))


def test_figures_are_told_with_what_they_are_compared_with() -> None:
    text = render([FIGURES, Figures("text2sql", "card"), replace(FIGURES, recipe="memo", against="nothing", gates=[])])
    assert (
        "| `finsent` | `macro_f1` | 0.700 (0.600 to 0.800) | 0.650 (0.500 to 0.700) | -0.050 | 1 of 2 missed |" in text
    )
    assert "before is the main branch at cccccccccccc; of the same 79 test rows 1 are right now" in text
    assert "no measurable difference; gate missed: macro_f1 is 0.65, not at least 0.68." in text
    assert "| `text2sql` |  |  | not finished |  |  |" in text
    assert "before is the reference card in model_cards/text2sql" in text
    assert "there is nothing to compare with" in text


def test_figures_come_back_from_their_file() -> None:
    assert checked(as_json(FIGURES)) == FIGURES
    assert checked(as_json(Figures("text2sql", "card"))) == Figures("text2sql", "card")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recipe", "a|b"), ("recipe", "@someone/x"), ("recipe", "x\n![](http://x)"), ("recipe", None),
        ("metric", "<img>"), ("against", "[main](http://x)"), ("commit", "see http://x"), ("before", "good"),
        ("after", {"value": "0.7", "low": 0, "high": 1, "rows": 9}),
        ("after", {"value": float("nan"), "low": 0, "high": 1, "rows": 9}),
        ("after", {"value": 0.7, "low": 0, "high": 1, "rows": 9, "more": 1}),
        ("pair", {"rows": 1, "only_before": True, "only_after": 0, "p_value": 1}),
        ("gates", [{"name": "x", "bound": "at [most](http://x)", "required": 1, "found": 1, "held": True}]),
        ("gates", [asdict(FIGURES.gates[0])] * 51), ("gates", None),
    ],
)  # fmt: skip
def test_figures_of_anybody_else_are_refused(field: str, value: Any) -> None:
    with pytest.raises(Unfit):
        checked(as_json(FIGURES) | {field: value})


def test_files_of_figures_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(as_json(FIGURES)))
    assert read_all(tmp_path) == [FIGURES]
    (tmp_path / "b.json").write_text(json.dumps(as_json(FIGURES)))
    with pytest.raises(Unfit, match="two files"):
        read_all(tmp_path)
    (tmp_path / "b.json").write_text(" " * 70_000)
    with pytest.raises(Unfit, match="too large"):
        read_all(tmp_path)
    (tmp_path / "b.json").unlink()
    (tmp_path / "b.json").symlink_to("/etc/passwd")
    with pytest.raises(Unfit, match="link"):
        read_all(tmp_path)


def test_a_reference_card_is_what_remains_to_compare_with(tmp_path: Path) -> None:
    card = ROOT / "model_cards" / "finsent"
    found = collect("finsent", card, tmp_path, card)
    assert (found.against, found.pair) == ("card", None)
    assert found.before == found.after
    assert found.after is not None
    assert found.after.value == read_json(card / "report.json")["scores"]["tuned"]["macro_f1"]
    assert collect("finsent", tmp_path, tmp_path, card).after is None
    assert collect("finsent", card, tmp_path, tmp_path).against == "nothing"
    assert checked(as_json(found)) == found


def test_a_value_begins_no_other_output() -> None:
    assert facts.one_line("a\nrun=/etc") == "a run=/etc"


def test_what_cannot_be_published_is_told_before_the_training() -> None:
    assert "RELEASE_MODEL" in publisher.main({})
    assert "is no name of a repo" in publisher.main({"MODEL": "finsent"})
    assert "no secret HF_TOKEN" in publisher.main({"MODEL": "acme/finsent", "WITH_TOKEN": "true"})


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ({}, ""),
        ({"event": "pull_request"}, "is of a pull request"),
        ({"event": "pull_request_target"}, "is of a pull request"),
        ({"head_repository": {"full_name": "fork/finetune"}}, "or of fork/finetune"),
        ({"head_repository": None}, "or of None"),
    ],
)
def test_only_a_run_of_this_repositorys_own_branches_is_published(
    monkeypatch: pytest.MonkeyPatch, run: dict[str, Any], told: str
) -> None:
    with github_api() as api:
        api.workflow_run |= run
        for name, value in {"API_URL": f"http://127.0.0.1:{api.server_port}", "REPOSITORY": "acme/finetune"}.items():
            monkeypatch.setenv(f"GITHUB_{name}", value)
        monkeypatch.setenv("GITHUB_TOKEN", "x")
        assert told in trusted_run.main("1")
        assert bool(trusted_run.main("1")) == bool(told)
        assert "is no id" in trusted_run.main("1/../2")


class Api(ThreadingHTTPServer):
    """What GitHub's API says of one pull request, and the comments that are made on it."""

    def __init__(self) -> None:
        """Begin with an open pull request of a fork, and 100 comments of others, one of which looks like ours."""
        super().__init__(("127.0.0.1", 0), ApiHandler)
        self.pull_request: dict[str, Any] = {
            "state": "open", "head": {"sha": "b" * 40, "repo": {"full_name": "fork/finetune"}},
        }  # fmt: skip
        others = [{"id": i, "user": {"login": "someone"}, "body": f"{comment.MARK} {i}"} for i in range(100)]
        self.comments: list[dict[str, Any]] = others
        self.asked: list[str] = []
        self.workflow_run: dict[str, Any] = {"event": "push", "head_repository": {"full_name": "acme/finetune"}}


class ApiHandler(BaseHTTPRequestHandler):
    """One request to it."""

    server: Api

    def do_GET(self) -> None:
        """Answer it."""
        self.server.asked.append(f"{self.command} {self.path} {self.headers['Authorization']}")
        size = int(self.headers.get("Content-Length") or 0)
        given = json.loads(self.rfile.read(size) or "{}")
        found: Any = {}
        if self.path.endswith("/pulls/7"):
            found = self.server.pull_request
        elif self.path.endswith("/actions/runs/1"):
            found = self.server.workflow_run
        elif self.command == "POST":
            own = {"id": len(self.server.comments), "user": {"login": comment.AUTHOR}, **given}
            self.server.comments.append(own)
        elif self.command == "PATCH":
            self.server.comments[int(self.path.rsplit("/", 1)[1])].update(given)
        else:
            page = int(self.path.rsplit("=", 1)[1])
            found = self.server.comments[100 * (page - 1) : 100 * page]
        data = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_PATCH = do_GET

    def log_message(self, format: str, *words: Any) -> None:
        """Keep the tests' output clean."""


@contextmanager
def github_api() -> Iterator[Api]:
    """The API on a free port until the block ends."""
    with Api() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def comment_run(folder: Path, api: Api) -> Job:
    """The job of comment.yml, on the artifact `comment` below a folder."""
    event = {
        "workflow_run": {
            "event": "pull_request", "conclusion": "failure", "id": 5, "head_sha": "b" * 40, "head_branch": "x",
            "head_repository": {"full_name": "fork/finetune"},
        }
    }  # fmt: skip
    github = {"api_url": f"http://127.0.0.1:{api.server_port}"}
    (job,) = Runner(folder, "workflow_run", event, github).run("comment.yml")["comment"]
    return job


def leave_figures(folder: Path, number: str = "7", figures: Any = None) -> Path:
    """A folder as recipes.yml leaves it as the artifact `comment`."""
    artifact = folder / "artifacts" / "comment"
    (artifact / "figures-finsent").mkdir(parents=True, exist_ok=True)
    (artifact / "pull_request").write_text(f"{number}\n")
    (artifact / "figures-finsent" / "finsent.json").write_text(json.dumps(figures or as_json(FIGURES)))
    return folder


def test_a_comment_is_made_once_and_then_changed(tmp_path: Path) -> None:
    with github_api() as api:
        first = comment_run(leave_figures(tmp_path), api)
        assert (first.result, len(api.comments)) == ("success", 101), first.said
        assert api.comments[100]["body"].startswith(comment.MARK)
        assert "| `finsent` |" in api.comments[100]["body"]
        better = replace(FIGURES, after=Score(0.9, 0.8, 1.0, 79))
        second = comment_run(leave_figures(tmp_path, figures=as_json(better)), api)
        assert (second.result, len(api.comments)) == ("success", 101), second.said
        assert "0.900 (0.800 to 1.000)" in api.comments[100]["body"]
        assert all(request.endswith("Bearer ghs_own") for request in api.asked)


@pytest.mark.parametrize("change", ["closed", "other commit", "other repository", "repository gone"])
def test_no_comment_on_a_pull_request_that_the_figures_are_not_of(tmp_path: Path, change: str) -> None:
    with github_api() as api:
        head = api.pull_request["head"]
        if change == "closed":
            api.pull_request["state"] = "closed"
        elif change == "other commit":
            head["sha"] = "d" * 40
        else:
            head["repo"] = {"full_name": "other/finetune"} if change == "other repository" else None
        job = comment_run(leave_figures(tmp_path), api)
        assert "No comment" in job.step("Write the comment").said
        assert len(api.comments) == 100


@pytest.mark.parametrize("number", ["7/../../x", "", "7" * 30, "seven", "٧"])
def test_no_comment_where_the_number_is_none(tmp_path: Path, number: str) -> None:
    with github_api() as api:
        job = comment_run(leave_figures(tmp_path, number), api)
        assert (job.result, api.asked) == ("failure", []), job.said
        assert "::error::" in job.step("Write the comment").said


def test_no_comment_where_the_figures_are_a_text(tmp_path: Path) -> None:
    with github_api() as api:
        job = comment_run(leave_figures(tmp_path, figures=as_json(FIGURES) | {"metric": "[win](http://x)"}), api)
        assert (job.result, api.asked) == ("failure", []), job.said


@pytest.mark.slow
def test_recipes_are_run_gated_and_compared(tmp_path: Path) -> None:
    runner = Runner(tmp_path, "push", variables={"RECIPE_SETTINGS": f"{QUICK} gates=perplexity=99999"})
    runner.chosen = {"recipe": "finsent"}
    main = runner.run("recipes.yml")
    assert all(job.result == "success" for jobs in main.values() for job in jobs), main["recipe"][0].said
    assert json.loads(main["find"][0].outputs["recipes"]) == find_recipes.names(ROOT / "recipes")
    assert "before is the reference card in model_cards/finsent" in main["comparison"][0].summary
    assert runner.restored == []

    # A pull request that misses a gate: the run is red, its figures are compared and left for the comment all the same.
    runner.event_name, runner.event = "pull_request", {"pull_request": {"number": 7, "base": {"sha": "e" * 40}}}
    runner.variables["RECIPE_SETTINGS"] = f"{QUICK} learning_rate=1e-2 gates=perplexity=1.01"
    pulled = runner.run("recipes.yml")
    (finsent,) = pulled["recipe"]
    assert finsent.result == "failure", finsent.said
    assert "gates missed: perplexity is" in finsent.step("Train and evaluate").said
    assert finsent.step("Put main's figures together").outcome == "skipped"
    summary = pulled["comparison"][0].summary
    assert pulled["comparison"][0].result == "success"
    assert f"before is the main branch at {'a' * 12}; of the same 8 test rows" in summary
    assert summary.count("gate missed: perplexity is") == 1
    assert not list((tmp_path / "artifacts" / "run-finsent").rglob("checkpoint-*"))

    # And so does the comment, from what these jobs have left.
    with github_api() as api:
        job = comment_run(tmp_path, api)
        assert job.result == "success", job.said
        assert api.comments[100]["body"] == f"{comment.MARK}\n{summary}\nOf commit {'b' * 40}.\n"


@pytest.mark.slow
def test_the_tests_lint_and_wheel_are_run(tmp_path: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    environment = {
        "HF_FINETUNE_TRANSFORMERS_4": sys.executable,  # which no test asks that runs here
        "PYTEST_ADDOPTS": "tests/test_errors.py",  # pytest's own way to run no more than this
        "MYPY_CACHE_DIR": str(tmp_path / "mypy"),
    }
    runner = Runner(tmp_path / "runner", environment=environment, chosen={"python": version})
    done = runner.run("test.yml")
    jobs = [job for name in ("lint", "tests") for job in done[name]]
    assert [job.result for job in jobs] == ["success", "success"], "".join(job.said for job in jobs)
    assert "Success: no issues found" in done["lint"][0].step("Lint and types").said
    assert " passed" in done["tests"][0].step("The README's test command, and the linters").said
    (wheel,) = done["wheel"]
    said = wheel.step("Build the wheel, and call what it installs").said
    assert "finsent" in said, said
    assert "Usage: hf-finetune" in said
    assert sorted(path.suffix for path in (wheel.workspace / "dist").iterdir()) == [".gz", ".whl"]


def other_repository(folder: Path, settings: str) -> Path:
    """Somebody else's repository, with a recipe and the README's six lines as the workflow own.yml, other settings."""
    (six,) = re.findall(r"```yaml\n(permissions:.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    job = yaml.safe_load(six)
    assert len(six.splitlines()) == 6
    job["steps"][-1]["with"] |= {"settings": settings}
    found = " ".join(f"${{{{ steps.model.outputs.{name} }}}}" for name in ("run", "metric", "value"))
    job["steps"].append({"name": "After", "run": 'echo "$FOUND"', "env": {"FOUND": found}})
    (folder / ".github" / "workflows").mkdir(parents=True)
    workflow = {"on": "push", "jobs": {"own": {"runs-on": "ubuntu-latest", **job}}}
    (folder / ".github" / "workflows" / "own.yml").write_text(yaml.safe_dump(workflow), encoding="utf-8")
    assert schema_faults(folder / ".github" / "workflows" / "own.yml") == ""
    (folder / "recipes").mkdir()
    shutil.copy(ROOT / "recipes" / "finsent.py", folder / "recipes" / "my_recipe.py")
    shutil.copy(rows_file("finsent"), folder / "rows.jsonl")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


MODEL = "acme/finsent"
ON_A_HUB = f"model_name_or_path=acme/base learning_rate=2e-3 lora_dropout=0 {QUICK}"
"""The demonstration model as one on the Hub: a base that is a folder cannot be published."""
OIDC = ("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN")


def publishing(hub: LoopbackHub, folder: Path, **variables: str) -> Runner:
    """A runner whose jobs reach the loopback Hub, for a tag v1; there is a secret HF_TOKEN."""
    hub.add_repo(MODEL, {"README.md": b"empty"})
    hub.add_repo("acme/base", BASE_MODEL)
    hub.tokens["hf_ann"], hub.organisations["acme"] = "ann", {"ann": "write"}
    github = {"ref": "refs/tags/v1", "ref_name": "v1", "ref_type": "tag"}
    runner = Runner(folder / "runner", github=github, secrets={"HF_TOKEN": "hf_ann"})
    runner.variables = {"RELEASE_MODEL": MODEL, "RELEASE_RECIPE": "recipes/finsent.py", **variables}
    rows = "--data hf_finetune/demo/finsent.jsonl"
    runner.variables["RELEASE_SETTINGS"] = f"{rows} {ON_A_HUB} gates=perplexity=99999"
    runner.environment = {**hub.environment(folder / "hub"), "HF_HUB_OFFLINE": "0"}
    runner.identity = {name: hub.oidc_environment(MODEL, "acme/finetune")[name] for name in OIDC}
    return runner


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """A loopback Hub where acme/finsent trusts the workflows of acme/finetune."""
    with LoopbackHub() as started:
        started.publishers = {MODEL: "acme/finetune"}
        yield started


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("no publisher", "as a trusted publisher"),
        ("no repository", "as a trusted publisher"),
        ("no secret", "no secret HF_TOKEN"),
        ("revoked secret", "does not accept the token"),
    ],
)
def test_nothing_is_trained_where_nothing_can_be_published(
    hub: LoopbackHub, tmp_path: Path, change: str, told: str
) -> None:
    runner = publishing(hub, tmp_path)
    if change == "no publisher":
        hub.publishers = {MODEL: "eve/finetune"}
    elif change == "no repository":
        hub.repos.clear()
        hub.publishers.clear()
    else:
        runner.variables["RELEASE_WITH_TOKEN"] = "true"
        runner.secrets = {"HF_TOKEN": "hf_revoked"} if change == "revoked secret" else {}
    done = runner.run("release.yml")
    (check,) = done["check"]
    assert check.result == "failure"
    assert "::error::" in check.step("Ask the Hub").said
    assert told in check.step("Ask the Hub").said
    assert done["train"] == done["publish"] == []


@pytest.mark.slow
def test_a_run_that_fails_is_not_published(hub: LoopbackHub, tmp_path: Path) -> None:
    runner = publishing(hub, tmp_path)
    runner.variables["RELEASE_SETTINGS"] += " lora_rr=8"
    done = runner.run("release.yml")
    assert [job.result for job in done["check"]] == ["success"], done["check"][0].said
    assert [job.result for job in done["train"]] == ["failure"]
    assert "Did you mean 'lora_r'?" in done["train"][0].step("Train and evaluate").said
    assert done["publish"] == []
    assert len(hub.repos["model", MODEL].history) == 1
    assert hub.requests.count("POST /oauth/token") == 1


@pytest.mark.slow
def test_a_tag_trains_and_publishes_without_a_secret(hub: LoopbackHub, tmp_path: Path) -> None:
    runner = publishing(hub, tmp_path)
    done = runner.run("release.yml")
    said = "".join(job.said for jobs in done.values() for job in jobs)
    assert [job.result for jobs in done.values() for job in jobs] == ["success"] * 3, said
    assert hub.read(MODEL, "adapter_model.safetensors")
    assert "v1" in hub.repos["model", MODEL].tags
    assert hub.requests.count("POST /oauth/token") >= 2  # before the training, and to publish
    assert hub.repos["model", MODEL].history[-1].author == "acme"
    assert done["publish"][0].step("Publish with a token").outcome == "skipped"

    # A finished run is taken, not trained again: first that artifact, then a folder, and that with a token.
    before = len(hub.repos["model", MODEL].history)
    runner.variables |= {"RELEASE_RUN_ID": "1", "RELEASE_OPTIONS": "--tag v2"}
    with github_api() as api:
        runner.github = {"api_url": f"http://127.0.0.1:{api.server_port}"}
        taken = runner.run("release.yml")
    runner.github = {}
    assert taken["train"] == []
    assert taken["publish"][0].result == "success", taken["publish"][0].said
    assert "v2" in hub.repos["model", MODEL].tags
    exchanges = hub.requests.count("POST /oauth/token")
    folder = tmp_path / "runner" / "artifacts" / "run"
    runner.variables |= {"RELEASE_RUN_PATH": str(folder), "RELEASE_WITH_TOKEN": "true", "RELEASE_OPTIONS": "--tag v3"}
    with_token = runner.run("release.yml")
    assert with_token["publish"][0].result == "success", with_token["publish"][0].said
    assert "v3" in hub.repos["model", MODEL].tags
    assert hub.requests.count("POST /oauth/token") == exchanges
    assert len(hub.repos["model", MODEL].history) == before  # the same files are no second commit


@pytest.mark.slow
def test_six_lines_publish(hub: LoopbackHub, tmp_path: Path) -> None:
    runner = publishing(hub, tmp_path)
    hub.publishers = {"acme/my-model": "acme/finetune"}
    hub.add_repo("acme/my-model", {"README.md": b"empty"})
    settings = f"--data rows.jsonl {ON_A_HUB}\n  gates=perplexity=99999"
    runner.source = other_repository(tmp_path / "other", settings)
    (job,) = runner.run("own.yml")["own"]
    assert job.result == "success", job.said
    value = read_json(job.workspace / "runs" / "action" / "report.json")["scores"]["tuned"]["macro_f1"]
    assert job.step("After").said == f"runs/action macro_f1 {value}\n"
    assert "perplexity" in job.summary
    assert hub.read("acme/my-model", "adapter_model.safetensors")
