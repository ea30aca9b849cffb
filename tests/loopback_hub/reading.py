"""Routes that tell what a repository holds."""

from typing import Any
from urllib.parse import parse_qs, urlencode

from loopback_hub.calls import Call
from loopback_hub.cards import metadata
from loopback_hub.replies import Refused, Reply, ranged
from loopback_hub.repos import LfsFile, blob_id, content_id, content_size, entries, pointed


def repo_info(call: Call) -> Reply:
    """Tell about a repository, gated or not; the sizes of its files only when asked for (blobs)."""
    repo = call.repo()
    sha, tree = call.commit(repo)
    siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(tree)]
    for sibling in siblings if "blobs" in call.query else []:
        content = tree[sibling["rfilename"]]
        sibling.update(size=content_size(content), blobId=content_id(content), **pointed(content, "sha256"))
    gated = repo.gated if isinstance(repo.gated, str) else "manual" if repo.gated else False
    flags = {"private": repo.private, "gated": gated, "disabled": False}
    card = tree.get("README.md", b"")
    told: dict[str, Any] = {"cardData": metadata(card.decode()) if isinstance(card, bytes) else None, "tags": []}
    return 200, {"id": call.repo_id, "sha": sha, **flags, **told, "siblings": siblings}, {}


def list_tree(call: Call) -> Reply:
    """List a folder of a repository, gated or not."""
    _, tree = call.commit(call.repo())
    prefix = f"{call.fields['folder']}/".lstrip("/")
    below = [entry for entry in entries(tree) if entry["path"].startswith(prefix)]
    if prefix and not below:
        raise Refused(404, f"{prefix[:-1]} does not exist on this revision", "EntryNotFound")
    deep = call.asks("recursive")
    return page(call, [e for e in below if deep or "/" not in e["path"].removeprefix(prefix)])


def page(call: Call, listed: list[dict[str, Any]]) -> Reply:
    """Give back the page asked for of a list, and a link to the next one."""
    size = call.hub.page_size
    if size is None:
        return 200, listed, {}
    start = int(call.query.get("cursor", ["0"])[0])
    if start + size >= len(listed):
        return 200, listed[start:], {}
    query = urlencode({**call.query, "cursor": [str(start + size)]}, doseq=True)
    link = f'<{call.hub.endpoint}{call.path}?{query}>; rel="next"'
    return 200, listed[start : start + size], {"Link": link}


def paths_info(call: Call) -> Reply:
    """List those of the paths asked for that exist."""
    wanted = parse_qs(call.body.decode()).get("paths", [])
    return 200, [entry for entry in entries(call.commit(call.repo())[1]) if entry["path"] in wanted], {}


def list_refs(call: Call) -> Reply:
    """List the branches and tags, and when asked for the pull requests."""
    repo = call.repo()
    heads = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repo.branches.items()]
    tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in repo.tags.items()]
    pulls = [{"name": n.removeprefix("refs/"), "ref": n, "targetCommit": c} for n, c in repo.pull_heads.items()]
    shown = pulls if call.asks("include_prs") else []
    return 200, {"branches": heads, "tags": tags, "converts": [], "pullRequests": shown}, {}


def list_commits(call: Call) -> Reply:
    """List a commit and all before it."""
    repo = call.repo()
    told = [
        {"id": c.sha, "title": c.title, "message": c.message, "authors": [{"user": c.author}], "date": c.date}
        for c in repo.log(call.commit(repo)[0])
    ]
    return page(call, told)


def auth_check(call: Call) -> Reply:
    """Say yes to a user who may read the files."""
    return 200, {"ok": bool(call.repo(read=True))}, {}


def auth_check_write(call: Call) -> Reply:
    """Say yes to a user who may write."""
    return 200, {"ok": bool(call.writable())}, {}


def resolve(call: Call) -> Reply:
    """Give back one file, or the range asked for, with the headers by which the client caches it."""
    sha, tree = call.commit(call.repo(read=True))
    if (content := tree.get(call.fields["path"])) is None:
        raise Refused(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": sha})
    headers = {"X-Repo-Commit": sha, "ETag": f'"{content_id(content)}"'}
    if isinstance(content, LfsFile):
        linked = {"X-Linked-Etag": f'"{content.oid}"', "X-Linked-Size": str(content.size)}
        return 302, b"", {**headers, **linked, "Location": f"{call.hub.storage_endpoint}/objects/{content.oid}"}
    status, first, length, told = ranged(call.headers.get("Range", ""), len(content))
    return status, content[first : first + length], {**headers, "ETag": f'"{blob_id(content)}"', **told}


API = "/api/(?P<kind>models|datasets)/(?P<repo>[^/]+(?:/[^/]+)?)"
FILE = "/(?:(?P<kind>datasets)/)?(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
ROUTES = [  # method (GET means HEAD too), path, answer
    ("GET", API + "/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", list_tree),
    ("POST", API + "/paths-info/(?P<revision>[^/]+)", paths_info),
    ("GET", API + "/refs", list_refs),
    ("GET", API + "/commits/(?P<revision>[^/]+)", list_commits),
    ("GET", API + "/auth-check", auth_check),
    ("GET", API + "/auth-check/write", auth_check_write),
    ("GET", FILE, resolve),
]
LAST = [("GET", API + "(?:/revision/(?P<revision>[^/]+))?", repo_info)]  # its pattern takes many a path
