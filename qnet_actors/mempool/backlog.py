"""How many transactions a shard takes on: what is executed in a given time, and no more.

A bound on their number alone is minutes of work on a slow network and nothing on a fast one.
Whoever is refused can come again in a second; whoever stands at the end of a long queue waits for
all of it, also when the load is long over.

A rate is what the network can do only while there is work enough: with half the load, half as much
is executed.  So a lower rate than the best counts only where a good part of what may be taken on is
under way.  Else a bound that follows the load down refuses some of it at each short stall.

Where batches take long to be executed however few they are, that time has to grow with theirs: of
work for a second and a half, two thirds of it sealed, only half would be executed in the two
seconds of a slow link, then half of that, down to the least.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from qnet_actors.mempool.settings import MempoolSettings

_SLOT_MS: Final = 1_000
_SLOTS: Final = 4
"""The rate is the mean of so many seconds, or of twice as many where that is more.  Blocks come in
bursts: the best second of several is one in which the work of two was done, and under an overload
one burst may have left the four seconds before the next one comes."""
_AGE_MS: Final = 4_000
_AGES: Final = 32
"""How long execution takes is the lowest mean of so many times four seconds: a queue is shorter at
times, or was before the load, and a long way is not.  A longer memory takes a way that has become
long for a queue, and a shorter one a queue of a minute for a long way."""
_WAIT_FACTOR: Final = (5, 2)
"""Two thirds of it are two thirds more than what was under way, so that the rate can rise also
where some batches take far longer than others."""
_LOADED_SHARE: Final = (1, 2)
"""So much of what may be taken on is under way where the rate is what can be done, not what was
asked for: with three seconds of work, a second and a half of it."""
_SEALED_SHARE: Final = (2, 3)
"""Of what is taken on, as much may be in batches that are not executed."""


class Backlog:
    """Follows what leaves the pool with executed blocks."""

    def __init__(self, settings: MempoolSettings) -> None:
        self._settings = settings
        self._slots: deque[tuple[int, int]] = deque(maxlen=2 * _SLOTS)
        """(second, transactions), seconds rising."""
        self._ages: deque[tuple[int, int, int]] = deque(maxlen=_AGES + 1)
        """(four seconds, batches, milliseconds that they took in all), the first rising."""
        self._proven = 0
        """Executed in twice `_SLOTS` seconds, when that was last all that could be."""
        self.capacity = settings.backlog_transactions_min
        """How many may be on their way from the client to execution, at the last look."""

    def executed(self, count: int, now_ms: int, ages_ms: Sequence[int] = ()) -> None:
        """So many of the shard's transactions came to their end with a block.

        `ages_ms`: how long ago the own batches in it were sent.
        """
        second = now_ms // _SLOT_MS
        if self._slots and self._slots[-1][0] == second:
            count += self._slots.pop()[1]
        self._slots.append((second, count))
        if ages_ms:
            at, batches, total_ms = now_ms // _AGE_MS, len(ages_ms), sum(ages_ms)
            if self._ages and self._ages[-1][0] == at:
                _, before, before_ms = self._ages.pop()
                batches, total_ms = batches + before, total_ms + before_ms
            self._ages.append((at, batches, total_ms))

    def look(self, now_ms: int, under_way: int) -> None:
        """What was executed of late, seen from now, with so many taken on and not executed."""
        second = now_ms // _SLOT_MS
        recent = sum(count for at, count in self._slots if at > second - _SLOTS)
        before = sum(count for at, count in self._slots if second - 2 * _SLOTS < at)
        recent = max(2 * recent, before)
        part, whole = _LOADED_SHARE
        if recent > self._proven or under_way * whole >= self.capacity * part:
            self._proven = recent
        rated = self._proven * self.wait_ms(now_ms) // (2 * _SLOTS * _SLOT_MS)
        self.capacity = max(self._settings.backlog_transactions_min, rated)

    def wait_ms(self, now_ms: int) -> int:
        """In what time all that is taken on is to be executed."""
        settings, current = self._settings, now_ms // _AGE_MS
        # Of the current four seconds there may be one batch only, which says little.
        ages_ms = [
            total_ms // batches
            for at, batches, total_ms in self._ages
            if current - _AGES <= at < current
        ]
        part, whole = _WAIT_FACTOR
        stretched_ms = min(ages_ms, default=0) * part // whole
        return max(settings.backlog_wait_ms, min(stretched_ms, settings.backlog_wait_ms_max))

    @property
    def sealed_max(self) -> int:
        """How many of them may be in own batches."""
        part, whole = _SEALED_SHARE
        return max(1, self.capacity * part // whole)
