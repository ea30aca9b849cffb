"""Routes of users, of their repositories as a whole, and of tokens got from a CI's identity."""

import secrets

from loopback_hub.calls import Call, resource
from loopback_hub.pushing import FRESH
from loopback_hub.reading import API
from loopback_hub.replies import Refused, Reply
from loopback_hub.repos import Repo
from loopback_hub.users import WRITE, Token


def whoami(call: Call) -> Reply:
    """Tell whose token it is, in which organisations they are, and what the token passes on."""
    token, organisations = call.known(), call.hub.organisations
    orgs = [
        {"type": "org", "id": f"id-{name}", "name": name, "fullname": name, "roleInOrg": members[token.user]}
        for name, members in organisations.items()
        if token.user in members
    ]
    user = {"type": "user", "id": f"id-{token.user}", "name": token.user, "fullname": token.user}
    auth = {"type": "access_token", "accessToken": token.described(organisations)}
    return 200, {**user, "orgs": orgs, "auth": auth}, {}


def create_repo(call: Call) -> Reply:
    """Make a repository with a first commit."""
    hub, token, asked = call.hub, call.known(), call.json
    namespace, repo_type = asked.get("organization") or token.user, asked.get("type") or "model"
    if token.repo is not None:
        raise Refused(401, "Invalid username or password.")
    repo_id = f"{namespace}/{asked['name']}"
    if not hub.may_create(token.user, namespace) or not token.allows(WRITE, namespace):
        raise Refused(403, f'You don\'t have the rights to create a {repo_type} under the namespace "{namespace}".')
    url = f"{hub.endpoint}/{resource(repo_type, repo_id)}"
    with hub.lock:
        if (repo_type, repo_id) in hub.repos:
            return 409, {"error": f"You already created this {repo_type} repo: {repo_id}", "url": url}, {}
        repo = Repo(private=asked.get("visibility") == "private", creator=token.user)
        repo.commit(FRESH, title="initial commit", author=token.user)
        hub.repos[repo_type, repo_id] = repo
    return 200, {"url": url, "name": repo_id, "id": f"id-{repo_id}"}, {}


def settings(call: Call) -> Reply:
    """Change who may see and read a repository."""
    repo = call.writable()
    repo.gated = call.json.get("gated", repo.gated)
    repo.private = call.json.get("visibility", "private" if repo.private else "public") == "private"
    return 200, {"gated": repo.gated, "visibility": "private" if repo.private else "public"}, {}


def exchange(call: Call) -> Reply:
    """Give a token confined to one repository for the identity of a workflow that this repository trusts."""
    hub, asked = call.hub, call.json
    claims = hub.identities.get(asked["subject_token"])
    wanted = asked["resource"]
    if claims is None or claims["aud"] != hub.endpoint:
        raise invalid_grant("the id token is unknown, or its audience is not this Hub")
    if hub.publishers.get(wanted) != claims["repository"]:
        raise invalid_grant(f"no trusted publisher of {wanted} matches the claims of the id token")
    namespace = wanted.split("/")[-2]
    token = f"hf_jwt_{secrets.token_hex(8)}"
    hub.tokens[token] = Token(namespace, repo=wanted, expires_after=hub.oidc_expires_after)
    issued = "urn:ietf:params:oauth:token-type:access_token"
    return 200, {"access_token": token, "token_type": "bearer", "expires_in": 3600, "issued_token_type": issued}, {}


def invalid_grant(message: str) -> Refused:
    """Give back the refusal of an exchange, by the names that OAuth uses."""
    refused = Refused(400, f"invalid_grant: {message}")
    refused.reply = (400, {"error": "invalid_grant", "error_description": message}, {"X-Error-Message": message})
    return refused


ROUTES = [
    ("GET", "/api/whoami-v2", whoami),
    ("POST", "/api/repos/create", create_repo),
    ("PUT", API + "/settings", settings),
    ("POST", "/oauth/token", exchange),
]
