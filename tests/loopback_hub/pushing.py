"""Routes that change what a repository holds."""

import base64
import json
from typing import Any

from loopback_hub.calls import Call
from loopback_hub.cards import complaints
from loopback_hub.reading import API
from loopback_hub.replies import Refused, Reply
from loopback_hub.repos import LfsFile, Repo, Tree, content_id

FRESH: Tree = {
    ".gitattributes": b"".join(
        f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n".encode() for suffix in (".bin", ".pt", ".safetensors")
    )
}


def validate_yaml(call: Call) -> Reply:
    """Say whether a card's metadata would be accepted."""
    if wrong := complaints(call.json["content"]):
        return 400, {"errors": [{"message": message} for message in wrong], "warnings": []}, {}
    return 200, {"errors": [], "warnings": []}, {}


def preupload(call: Call) -> Reply:
    """Say of each file how it should come, and what is there now."""
    repo = call.writable(ref=call.fields["revision"], pull=call.asks("create_pr"))
    _, tree = call.commit(repo)
    told = []
    for file in call.json["files"]:
        mode = "lfs" if call.hub.is_lfs(file["path"], file["size"]) else "regular"
        told.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
        if (content := tree.get(file["path"])) is not None:
            told[-1]["oid"] = content.oid if isinstance(content, LfsFile) else content_id(content)
    return 200, {"files": told}, {}


def lfs_batch(call: Call) -> Reply:
    """Say of each large file where it should go, unless it is there."""
    asked = call.json
    ref = asked.get("ref", {}).get("name", "")
    call.writable(ref=ref, pull=not ref)
    if asked["operation"] != "upload" or asked.get("hash_algo", "sha256") != "sha256":
        raise Refused(422, "Only uploads by sha256 are served.")
    chunk = call.hub.chunk_size if "multipart" in asked["transfers"] else None
    objects = [uploads(call, item["oid"], item["size"], chunk) for item in asked["objects"]]
    return 200, {"transfer": "multipart" if chunk else "basic", "objects": objects}, {}


def uploads(call: Call, oid: str, size: int, chunk: int | None) -> dict[str, Any]:
    """Give back how one large file should come."""
    hub = call.hub
    if oid in hub.storage:
        return {"oid": oid, "size": size}
    hub.storage.expected[oid] = size
    verify = {"href": f"{call.url}.git/info/lfs/objects/verify", "header": {}}
    upload: dict[str, Any] = {"href": f"{hub.storage_endpoint}/objects/{oid}", "header": {}}
    if chunk:
        parts = {str(n): f"{upload['href']}/parts/{n}" for n in range(1, -(-size // chunk) + 1)}
        upload = {
            "href": f"{hub.endpoint}/api/complete_multipart?uploadId={oid}",
            "header": {"chunk_size": str(chunk), **parts},
        }
    return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}


def complete_multipart(call: Call) -> Reply:
    """Make one large file of its parts."""
    asked = call.json
    call.hub.storage.complete(asked["oid"], {part["partNumber"]: part["etag"] for part in asked["parts"]})
    return 200, {}, {}


def lfs_verify(call: Call) -> Reply:
    """Say whether a large file has come."""
    call.known()
    call.repo()
    oid, storage = call.json["oid"], call.hub.storage
    if oid not in storage or storage.size(oid) != call.json["size"]:
        raise Refused(404, "Object does not exist")
    return 200, {}, {}


def commit(call: Call) -> Reply:
    """Make one commit of all operations, on a branch or as a new pull request, or refuse them all."""
    revision, new_pull = call.fields["revision"], call.asks("create_pr")
    lines = [json.loads(line) for line in call.body.splitlines() if line.strip()]
    header = lines[0]["value"]
    with call.hub.lock:
        repo = call.writable(ref=revision, pull=new_pull)
        head = {**repo.branches, **repo.pull_heads}.get(revision)
        if head is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        start = head
        if parent := header.get("parentCommit"):
            matching = [sha for sha in repo.commits if sha.startswith(parent)]
            if not matching or (matching[0] != head and not new_pull):
                raise Refused(412, "A commit has happened since. Please refresh and try again.")
            start = matching[0]
        files, deleted = changes(call, repo.commits[start], lines[1:])
        author, ref, told = call.known().user, revision, {}
        if new_pull:
            pull = repo.open_pull(header["summary"], author, start, revision)
            ref, told = pull.ref, {"pullRequestUrl": f"{call.url}/discussions/{pull.number}"}
        about = {"title": header["summary"], "message": header.get("description", ""), "author": author}
        sha = repo.commit(files, ref, deleted=deleted, **about)
    return 200, {"success": True, "commitOid": sha, "commitUrl": f"{call.url}/commit/{sha}", **told}, {}


def changes(call: Call, tree: Tree, lines: list[dict[str, Any]]) -> tuple[Tree, set[str]]:
    """Give back what operations add to a tree and what they take from it."""
    files: Tree = {}
    deleted: set[str] = set()
    for line in lines:
        value = line["value"]
        path = value["path"]
        if line["key"] == "file":
            files[path] = regular(call, path, base64.b64decode(value["content"], validate=True))
        elif line["key"] == "lfsFile":
            files[path] = large(call, path, value["oid"], value.get("size"))
        else:
            folder = f"{path.rstrip('/')}/" if line["key"] == "deletedFolder" else None
            gone = {held for held in tree if (held.startswith(folder) if folder else held == path)}
            if not gone:
                raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            deleted |= gone
    return files, deleted


def regular(call: Call, path: str, data: bytes) -> bytes:
    """Give back a small file that the Hub accepts."""
    if len(data) > call.hub.lfs_bytes:
        raise Refused(400, f"Your push was rejected because it contains files larger than 10 MiB. - {path}")
    if path == "README.md" and (wrong := complaints(data.decode())):
        raise Refused(400, "\n- ".join(["Invalid metadata in README.md.", *wrong]))
    return data


def large(call: Call, path: str, oid: str, size: int | None) -> LfsFile:
    """Give back a large file that has come."""
    if oid not in call.hub.storage or size not in (None, call.hub.storage.size(oid)):
        pointed = "Your push was rejected because an LFS pointer pointed to a file that does not exist."
        raise Refused(400, f"{pointed} Offending file: - {path}")
    return LfsFile(oid, call.hub.storage.size(oid))


def existing(repo: Repo, revision: str | None) -> str:
    """Give back the commit that a new branch or tag should name."""
    if (sha := repo.sha(revision or "main")) is None:
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return sha


def create_branch(call: Call) -> Reply:
    """Make a branch."""
    repo, name = call.writable(), call.fields["name"]
    if name in repo.branches:
        raise Refused(409, "Reference already exists")
    repo.branches[name] = existing(repo, call.json.get("startingPoint"))
    return 200, {}, {}


def delete_branch(call: Call) -> Reply:
    """Remove a branch other than main."""
    repo, name = call.writable(), call.fields["name"]
    if name == "main":
        raise Refused(403, "The main branch cannot be deleted")
    if repo.branches.pop(name, None) is None:
        raise Refused(404, f"Invalid rev id: {name}", "RevisionNotFound")
    return 200, {}, {}


def create_tag(call: Call) -> Reply:
    """Make a tag."""
    repo, name = call.writable(), call.json["tag"]
    if name in repo.tags:
        raise Refused(409, "Tag reference exists already")
    repo.tags[name] = existing(repo, call.fields["name"])
    return 200, {}, {}


def delete_tag(call: Call) -> Reply:
    """Remove a tag."""
    repo, name = call.writable(), call.fields["name"]
    if repo.tags.pop(name, None) is None:
        raise Refused(404, f"Invalid rev id: {name}", "RevisionNotFound")
    return 200, {}, {}


LFS = "/(?:(?P<kind>datasets)/)?(?P<repo>[^/]+/[^/]+)\\.git/info/lfs/objects"
ROUTES = [
    ("POST", "/api/validate-yaml", validate_yaml),
    ("POST", API + "/preupload/(?P<revision>[^/]+)", preupload),
    ("POST", LFS + "/batch", lfs_batch),
    ("POST", LFS + "/verify", lfs_verify),
    ("POST", "/api/complete_multipart", complete_multipart),
    ("POST", API + "/commit/(?P<revision>[^/]+)", commit),
    ("POST", API + "/branch/(?P<name>[^/]+)", create_branch),
    ("DELETE", API + "/branch/(?P<name>[^/]+)", delete_branch),
    ("POST", API + "/tag/(?P<name>[^/]+)", create_tag),
    ("DELETE", API + "/tag/(?P<name>[^/]+)", delete_tag),
]
