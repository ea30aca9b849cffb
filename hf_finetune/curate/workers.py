"""Work for several processes: results in order, a bounded number of tasks under way, no process left behind."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import get_context
from typing import TypeVar

from hf_finetune.errors import RecipeError
from hf_finetune.interruption import interruption

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_order(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """What the function gives for each task, in the tasks' order; with one worker or task it is called in this process.

    At most two tasks a worker are taken from `tasks` before their results are asked for.

    Raises:
        RecipeError: when a worker was killed, as the system does where memory runs out.
    """
    tasks = iter(tasks)
    head = list(islice(tasks, 2)) if workers > 1 else []
    tasks = chain(head, tasks)
    if len(head) < 2:
        for task in tasks:
            interruption.stop_if_requested()
            yield function(task)
        return
    # Not fork: pyarrow has threads.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (os.getpid(),))
    under_way: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            interruption.stop_if_requested()
            under_way.append(pool.submit(function, task))
            if len(under_way) >= 2 * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    except BrokenProcessPool as error:
        raise RecipeError(
            "workers: one was killed, most likely as the memory ran out. Give the same command with fewer --workers; "
            "it goes on from here."
        ) from error
    finally:
        pool.shutdown(wait=not under_way, cancel_futures=True)


def _begin(parent: int) -> None:
    """Leaves signals to the parent, and ends with it whatever ends it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
