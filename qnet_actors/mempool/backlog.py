"""How many transactions a shard takes on: what is executed in a given time, and no more.

A bound on their number alone is minutes of work on a slow network and nothing on a fast one.
Whoever is refused can come again in a second; whoever stands at the end of a long queue waits for
all of it, also when the load is long over.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from qnet_actors.mempool.settings import MempoolSettings

_SLOT_MS: Final = 1_000
_SLOTS: Final = 4
"""The rate is the mean of so many seconds: blocks come in bursts, and the best second of several
is one in which the work of two was done."""
_SEALED_SHARE: Final = (2, 3)
"""Of what is taken on, as much may be in batches that are not executed."""


class Backlog:
    """Follows what leaves the pool with executed blocks."""

    def __init__(self, settings: MempoolSettings) -> None:
        self._settings = settings
        self._slots: deque[tuple[int, int]] = deque(maxlen=_SLOTS)
        """(second, transactions), seconds rising."""
        self.capacity = settings.backlog_transactions_min
        """How many may be on their way from the client to execution, at the last look."""

    def executed(self, count: int, now_ms: int) -> None:
        """So many of the shard's transactions came to their end with a block."""
        second = now_ms // _SLOT_MS
        if self._slots and self._slots[-1][0] == second:
            count += self._slots.pop()[1]
        self._slots.append((second, count))

    def look(self, now_ms: int) -> None:
        """What was executed of late, seen from now."""
        since = now_ms // _SLOT_MS - _SLOTS
        recent = sum(count for second, count in self._slots if second > since)
        rated = recent * self._settings.backlog_wait_ms // (_SLOTS * _SLOT_MS)
        self.capacity = max(self._settings.backlog_transactions_min, rated)

    @property
    def sealed_max(self) -> int:
        """How many of them may be in own batches."""
        part, whole = _SEALED_SHARE
        return max(1, self.capacity * part // whole)
