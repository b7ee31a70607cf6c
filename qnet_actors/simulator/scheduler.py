"""The virtual clock: calls in order of time, and of their scheduling within one millisecond."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

CALLS_PER_MS_MAX: Final = 200_000
"""Calls within one virtual millisecond; more is a loop that time never leaves."""


class Stuck(Exception):
    """Virtual time stands still: something keeps scheduling work for the present."""


class Scheduler:
    """A heap of calls.  Nothing in it depends on the wall clock, on threads or on hash order."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.calls = 0
        """How many calls have been made."""
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._stopped = False

    def at(self, time_ms: int, call: Callable[..., None], *arguments: Any) -> None:
        """Calls at `time_ms`, or after what is due already where that is past."""
        self._sequence += 1
        heappush(self._heap, (max(time_ms, self.now_ms), self._sequence, call, arguments))

    def after(self, delay_ms: int, call: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now_ms + delay_ms, call, *arguments)

    def stop(self) -> None:
        """Makes `run_until` return after the present call."""
        self._stopped = True

    def run_until(self, end_ms: int) -> None:
        """Makes every call due up to `end_ms` and moves the clock there.

        Raises `Stuck` where one millisecond takes more than `CALLS_PER_MS_MAX` calls.
        """
        heap = self._heap
        within = 0
        while heap and heap[0][0] <= end_ms and not self._stopped:
            time_ms, _, call, arguments = heappop(heap)
            if time_ms != self.now_ms:
                self.now_ms, within = time_ms, 0
            within += 1
            if within > CALLS_PER_MS_MAX:
                raise Stuck(f"{within} calls at {time_ms} ms")
            self.calls += 1
            call(*arguments)
        if not self._stopped:
            self.now_ms = max(self.now_ms, end_ms)
