"""Routes of jobs: nothing runs, but what was asked for is kept and a course of stages is told."""

import json
from dataclasses import dataclass, field
from typing import Any

from loopback_hub.calls import Call
from loopback_hub.replies import Refused, Reply
from loopback_hub.users import RUN

DATE = "2026-01-01T00:00:00.000Z"
GPUS = [  # name, pretty name, CPU, RAM, model, quantity, VRAM, micro-dollars a minute
    ("t4-small", "Nvidia T4 - small", "4 vCPU", "15 GB", "T4", "1", "16 GB", 6667),
    ("l4x1", "1x Nvidia L4", "8 vCPU", "30 GB", "L4", "1", "24 GB", 13333),
    ("a10g-small", "Nvidia A10G - small", "4 vCPU", "14 GB", "A10G", "1", "24 GB", 16667),
    ("a10g-largex2", "2x Nvidia A10G - large", "24 vCPU", "92 GB", "A10G", "2", "48 GB", 50000),
    ("a100-large", "Nvidia A100 - large", "12 vCPU", "142 GB", "A100", "1", "80 GB", 41667),
    ("h200", "Nvidia H200", "23 vCPU", "256 GB", "H200", "1", "141 GB", 83333),
]


@dataclass
class Job:
    """A job: what was asked for, and what it will be said to have done."""

    id: str
    namespace: str
    owner: str
    payload: dict[str, Any]
    stages: list[str] = field(default_factory=lambda: ["SCHEDULING", "RUNNING", "COMPLETED"])  # one passes a request
    logs: list[str] = field(default_factory=list)


def hardware() -> list[dict[str, Any]]:
    """Give back machines and prices as the Hub lists them."""
    listed = [machine("cpu-basic", "CPU Basic", "2 vCPU", "16 GB", 167)]
    for name, pretty, cpu, ram, model, quantity, vram, price in GPUS:
        known = {"type": "gpu", "model": model, "quantity": quantity, "vram": vram, "manufacturer": "Nvidia"}
        listed.append({**machine(name, pretty, cpu, ram, price), "accelerator": known})
    return listed


def machine(name: str, pretty: str, cpu: str, ram: str, price: int) -> dict[str, Any]:
    """Give back one machine without a GPU."""
    cost = {"unitCostMicroUSD": price, "unitCostUSD": price / 1e6, "unitLabel": "minute"}
    sizes = {"cpu": cpu, "ram": ram, "ephemeralStorage": "50 GB"}
    return {"name": name, "prettyName": pretty, **sizes, "accelerator": None, **cost}


def list_hardware(call: Call) -> Reply:
    """List machines and prices."""
    return 200, call.hub.hardware, {}


def run_job(call: Call) -> Reply:
    """Keep what was asked for."""
    token, asked, namespace = call.known(), call.json, call.fields["namespace"]
    if not call.hub.may_create(token.user, namespace) or not token.allows(RUN, namespace):
        raise Refused(403, f'You don\'t have the rights to run jobs under the namespace "{namespace}".')
    if asked["flavor"] not in [known["name"] for known in call.hub.hardware]:
        raise Refused(400, f"Invalid flavor: {asked['flavor']}")
    with call.hub.lock:
        job = Job(f"{len(call.hub.jobs) + 1:024x}", namespace, token.user, asked)
        job.stages, job.logs = list(call.hub.job_stages), list(call.hub.job_logs)
        call.hub.jobs.append(job)
    return 200, told(job), {}


def get_job(call: Call) -> Reply:
    """Tell about a job, which has moved on by one stage when it is asked for again."""
    job = own(call)
    answer = told(job)
    if len(job.stages) > 1:
        job.stages.pop(0)
    return 200, answer, {}


def job_logs(call: Call) -> Reply:
    """Give back the lines that a job printed."""
    lines = own(call).logs
    if "tail" in call.query:
        lines = lines[-int(call.query["tail"][0]) :]
    events = [f"data: {json.dumps({'data': line, 'timestamp': DATE})}\n\n" for line in lines]
    return 200, "".join(events).encode(), {"Content-Type": "text/event-stream"}


def cancel_job(call: Call) -> Reply:
    """Stop a job."""
    job = own(call)
    job.stages = ["CANCELED"]
    return 200, told(job), {}


def own(call: Call) -> Job:
    """Give back the job asked for."""
    token = call.known()
    for job in call.hub.jobs:
        if (job.namespace, job.id) == (call.fields["namespace"], call.fields["job"]):
            if call.hub.may_read(token.user, job.namespace) and token.repo is None:
                return job
            break
    raise Refused(404, "Job not found")


def told(job: Job) -> dict[str, Any]:
    """Give back what the Hub tells about a job."""
    kept = ("dockerImage", "spaceId", "command", "arguments", "environment", "flavor", "labels", "volumes")
    kind = "user" if job.owner == job.namespace else "org"
    return {
        "id": job.id,
        "createdAt": DATE,
        **{name: job.payload[name] for name in kept if name in job.payload},
        "secrets": dict.fromkeys(job.payload.get("secrets", {}), ""),
        "status": {"stage": job.stages[0], "message": None},
        "owner": {"id": f"id-{job.namespace}", "name": job.namespace, "type": kind},
        "initiator": {"type": "user", "id": f"id-{job.owner}", "name": job.owner},
    }


ONE = "/api/jobs/(?P<namespace>[^/]+)/(?P<job>[0-9a-f]+)"
ROUTES = [
    ("GET", "/api/jobs/hardware", list_hardware),
    ("POST", "/api/jobs/(?P<namespace>[^/]+)", run_job),
    ("GET", ONE, get_job),
    ("GET", ONE + "/logs", job_logs),
    ("POST", ONE + "/cancel", cancel_job),
]
