"""How long a gateway waits for an answer, in time in which it could have read one."""

from __future__ import annotations

import asyncio
import math
from typing import Final

TICK_S: Final = 0.25
TICKS_AFTER_STALL: Final = 4
STALLS_MAX: Final = 8
"""In one wait; a process that stalls all the time has to give up too."""


class Patience:
    """Expires `limit`, which is entered next, after `timeout_s`.

    A process that is suspended, or swapped out, finds its timers over before it has read what came
    meanwhile.  One deadline would then blame every validator at once for the silence, so the time
    is counted in ticks: one that comes much too late does not count, and leaves about a second for
    the answers to be read.
    """

    def __init__(self, limit: asyncio.Timeout, timeout_s: float) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._left = max(1, math.ceil(timeout_s / TICK_S))
        self._tick_s = timeout_s / self._left
        self._stalls = 0
        self._wait()

    def end(self) -> None:
        """Nobody waits any more."""
        self._timer.cancel()

    def _wait(self) -> None:
        self._due_s = self._loop.time() + self._tick_s
        self._timer = self._loop.call_at(self._due_s, self._tick)

    def _tick(self) -> None:
        now_s = self._loop.time()
        if now_s - self._due_s > TICK_S and self._stalls < STALLS_MAX:
            self._stalls += 1
            self._left = max(self._left, TICKS_AFTER_STALL)
        else:
            self._left -= 1
        if self._left:
            self._wait()
        elif not self._limit.expired():
            self._limit.reschedule(now_s)
