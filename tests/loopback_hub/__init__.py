"""A small Hugging Face Hub on 127.0.0.1: the tests run the real client libraries against it, over real HTTP.

It reads and it writes: repositories, large files (on an origin of their own), pull requests, rights, OIDC, jobs.
Run clients as processes of their own: huggingface_hub reads `LoopbackHub.environment` when it is imported.
"""

from loopback_hub.faults import Fault
from loopback_hub.jobs import Job
from loopback_hub.replies import Refused
from loopback_hub.repos import Commit, LfsFile, PullRequest, Repo
from loopback_hub.server import LoopbackHub
from loopback_hub.users import Token

__all__ = ["Commit", "Fault", "Job", "LfsFile", "LoopbackHub", "PullRequest", "Refused", "Repo", "Token"]
