"""Runs the workflows of .github/ on this machine: their own `run` steps with bash, in order, each job in a fresh copy.

GitHub's services have stand-ins: a folder for caches, one for artifacts, a copy for a checkout. So has the runner's
Python, whose new environments have this one's libraries, but neither hf_finetune nor the tools that have a command.
What a step runs is never replaced.
"""

import itertools
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
PUBLISHED = "OWNER/hf-finetune/"
"""What other repositories call this one, in the README."""
INSTALLED_ANEW = ("hf_finetune", "__editable__", "_pytest", "pytest", "ruff", "mypy")
"""Beginnings of what new environments do not have: packages whose commands the steps call."""
STATUS = re.compile(r"\b(success|failure|cancelled|always)\(")
TOKEN = re.compile(r"\s*(?:('(?:[^']|'')*')|(-?\d+(?:\.\d+)?)|([A-Za-z_][\w-]*)|(==|!=|&&|\|\||[!().,\[\]]))")


class Unsupported(Exception):
    """A workflow uses what this runner does not know."""


class Expression:
    """The part of GitHub's expressions that the workflows here use."""

    def __init__(self, text: str, contexts: Mapping[str, Any]) -> None:
        """Read an expression, without its braces, that is about some contexts."""
        self.contexts, self.tokens, end = contexts, [], 0
        while text[end:].strip():
            match = TOKEN.match(text, end)
            if match is None:
                raise Unsupported(text)
            self.tokens.append(match[0].strip())
            end = match.end()

    def value(self) -> Any:
        """What it comes to."""
        found = self.either()
        if self.tokens:
            raise Unsupported(" ".join(self.tokens))
        return found

    def take(self, *expected: str) -> str:
        """The next token, if it is one of these; an empty text otherwise."""
        return self.tokens.pop(0) if self.tokens and self.tokens[0] in expected else ""

    def either(self) -> Any:
        """`a || b`: the first that is true."""
        found = self.both()
        while self.take("||"):
            other = self.both()
            found = found if truth(found) else other
        return found

    def both(self) -> Any:
        """`a && b`: the first that is false."""
        found = self.equal()
        while self.take("&&"):
            other = self.equal()
            found = other if truth(found) else found
        return found

    def equal(self) -> Any:
        """`a == b`; nothing is an empty text."""
        found = self.single()
        while sign := self.take("==", "!="):
            other = self.single()
            found = (plain(found) == plain(other)) is (sign == "==")
        return found

    def single(self) -> Any:
        """A text, a number, a name with its fields, a call, or what stands in brackets."""
        if self.take("!"):
            return not truth(self.single())
        if self.take("("):
            found = self.either()
            self.expect(")")
            return found
        token = self.tokens.pop(0)
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if re.fullmatch(r"-?\d+(\.\d+)?", token):
            return float(token)
        if self.take("("):
            return self.call(token)
        if token in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[token]
        if token not in self.contexts:
            raise Unsupported(token)
        found = self.contexts[token]
        while self.take("."):
            found = (found or {}).get(self.tokens.pop(0))
        return found

    def call(self, name: str) -> Any:
        """A call of one of GitHub's functions."""
        words = []
        while not self.take(")"):
            words.append(self.either())
            self.take(",")
        functions: dict[str, Callable[..., Any]] = {
            "format": lambda text, *values: re.sub(r"\{(\d)\}", lambda match: shown(values[int(match[1])]), text),
            "fromJSON": json.loads,
            **{status: lambda status=status: self.contexts["status"][status] for status in ("success", "failure")},
            "cancelled": lambda: False,
            "always": lambda: True,
        }
        if name not in functions:
            raise Unsupported(name)
        return functions[name](*words)

    def expect(self, token: str) -> None:
        """Pass over a token that must be next."""
        if not self.take(token):
            raise Unsupported(f"{token} is missing")


def truth(value: Any) -> bool:
    """Whether GitHub takes a value as true."""
    return bool(value)


def plain(value: Any) -> Any:
    """A value to compare; texts are compared without regard to case."""
    return value.lower() if isinstance(value, str) else "" if value is None else value


def shown(value: Any) -> str:
    """A value within a text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def filled(text: Any, contexts: Mapping[str, Any]) -> Any:
    """A value of a workflow with its expressions worked out; one that is all of a text keeps its type."""
    if not isinstance(text, str):
        return text
    if whole := re.fullmatch(r"\s*\$\{\{((?:(?!\}\}).)*)\}\}\s*", text, re.S):
        return Expression(whole[1], contexts).value()
    return re.sub(r"\$\{\{(.*?)\}\}", lambda match: shown(Expression(match[1], contexts).value()), text, flags=re.S)


def holds(condition: Any, contexts: Mapping[str, Any]) -> bool:
    """Whether a step or a job with this `if` is to be run."""
    text = str(condition if condition is not None else "success()").strip()
    text = text[3:-2] if text.startswith("${{") and text.endswith("}}") else text
    text = text if STATUS.search(text) else f"success() && ({text})"
    return truth(Expression(text, contexts).value())


@dataclass
class Step:
    """A step that has been run, or was left out."""

    name: str
    outcome: str
    """`success`, `failure` or `skipped`."""
    said: str = ""


@dataclass
class Job:
    """A job that has been run, with one choice of its matrix."""

    name: str
    workspace: Path
    steps: list[Step] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    result: str = "success"

    def step(self, name: str) -> Step:
        """The step of a name."""
        (found,) = [step for step in self.steps if step.name == name]
        return found

    @property
    def said(self) -> str:
        """What all steps have said, each below its name."""
        return "\n".join(f"--- {step.name}: {step.outcome}\n{step.said}" for step in self.steps)


@dataclass
class Runner:
    """A machine that runs workflows; what they leave in caches and artifacts stays for the next one."""

    folder: Path
    event_name: str = "push"
    event: dict[str, Any] = field(default_factory=dict)
    github: dict[str, Any] = field(default_factory=dict)
    """More of the context `github`."""
    inputs: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    """What every step has in its environment besides what a runner gives it."""
    identity: dict[str, str] = field(default_factory=dict)
    """What a step has besides in a job that may ask GitHub who it is."""
    source: Path = ROOT
    """What a checkout gives."""
    chosen: dict[str, Any] = field(default_factory=dict)
    """The only choice that is run of a matrix, by the matrix's names; all where it names none."""
    restored: list[str] = field(default_factory=list)
    """The keys of the caches that were found."""

    def run(self, workflow: str) -> dict[str, list[Job]]:
        """The jobs of a workflow by name, one for each choice of their matrix."""
        document = yaml.safe_load((self.source / ".github" / "workflows" / workflow).read_text(encoding="utf-8"))
        done: dict[str, list[Job]] = {}
        waiting = dict(document["jobs"])
        while waiting:
            name = next(name for name in waiting if not set(waiting) & set(needs_of(waiting[name])))
            done[name] = list(self.jobs(name, waiting.pop(name), done))
        return done

    def jobs(self, name: str, job: dict[str, Any], done: Mapping[str, list[Job]]) -> Iterator[Job]:
        """A job, once for each choice of its matrix; none where its condition does not hold."""
        needs = {other: {"result": result(done[other]), "outputs": outputs(done[other])} for other in needs_of(job)}
        contexts = {**self.contexts(), "needs": needs}
        good = all(need["result"] == "success" for need in needs.values())
        if not holds(job.get("if"), {**contexts, "status": {"success": good, "failure": not good}}):
            return
        matrix = {key: filled(value, contexts) for key, value in job.get("strategy", {}).get("matrix", {}).items()}
        for number, values in enumerate(itertools.product(*matrix.values())):
            choice = dict(zip(matrix, values, strict=True))
            if all(self.chosen.get(key, value) == value for key, value in choice.items()):
                yield self.job(name, job, {**contexts, "matrix": choice}, f"{name}-{number}")

    def job(self, name: str, job: dict[str, Any], contexts: dict[str, Any], folder: str) -> Job:
        """One job on a fresh machine."""
        home = self.folder / f"{len(list(self.folder.glob('*-job')))}-{folder}-job"
        for place in ("workspace", "temp", "home"):
            (home / place).mkdir(parents=True)
        (home / "event.json").write_text(json.dumps(self.event), encoding="utf-8")
        done = Job(name, home / "workspace")
        contexts = {**contexts, "runner": {"os": "Linux", "arch": "X64", "temp": str(home / "temp")}}
        contexts["github"] = {**contexts["github"], "job": name}
        contexts["env"] = {key: shown(filled(value, contexts)) for key, value in job.get("env", {}).items()}
        contexts["steps"] = {}
        may_ask = job.get("permissions", {}).get("id-token") == "write"
        contexts["identity"] = self.identity if may_ask else {}
        self.steps(job["steps"], contexts, done, home)
        done.outputs = {key: shown(filled(value, contexts)) for key, value in job.get("outputs", {}).items()}
        return done

    def steps(self, steps: Sequence[dict[str, Any]], contexts: dict[str, Any], done: Job, home: Path) -> bool:
        """Run steps in order, those of an action too; whether all went well."""
        well = True
        for number, step in enumerate(steps):
            name = step.get("name") or step.get("uses", "").partition("@")[0] or f"step {number}"
            contexts["status"] = {"success": well, "failure": not well}
            if not holds(step.get("if"), contexts):
                done.steps.append(Step(name, "skipped"))
                continue
            code, said, found = self.uses(step, contexts, done, home) if "uses" in step else (
                self.shell(step, contexts, done, home)
            )  # fmt: skip
            if "id" in step:
                contexts["steps"][step["id"]] = {"outputs": found}
            done.steps.append(Step(name, "failure" if code else "success", said))
            if code:
                well, done.result = False, "failure"
        return well

    def shell(
        self, step: dict[str, Any], contexts: dict[str, Any], done: Job, home: Path
    ) -> tuple[int, str, dict[str, str]]:
        """A `run` step: its exit code, what it said, and its outputs."""
        files = {name: home / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV")}
        for file in files.values():
            file.write_text("")
        script = home / "step.sh"
        script.write_text(filled(step["run"], contexts), encoding="utf-8")
        strict = ["--noprofile", "--norc", "-e", "-o", "pipefail"] if step.get("shell") == "bash" else ["-e"]
        own = {key: shown(filled(value, contexts)) for key, value in step.get("env", {}).items()}
        given = {name: str(file) for name, file in files.items()}
        github = contexts["github"]
        given |= {f"GITHUB_{name.upper()}": shown(value) for name, value in github.items() if isinstance(value, str)}
        given |= {"RUNNER_TEMP": str(home / "temp"), "GITHUB_EVENT_PATH": str(home / "event.json")}
        given |= {"GITHUB_WORKSPACE": str(done.workspace), "GITHUB_ACTION_PATH": shown(contexts.get("action_path"))}
        kept = {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_", "LANG", "LC_"))}
        machine = {**kept, **pip_config(), "HOME": str(home / "home"), "CI": "true", "GITHUB_ACTIONS": "true"}
        machine |= {"PATH": f"{self.python()}:/usr/local/bin:/usr/bin:/bin"}
        ended = subprocess.run(
            ["bash", *strict, str(script)],
            cwd=done.workspace,
            env=machine | self.environment | contexts["identity"] | given | contexts["env"] | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=3000,
            check=False,
        )  # fmt: skip
        done.summary += files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8")
        contexts["env"] |= pairs(files["GITHUB_ENV"])
        return ended.returncode, ended.stdout, pairs(files["GITHUB_OUTPUT"])

    def uses(
        self, step: dict[str, Any], contexts: dict[str, Any], done: Job, home: Path
    ) -> tuple[int, str, dict[str, str]]:
        """A `uses` step: an action of this repository, or the stand-in of one of GitHub's."""
        given = {key: shown(filled(value, contexts)) for key, value in step.get("with", {}).items()}
        name = step["uses"].partition("@")[0]
        if name.startswith("./"):
            return self.action(done.workspace / name, given, contexts, done, home)
        if name.startswith(PUBLISHED):
            copy_source(ROOT, home / "actions")  # where a runner puts the repository that an action is in
            return self.action(home / "actions" / name.removeprefix(PUBLISHED), given, contexts, done, home)
        known: dict[str, Callable[[], int]] = {
            "actions/checkout": lambda: copy_source(self.source, done.workspace),
            "actions/setup-python": lambda: 0,
            "actions/cache": lambda: self.restore(given, done),
            "actions/cache/restore": lambda: self.restore(given, done),
            "actions/cache/save": lambda: self.save(given, done),
            "actions/upload-artifact": lambda: self.upload(given, done),
            "actions/download-artifact": lambda: self.download(given, done),
        }
        if name not in known:
            raise Unsupported(name)
        return known[name](), "", {}

    def action(
        self, folder: Path, given: Mapping[str, str], contexts: dict[str, Any], done: Job, home: Path
    ) -> tuple[int, str, dict[str, str]]:
        """A composite action: its steps with their own inputs, and its outputs."""
        document = yaml.safe_load((folder / "action.yml").read_text(encoding="utf-8"))
        unknown = set(given) - set(document["inputs"])
        if unknown:
            raise Unsupported(f"{folder}: no inputs {unknown}")
        inputs = {name: given.get(name, entry.get("default", "")) for name, entry in document["inputs"].items()}
        own = {**contexts, "inputs": inputs, "steps": {}, "action_path": str(folder), "env": dict(contexts["env"])}
        for hidden in ("secrets", "vars", "needs"):
            own.pop(hidden, None)
        well = self.steps(document["runs"]["steps"], own, done, home)
        found = {name: shown(filled(entry["value"], own)) for name, entry in document["outputs"].items()}
        return int(not well), "", found

    def contexts(self) -> dict[str, Any]:
        """What expressions can be about, but for the job and its steps."""
        github = {
            "event_name": self.event_name, "event": self.event, "ref": "refs/heads/main", "ref_name": "main",
            "ref_type": "branch", "sha": "a" * 40, "run_id": "1", "repository": "acme/finetune", "token": "ghs_own",
            **self.github,
        }  # fmt: skip
        return {"github": github, "inputs": self.inputs, "vars": self.variables, "secrets": self.secrets, "matrix": {}}

    def python(self) -> Path:
        """A folder with the commands python and python3, as a runner has them."""
        folder = self.folder / "python"
        if not folder.exists():
            folder.mkdir(parents=True)
            libraries = link_libraries(self.folder / "libraries" / "site-packages")
            wrapper = folder / "python3"
            wrapper.write_text(WRAPPER.format(python=base_python(), libraries=libraries), encoding="utf-8")
            wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
            (folder / "python").symlink_to("python3")
        return folder

    def restore(self, given: Mapping[str, str], done: Job) -> int:
        """The stand-in of a cache's first half."""
        caches = self.folder / "caches"
        kept = sorted(caches.glob("*"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        prefixes = [given["key"], *given.get("restore-keys", "").split()]
        found = next((cache for prefix in prefixes for cache in kept if cache.name.startswith(prefix)), None)
        if found:
            self.restored.append(found.name)
            for path in [path for path in given["path"].split() if not path.startswith("~")]:
                shutil.copytree(found / path, done.workspace / path, dirs_exist_ok=True)
        return 0

    def save(self, given: Mapping[str, str], done: Job) -> int:
        """The stand-in of a cache's second half."""
        for path in given["path"].split():
            shutil.copytree(done.workspace / path, self.folder / "caches" / given["key"] / path)
        return 0

    def upload(self, given: Mapping[str, str], done: Job) -> int:
        """The stand-in of an upload: one folder, without what is left out, and without hidden files if not asked."""
        target = self.folder / "artifacts" / given["name"]
        shutil.rmtree(target, ignore_errors=True)
        first, *others = given["path"].split()
        left_out = [done.workspace / other.removeprefix("!").removesuffix("/**") for other in others]
        hidden = given.get("include-hidden-files") == "true"
        source = done.workspace / first

        def ignored(folder: str, names: list[str]) -> list[str]:
            return [
                name for name in names if Path(folder, name) in left_out or (name.startswith(".") and not hidden)
            ]  # fmt: skip

        if source.is_dir():
            shutil.copytree(source, target, ignore=ignored)
        return 0 if target.exists() or given.get("if-no-files-found") != "error" else 1

    def download(self, given: Mapping[str, str], done: Job) -> int:
        """The stand-in of a download: one artifact, or those that fit a pattern, each in a folder of its name."""
        target = done.workspace / given["path"]
        if "name" in given:
            source = self.folder / "artifacts" / given["name"]
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            return 0 if source.is_dir() else 1
        for source in (self.folder / "artifacts").glob(given["pattern"]):
            shutil.copytree(source, target / source.name, dirs_exist_ok=True)
        return 0


WRAPPER = """#!/bin/bash
{python} "$@" || exit
if [ "$1 $2" = "-m venv" ]; then
  for site in "${{@: -1}}"/lib/python*/site-packages; do
    echo "import sys; sys.path.append('{libraries}')" > "$site/libraries.pth"
  done
fi
"""


def base_python() -> str:
    """The Python that this environment was made of."""
    return str(getattr(sys, "_base_executable", sys.executable))


def link_libraries(folder: Path) -> Path:
    """A folder with this environment's packages, but for those that new environments install for themselves.

    It has to be called site-packages: dill pickles what lies elsewhere by value.
    """
    folder.mkdir(parents=True)
    for site in [Path(path) for path in sys.path if path.endswith("site-packages")]:
        for entry in site.iterdir():
            link = folder / entry.name
            is_left_out = entry.name.startswith(INSTALLED_ANEW) or entry.suffix == ".pth" or entry.name == "pip"
            if not is_left_out and not link.exists():
                link.symlink_to(entry)
    return folder


def pip_config() -> dict[str, str]:
    """The user's pip settings, which lie in a home that steps do not have."""
    file = Path.home() / ".config" / "pip" / "pip.conf"
    return {"PIP_CONFIG_FILE": str(file)} if file.is_file() else {}


def copy_source(source: Path, workspace: Path) -> int:
    """The stand-in of a checkout: the files that git knows, or would."""
    command = ["git", "ls-files", "-coz", "--exclude-standard"]
    listed = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (source / name).is_file():
            (workspace / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, workspace / name)
    return 0


def needs_of(job: Mapping[str, Any]) -> list[str]:
    """The jobs that a job waits for."""
    needs = job.get("needs", [])
    return [needs] if isinstance(needs, str) else list(needs)


def result(jobs: Sequence[Job]) -> str:
    """What has become of a job with all choices of its matrix."""
    return "skipped" if not jobs else "failure" if any(job.result == "failure" for job in jobs) else "success"


def outputs(jobs: Sequence[Job]) -> dict[str, str]:
    """The outputs of a job."""
    return {name: value for job in jobs for name, value in job.outputs.items()}


def pairs(file: Path) -> dict[str, str]:
    """NAME=VALUE lines that a step has written for others."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line)
