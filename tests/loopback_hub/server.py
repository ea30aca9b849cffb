"""The Hub's two servers and what they keep."""

import base64
import json
import re
import secrets
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from loopback_hub.faults import Fault
from loopback_hub.handlers import HubHandler, Server, StorageHandler
from loopback_hub.jobs import Job, hardware
from loopback_hub.replies import Refused
from loopback_hub.repos import LfsFile, Repo
from loopback_hub.storage import Storage
from loopback_hub.users import Token

Files = Mapping[str, bytes] | Path
SWITCHES = ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK")
LARGE = (".safetensors", ".bin", ".pt", ".png")


class LoopbackHub:
    """The Hub: `with LoopbackHub() as hub:` serves on two free ports until the block ends."""

    def __init__(self) -> None:
        """Begin with no repositories and no users."""
        self.servers = [Server(("127.0.0.1", 0), handler) for handler in (HubHandler, StorageHandler)]
        for server in self.servers:
            server.hub = self
        self.endpoint, self.storage_endpoint = (f"http://127.0.0.1:{server.server_port}" for server in self.servers)
        self.folder = tempfile.TemporaryDirectory(prefix="loopback-hub-")
        self.storage = Storage(Path(self.folder.name))
        self.repos: dict[tuple[str, str], Repo] = {}  # by type ("model" or "dataset") and id
        self.tokens: dict[str, str | Token] = {}  # token to username, or to a `Token`
        self.organisations: dict[str, dict[str, str]] = {}  # members with roles: read, contributor, write or admin
        self.granted: set[tuple[str, str]] = set()  # (username, repo id): who may read besides the owner
        self.publishers: dict[str, str] = {}  # "acme/model" or "datasets/acme/rows" to the GitHub repository it trusts
        self.identities: dict[str, dict[str, str]] = {}  # id token to its claims
        self.workflows: dict[str, str] = {}  # request token of a workflow to its GitHub repository
        self.oidc_expires_after: int | None = None  # requests that a token got by OIDC is good for
        self.requests: list[str] = []  # "GET /path?query", to either origin, as they came
        self.faults: list[Fault] = []
        self.chunk_size: int | None = None  # bytes of a part, to make large files come in parts
        self.lfs_bytes = 10_000_000  # a file with more bytes is a large one, whatever its name
        self.page_size: int | None = None  # entries on a page of a list
        self.hardware: list[dict[str, Any]] = hardware()
        self.jobs: list[Job] = []
        self.job_stages = ["SCHEDULING", "RUNNING", "COMPLETED"]  # what the next jobs will go through
        self.job_logs = ["===== Job started", "hello"]  # and print
        self.lock = threading.RLock()

    def __enter__(self) -> Self:
        """Start serving and give back the Hub."""
        for server in self.servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop serving."""
        for server in self.servers:
            server.shutdown()
            server.server_close()
        self.folder.cleanup()

    def add_repo(
        self,
        repo_id: str,
        files: Files,
        repo_type: str = "model",
        gated: bool = False,
        private: bool = False,
        lfs: bool = False,
    ) -> str:
        """Commit files to a repository (made if missing), set its two flags, give back the commit's sha.

        With `lfs`, those files that an upload would bring to the storage lie there; else all are regular ones.
        """
        repo = self.repos.setdefault((repo_type, repo_id), Repo())
        repo.gated, repo.private = gated, private
        if isinstance(files, Path):
            files = {p.relative_to(files).as_posix(): p.read_bytes() for p in files.rglob("*") if p.is_file()}
        return repo.commit(
            {p: self.storage.add(data) if lfs and self.is_lfs(p, len(data)) else data for p, data in files.items()}
        )

    def read(self, repo_id: str, path: str, revision: str = "main", repo_type: str = "model") -> bytes:
        """Give back the bytes of a file in a repository, past all requests."""
        repo = self.repos[repo_type, repo_id]
        content = repo.commits[repo.sha(revision) or revision][path]
        return self.storage.read(content.oid) if isinstance(content, LfsFile) else content

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Give back the variables that make a client talk to this Hub and keep its files under `home`."""
        variables = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), **dict.fromkeys(SWITCHES, "1")}
        return variables if token is None else {**variables, "HF_TOKEN": token}

    def oidc_environment(self, repo: str, github: str = "acme/code") -> dict[str, str]:
        """Give back the variables of a GitHub workflow that wants a token for one repository of the Hub."""
        request = secrets.token_hex(8)
        self.workflows[request] = github
        return {
            "HF_OIDC_RESOURCE": repo,
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.storage_endpoint}/github/id-token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": request,
        }

    def identify(self, request: str, audience: str) -> str:
        """Give back an id token for the workflow that holds this request token."""
        if request not in self.workflows:
            raise Refused(401, "Bad credentials")
        claims = {"aud": audience, "repository": self.workflows[request], "jti": secrets.token_hex(8)}
        identity = ".".join(["e30", base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("="), "none"])
        self.identities[identity] = claims
        return identity

    def note(self, request: str) -> Fault | None:
        """Note the request and give back the fault that is planted for it, using up one of the fault's times."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    if fault.skip > 0:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def token(self, text: str) -> Token | None:
        """Give back who a token belongs to, using up one of its requests; nobody without a token."""
        if not text:
            return None
        with self.lock:
            found = self.tokens.get(text)
            if found is None:
                raise Refused(401, "Invalid credentials in Authorization header")
            if isinstance(found, str):
                return Token(found)
            if found.expires_after is not None and found.used >= found.expires_after:
                raise Refused(401, "Invalid credentials in Authorization header")
            found.used += 1
            return found

    def is_lfs(self, path: str, size: int) -> bool:
        """Say whether a file with this name and size comes as a large one."""
        return size > 0 and (path.endswith(LARGE) or size > self.lfs_bytes)

    def role(self, user: str, namespace: str) -> str | None:
        """Give back what a user is in a namespace."""
        return "admin" if user == namespace else self.organisations.get(namespace, {}).get(user)

    def may_read(self, user: str, repo_id: str) -> bool:
        """Say whether a user may read what is private or gated."""
        return self.role(user, repo_id.split("/")[0]) is not None or (user, repo_id) in self.granted

    def may_create(self, user: str, namespace: str) -> bool:
        """Say whether a user may make repositories (and run jobs) in a namespace."""
        return self.role(user, namespace) in ("contributor", "write", "admin")

    def may_write(self, user: str, repo_type: str, repo_id: str) -> bool:
        """Say whether a user may write to a repository."""
        role = self.role(user, repo_id.split("/")[0])
        mine = role == "contributor" and self.repos[repo_type, repo_id].creator == user
        return role in ("write", "admin") or mine
