"""Threads for CPU work and writes, whose results come back to an event loop together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

from qnet_actors.network.node import Action

NICENESS_MAX: Final = 19
Then = Callable[[Any, int], Sequence[Action]]


class Done(NamedTuple):
    """A job that ended; `then` takes its result and the time, in milliseconds."""

    then: Then
    result: Any
    error: BaseException | None


class Completions:
    """What threads have done, for one loop: one wake takes all that is there by then.

    A wake costs more than most jobs, above all where the cores are busy.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_done: Callable[[Sequence[Done]], None]
    ) -> None:
        self._loop = loop
        self._on_done = on_done
        self._done: deque[Done] = deque()
        self._woken = False

    def add(self, done: Done) -> None:
        """Hands a result over, from any thread."""
        self._done.append(done)
        # Two threads may both see no wake under way; the second wake then finds nothing.
        if not self._woken:
            self._woken = True
            # A loop that closed has nobody left to tell; it may close at this very moment.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        # Before the results are read: what is added from here on asks for a wake of its own.
        self._woken = False
        done: list[Done] = []
        while self._done:
            done.append(self._done.popleft())
        if done:
            self._on_done(done)


class Worker:
    """One thread that does jobs in order.

    Linux keeps a niceness for each thread, so lowering one's priority leaves the others theirs.
    """

    def __init__(self, name: str, completions: Completions, niceness: int = 0) -> None:
        self._completions = completions
        self._niceness: Final = niceness
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Then] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, job: Callable[[], Any], then: Then) -> None:
        """Has `job` done after all that was put before; `then` is for its result."""
        self._jobs.put((job, then))

    def close(self) -> None:
        """Waits for the jobs that were put."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        if self._niceness:
            thread = threading.get_native_id()
            # Relative to the process's own: nobody may raise a priority without a privilege.
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + self._niceness
            os.setpriority(os.PRIO_PROCESS, thread, min(niceness, NICENESS_MAX))
        while (entry := self._jobs.get()) is not None:
            self._completions.add(_do(*entry))
            # A batch is megabytes, and the next job may be long in coming.
            del entry


def _do(job: Callable[[], Any], then: Then) -> Done:
    try:
        return Done(then, job(), None)
    except BaseException as error:  # noqa: BLE001 - the loop stops the node for it
        return Done(then, None, error)
