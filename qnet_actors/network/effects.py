"""The order in which the effects of one room are carried out: the rules of `rooms`, once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from qnet_actors.rooms import Effect, Persist, Run


class EffectQueue:
    """Holds back what stands behind a write, and gathers writes that wait into one.

    Every call returns the effects that may be carried out now, in order.  A `Persist` among them
    is the last: the driver makes its writes durable and then calls `persisted`.  At most one write
    is under way at a time.
    """

    __slots__ = ("_waiting", "_write_end", "_writing")

    def __init__(self) -> None:
        self._waiting: deque[Effect] = deque()
        self._writing = False
        # How many of the waiting effects the write under way releases once it is durable.
        self._write_end = 0

    @property
    def writing(self) -> bool:
        """Whether a write is under way."""
        return self._writing

    @property
    def waiting(self) -> int:
        """How many effects stand behind the write under way."""
        return len(self._waiting)

    def add(self, effects: Iterable[Effect]) -> list[Effect]:
        """Takes effects as the room returned them; `Run` starts whatever waits."""
        ready: list[Effect] = []
        waiting = self._waiting
        for effect in effects:
            if isinstance(effect, Run):
                ready.append(effect)
            elif self._writing or waiting or isinstance(effect, Persist):
                waiting.append(effect)
            else:
                ready.append(effect)
        if waiting and not self._writing:
            ready.append(self._gather())
        return ready

    def persisted(self) -> list[Effect]:
        """The write under way is durable: releases what it held back, up to the next write."""
        if not self._writing:
            raise RuntimeError("no write is under way")
        self._writing = False
        ready: list[Effect] = []
        waiting = self._waiting
        for _ in range(self._write_end):
            effect = waiting.popleft()
            if not isinstance(effect, Persist):
                ready.append(effect)
        while waiting and not isinstance(waiting[0], Persist):
            ready.append(waiting.popleft())
        if waiting:
            ready.append(self._gather())
        return ready

    def _gather(self) -> Persist:
        """One write of all that wait; a write may run ahead of the sends that stand before it."""
        writes: list[Any] = []
        for position, effect in enumerate(self._waiting):
            if isinstance(effect, Persist):
                writes.extend(effect.writes)
                self._write_end = position + 1
        self._writing = True
        return Persist(tuple(writes))
