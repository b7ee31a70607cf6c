"""Which leaders are not waited for: those for which the timeout passed of late.

A leader that is slow or gone costs each of the others a whole timeout in every round that it leads.
So each validator remembers for itself, as in leader reputation (Carousel, arXiv 2110.00960;
HammerHead, arXiv 2309.12713), but changes no schedule: the commit rule knows nothing of this, and a
leader block that comes in time without being waited for is voted for as any other.

Liveness stays that of the timeout alone.  Once `STALLED_ROUNDS` pass without a commit all is
forgotten, and until the next commit nothing is noted: everybody is waited for, for a timeout that
doubles.  So whatever an adversary does to make honest leaders look slow ends by itself, after a
few rounds that are no longer than others.
"""

from __future__ import annotations

from typing import Final

STALLED_ROUNDS: Final = 8
"""More than commits are apart while a few leaders in a row are skipped."""
WINDOW_ROUNDS: Final = 64
DOUBLINGS_MAX: Final = 3


class Patience:
    """Windows end at rounds that are the same for all, so that all wait for a leader together.

    Otherwise each would try the leader again in a round of its own, at everybody's cost.
    A window is twice as long each time that the leader is late at the first try after it.
    """

    def __init__(self, round_: int) -> None:
        """`round_`: where this validator stands."""
        self._committed_round = round_
        """The round that this validator was in at the last commit."""
        self._until: dict[int, int] = {}
        """Leader -> the first round in which it is waited for again."""
        self._doublings: dict[int, int] = {}

    def waits_for(self, leader: int, round_: int) -> bool:
        """Whether a block of `round_` is to wait for what `leader` leads."""
        return self._is_stalled(round_) or round_ >= self._until.get(leader, 0)

    def was_late(self, leader: int, round_: int) -> None:
        """The timeout of a block of `round_` passed for this leader."""
        if self._is_stalled(round_):
            self._until.clear()
            self._doublings.clear()
            return
        doublings = self._doublings.get(leader, 0)
        window = WINDOW_ROUNDS << doublings
        self._until[leader] = (round_ // window + 1) * window
        self._doublings[leader] = min(doublings + 1, DOUBLINGS_MAX)

    def was_ready(self, leader: int, round_: int) -> None:
        """A block of `round_` did not have to wait for the timeout for this leader."""
        if self.waits_for(leader, round_):
            self._doublings.pop(leader, None)

    def committed(self, round_: int) -> None:
        """Something was committed while this validator stood in `round_`."""
        if self._is_stalled(round_):
            self._until.clear()
            self._doublings.clear()
        self._committed_round = round_

    def _is_stalled(self, round_: int) -> bool:
        return round_ - self._committed_round > STALLED_ROUNDS
