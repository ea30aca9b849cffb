"""SIGTERM, SIGHUP and Ctrl-C: a training saves first, anything else stops at once; the same command goes on later."""

import ctypes
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from hf_finetune.processes import was_launched

Result = TypeVar("Result")

LOOK_SECONDS = 0.5
AGAIN_SECONDS = 1.0
"""A second Ctrl-C is one that comes later than this: launchers pass on the first one too."""


class Interrupted(BaseException):
    """A signal asked this process to stop. No Exception, so that nobody takes it for a fault, as KeyboardInterrupt."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


class Interruption:
    """The signals that came, and whether what runs now may be stopped at once."""

    def __init__(self) -> None:
        self.requested: int | None = None
        self._first = 0.0
        self._deferred = False
        self.advice = "the same command goes on from here"

    def listen(self, advice: str = "") -> None:
        """Takes over the signals that ask a process to stop, less those that it was started to ignore (nohup).

        `advice` is what is told when one has come.
        """
        self.advice = advice or self.advice
        names = ("SIGTERM", "SIGINT", "SIGHUP")  # Windows has no hang-up
        for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        sys.unraisablehook = _report_unraisable
        if was_launched() and sys.platform == "linux":
            # `accelerate launch` passes no signal on to a single process: when it dies, the kernel tells this one.
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal is only noted in `requested`; a second Ctrl-C still stops at once.

        Raises:
            Interrupted: at the end of the block, when a signal came that nobody has answered.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.stop_if_requested()

    def ignore(self) -> None:
        """From now on a signal is only noted, as in `deferred`: this process is about to end."""
        self._deferred = True

    def stop_if_requested(self) -> None:
        """Raises Interrupted when a signal has come and may be answered now.

        The handler does so itself, but Python drops what is raised while it runs a destructor.
        """
        if self.requested is not None and not self._deferred:
            raise Interrupted(self.requested)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        again = self.requested is not None and number == signal.SIGINT and now - self._first > AGAIN_SECONDS
        if self.requested is None:
            self.requested, self._first = number, now
        elif not again:
            return
        if again or not self._deferred:
            raise Interrupted(number)


def without_waiting(call: Callable[[], Result]) -> Result:
    """What a call gives; a signal that comes meanwhile does not wait until the call's own threads have ended.

    The Hub's client sends and fetches large files in threads, which Python joins before it lets go of an error. They
    go on until this process ends, which must be at once.
    """
    given: Future[Result] = Future()

    def work() -> None:
        try:
            given.set_result(call())
        except BaseException as error:  # noqa: BLE001  # it is raised where the call is waited for
            given.set_exception(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_SECONDS)  # on Windows no signal ends a longer wait
    return given.result()


def _report_unraisable(dropped: "sys.UnraisableHookArgs") -> None:
    """What Python says of an error in a destructor, but for ours, which `stop_if_requested` raises again."""
    if not isinstance(dropped.exc_value, Interrupted):
        sys.__unraisablehook__(dropped)


interruption = Interruption()
"""This process's: signal handlers are one for the whole process too."""
