"""The Hub: whether the finished run may be pushed where that is asked for."""

from collections.abc import Iterator

from hf_finetune.doctor.line import Line, ok
from hf_finetune.doctor.subject import Subject
from hf_finetune.hub.rights import Target, check_base, check_target


def base_can_be_loaded(subject: Subject) -> Iterator[Line]:
    """Whether others can load the base that the adapter is for."""
    if subject.settings.hub_model_id and subject.base is not None:
        check_base(subject.base.name, subject.base.commit)
    yield from ()


def rights(subject: Subject) -> Iterator[Line]:
    """Whether this token may write to the repo, and the repo takes an adapter."""
    repo_id = subject.settings.hub_model_id
    if not repo_id:
        return
    repo = check_target(Target(repo_id, private=subject.settings.hub_private_repo))
    yield ok(f"{repo_id}: {'is there and may be written to' if repo else 'is not there yet and may be made'}")
