"""May this validator sign: has it forgotten what it signed before?

On every start the peers are asked which rounds of this validator they have.  A block of its own
above its journal means that the journal is not all it wrote.  Then its lost blocks lie below H + 2,
where H is the highest round held causally complete among the answers of a quorum of others: each of
its blocks of round r stood on a quorum of round r - 1, one of them by an honest validator among
those that answer, which holds its own block of round r - 1.

Peers may lie.  A claim counts where stake with an honest validator in it makes it, or where the
block itself arrives; a single claim only delays.  An answer counts for H once its round is held
here too, so that nobody can name a round that does not exist.  An answer whose round never comes,
from less stake than holds an honest validator for certain, is waited for while its peer repeats
itself often enough to have delivered the blocks as well; then it counts for the rounds that came.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from qnet_actors.wire.committee import Committee

CLAIM_WAIT_MS: Final = 5_000
"""How long a claim of lost blocks that comes without the block holds the validator back."""
REPEATS_MAX: Final = 30
"""How often a peer may say where it stands, about once a second, without its round being here."""


class MemoryGuard:
    """Opens once enough peers have answered; shuts again while memory is known to be lost."""

    def __init__(self, committee: Committee, own: int, last_round: int, round_min: int) -> None:
        self._committee: Final = committee
        self._needed: Final = committee.quorum - committee.stakes[own]
        self._last_round = last_round
        self._answered: set[int] = set()
        self._stake = 0
        self._claims: dict[int, int] = {}
        """Peer -> until when its claim is waited for."""
        self._rounds: dict[int, int] = {}
        """Peer -> the round that it held when memory was known to be lost."""
        self._repeats: dict[int, int] = {}
        """Peer -> how often it spoke since only such answers were wanting."""
        self._wanting: frozenset[int] = frozenset()
        """Peers whose round is not here, where all but less than an honest stake's are."""
        self.lost = False
        """Memory is lost and the first safe round not known yet."""
        self.round_min = round_min
        """Nothing may be signed below; 0: no bound."""

    def may_sign(self, now_ms: int) -> bool:
        if self.lost or self._stake < self._needed:
            return False
        return not self._claims or all(now_ms >= until for until in self._claims.values())

    def wake_ms(self, now_ms: int) -> int | None:
        """When a claim runs out."""
        return min((until for until in self._claims.values() if until > now_ms), default=None)

    def signed(self, round_: int) -> None:
        """An own block is made; claims up to its round are no news."""
        self._last_round = max(self._last_round, round_)

    def answered(self, peer: int, your_round: int, round_: int, now_ms: int) -> None:
        """A peer's word: the highest round of own blocks that it has, and the round it holds."""
        if self.lost:
            # Whoever holds nothing may have lost its memory too.
            if round_ > 0:
                self._rounds.setdefault(peer, round_)
            if peer in self._wanting:
                self._repeats[peer] = self._repeats.get(peer, 0) + 1
            return
        if your_round > self._last_round:
            self._claims.setdefault(peer, now_ms + CLAIM_WAIT_MS)
            if self._committee.stake_of(self._claims) >= self._committee.validity:
                self.forgot()
            return
        self._claims.pop(peer, None)
        self._count((peer,))

    def forgot(self) -> None:
        """An own block came that this validator does not know: its memory is lost."""
        if not self.lost:
            self.lost = True
            self._claims.clear()
            self._rounds.clear()
            self._repeats.clear()

    def admitted(self, highest_round: int) -> bool:
        """The DAG has grown; returns whether the first safe round is known from now on."""
        if not self.lost:
            return False
        stake_of = self._committee.stake_of
        held = [peer for peer, round_ in self._rounds.items() if round_ <= highest_round]
        wanting = frozenset(self._rounds) - frozenset(held)
        few = stake_of(wanting) < self._committee.validity
        self._wanting = wanting if few else frozenset()
        if stake_of(held) < self._committee.quorum:
            if not few or any(self._repeats.get(peer, 0) < REPEATS_MAX for peer in wanting):
                return False
            if stake_of(self._rounds) < self._committee.quorum:
                return False
            # An honest peer's blocks would have come by now: whatever these hold is here.
            held = list(self._rounds)
        rounds = [min(self._rounds[peer], highest_round) for peer in held]
        self.round_min = max(self.round_min, max(rounds) + 2)
        self.lost = False
        self._count(held)
        return True

    def _count(self, peers: Iterable[int]) -> None:
        self._answered.update(peers)
        self._stake = self._committee.stake_of(self._answered)
