"""A small Hugging Face Hub on 127.0.0.1: the tests run the real client libraries against it, over real HTTP.

It reads; an upload would be one more method of `Handler`, listed in `ROUTES`, that calls `Repo.commit`.
Run clients as processes of their own: huggingface_hub reads `LoopbackHub.environment` when it is imported.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import parse_qs, unquote

Reply = tuple[int, Any, dict[str, str]]  # status, body (bytes, or what to write as JSON), headers
Files = Mapping[str, bytes] | Path
SWITCHES = ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK")


@dataclass
class Fault:
    """A planted failure: `status` answers the next `times` requests ("GET /api/...") that match `pattern`."""

    pattern: str
    status: int
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """A reply that says no; the client chooses its exception class by the code."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        """Keep the reply for the client."""
        named = {"X-Error-Code": code, "X-Error-Message": message, **headers}
        self.reply: Reply = status, {"error": message}, named


@dataclass
class Repo:
    """A repository: all its commits (path to bytes, by sha), and its branches and tags (name to sha)."""

    gated: bool = False
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Put the files on top of what the branch holds and give back the new commit's sha."""
        parent = self.branches.get(branch, "")
        tree = {**self.commits.get(parent, {}), **files}
        blobs = sorted((path, blob_id(data)) for path, data in tree.items())
        sha = hashlib.sha1(json.dumps([parent, blobs]).encode()).hexdigest()
        self.commits[sha], self.branches[branch] = tree, sha
        return sha


class LoopbackHub(ThreadingHTTPServer):
    """The Hub: `with LoopbackHub() as hub:` serves on a free port until the block ends."""

    def __init__(self) -> None:
        """Begin with no repositories and no users."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[tuple[str, str], Repo] = {}  # by type ("model" or "dataset") and id
        self.tokens: dict[str, str] = {}  # token to username
        self.granted: set[tuple[str, str]] = set()  # (username, repo id): who may read besides the owner
        self.requests: list[str] = []  # "GET /path?query", as they came
        self.faults: list[Fault] = []
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        """Start serving and give back the Hub."""
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop serving."""
        self.shutdown()
        self.server_close()

    def add_repo(
        self, repo_id: str, files: Files, repo_type: str = "model", gated: bool = False, private: bool = False
    ) -> str:
        """Commit files to a repository (made if missing), set its two flags, give back the commit's sha."""
        repo = self.repos.setdefault((repo_type, repo_id), Repo())
        repo.gated, repo.private = gated, private
        if isinstance(files, Path):
            files = {p.relative_to(files).as_posix(): p.read_bytes() for p in files.rglob("*") if p.is_file()}
        return repo.commit(files)

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Give back the variables that make a client talk to this Hub and keep its files under `home`."""
        variables = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), **dict.fromkeys(SWITCHES, "1")}
        return variables if token is None else {**variables, "HF_TOKEN": token}

    def note(self, request: str) -> None:
        """Note the request, and refuse it if a fault is planted for it, using up one of the fault's times."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    raise Refused(fault.status, "planted fault", **fault.headers)


class Handler(BaseHTTPRequestHandler):
    """One client's connection."""

    server: LoopbackHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer one request, whatever its method."""
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            status, content, headers = self.answer()
        except Refused as refused:
            status, content, headers = refused.reply
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, text in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else data)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output clean."""

    def answer(self) -> Reply:
        """Give back the reply of the request's route, unless a fault is planted or the token is nobody's."""
        self.server.note(f"{self.command} {self.path}")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.user = self.server.tokens.get(token)
        if token and self.user is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        path, _, query = self.path.partition("?")
        self.query = parse_qs(query)
        for method, pattern, function in ROUTES:
            if method == self.command.replace("HEAD", "GET") and (match := re.fullmatch(pattern, path)):
                self.fields = {name: unquote(text or "") for name, text in match.groupdict().items()}
                return function(self)
        raise Refused(404, "Sorry, we can't find the page you are looking for.")

    def repo(self, *, read: bool = False) -> Repo:
        """Give back the repository asked for, unless it is missing, hidden or (to read files) gated."""
        repo_type, repo_id = self.fields["kind"].removesuffix("s") or "model", self.fields["repo"]
        entitled = self.user == repo_id.split("/")[0] or (self.user, repo_id) in self.server.granted
        repo = self.server.repos.get((repo_type, repo_id))
        if repo is None or (repo.private and not entitled):
            raise Refused(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if read and repo.gated and not entitled:
            raise Refused(403 if self.user else 401, f"Access to {repo_id} is restricted.", "GatedRepo")
        return repo

    def commit(self, repo: Repo) -> tuple[str, dict[str, bytes]]:
        """Give back sha and files of the commit named by the branch, tag or sha asked for."""
        revision = self.fields["revision"] or "main"
        sha = repo.branches.get(revision) or repo.tags.get(revision) or revision
        if sha not in repo.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha, repo.commits[sha]

    def whoami(self) -> Reply:
        """Tell whose token it is."""
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        access = {"accessToken": {"displayName": "test", "role": "write"}}
        return 200, {"type": "user", "name": self.user, "orgs": [], "auth": access}, {}

    def repo_info(self) -> Reply:
        """Tell about a repository, gated or not; the sizes of its files only when asked for (blobs)."""
        repo = self.repo()
        sha, tree = self.commit(repo)
        sizes = {p: {"size": len(b), "blobId": blob_id(b)} for p, b in tree.items() if "blobs" in self.query}
        siblings = [{"rfilename": path, **sizes.get(path, {})} for path in sorted(tree)]
        flags = {"private": repo.private, "gated": "manual" if repo.gated else False, "disabled": False}
        return 200, {"id": self.fields["repo"], "sha": sha, "tags": [], **flags, "siblings": siblings}, {}

    def list_tree(self) -> Reply:
        """List a folder of a repository, gated or not."""
        _, tree = self.commit(self.repo())
        prefix = f"{self.fields['folder']}/".lstrip("/")
        below = [entry for entry in entries(tree) if entry["path"].startswith(prefix)]
        if prefix and not below:
            raise Refused(404, f"{prefix[:-1]} does not exist on this revision", "EntryNotFound")
        deep = self.query.get("recursive", [""])[0].lower() in ("true", "1")
        return 200, [e for e in below if deep or "/" not in e["path"].removeprefix(prefix)], {}

    def paths_info(self) -> Reply:
        """List those of the paths asked for that exist."""
        wanted = parse_qs(self.body.decode()).get("paths", [])
        return 200, [entry for entry in entries(self.commit(self.repo())[1]) if entry["path"] in wanted], {}

    def list_refs(self) -> Reply:
        """List the branches and tags."""
        repo = self.repo()
        heads = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repo.branches.items()]
        tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in repo.tags.items()]
        return 200, {"branches": heads, "tags": tags, "converts": [], "pullRequests": []}, {}

    def auth_check(self) -> Reply:
        """Say yes to a user who may read the files."""
        return 200, {"ok": bool(self.repo(read=True))}, {}

    def resolve(self) -> Reply:
        """Give back one file, or the range asked for, with the headers by which the client caches it."""
        sha, tree = self.commit(self.repo(read=True))
        if (data := tree.get(self.fields["path"])) is None:
            raise Refused(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": sha})
        headers = {"X-Repo-Commit": sha, "ETag": f'"{blob_id(data)}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None or int(asked[1]) >= len(data):
            return 200, data, headers
        first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        return 206, data[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}


def blob_id(data: bytes) -> str:
    """Give back git's id of a file with these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def entries(tree: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Give back the folders and files of a commit as the Hub lists them, by path."""
    folders = {parent.as_posix() for path in tree for parent in PurePosixPath(path).parents} - {"."}
    listed = [{"type": "directory", "path": p, "oid": blob_id(p.encode()), "size": 0} for p in folders]
    listed += [{"type": "file", "path": p, "oid": blob_id(b), "size": len(b)} for p, b in tree.items()]
    return sorted(listed, key=lambda entry: str(entry["path"]))


API = "/api/(?P<kind>models|datasets)/(?P<repo>[^/]+(?:/[^/]+)?)"
FILE = "/(?:(?P<kind>datasets)/)?(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
ROUTES: list[tuple[str, str, Callable[[Handler], Reply]]] = [  # method (GET means HEAD too), path, answer
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("GET", API + "(?:/revision/(?P<revision>[^/]+))?", Handler.repo_info),
    ("GET", API + "/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", Handler.list_tree),
    ("POST", API + "/paths-info/(?P<revision>[^/]+)", Handler.paths_info),
    ("GET", API + "/refs", Handler.list_refs),
    ("GET", API + "/auth-check", Handler.auth_check),
    ("GET", FILE, Handler.resolve),
]
