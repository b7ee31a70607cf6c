"""When to enter a round and when to make the block of it.

Rounds are not skipped: free round jumping without these rules has a published trace in which
nothing is ever committed.  The timing follows Starfish (ePrint 2025/567).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qnet_actors.validators.patience import Patience
from qnet_actors.wire.genesis import Parameters

PRESSED_ROUNDS: Final = 4
RELIEVED_ROUNDS: Final = 2
"""Of the shortest round delay: a batch that takes longer shows saturation, and its end."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the pacemaker needs to know of the DAG and the queues."""

    leader: int = 0
    """The leader of the round before."""
    leader_here: bool = False
    """Its block is here."""
    leader_before: int = 0
    """The leader of the round before that."""
    settled: bool = False
    """Its slot has a quorum of votes, or is skipped."""
    quorum_here: bool = False
    """A quorum of stake has a block in this very round."""
    idle: bool = False
    """Nothing to carry and nothing pending."""
    saturated: bool = False
    """More work waits than one block or the ledger can take."""


class Pacemaker:
    """The round that the next own block is for, and the time for it.

    `round` is entered once the own block of the round before is made and a quorum of that round
    is admitted.
    """

    def __init__(self, parameters: Parameters, last_round: int) -> None:
        """`last_round`: the round of the last own block, 0 where there is none."""
        self._parameters: Final = parameters
        self.last_round = last_round
        """The round of the last own block."""
        self.round = last_round
        """The round entered; equal to `last_round` while the next one is not entered."""
        self.timeout_ms = parameters.leader_timeout_ms
        self.timeouts = 0
        """How many blocks were made without what they should have waited for."""
        self.pressed = False
        """Quorums take long to hold a batch: the validators have more to verify than they can."""
        self._patience: Final = Patience(last_round)
        self._entered_ms = 0
        self._made_ms = 0

    @property
    def waits_for_quorum(self) -> bool:
        """The last own block is made, and the next round is not entered."""
        return self.round == self.last_round

    @property
    def made_ms(self) -> int:
        """When the last own block was made, in this life."""
        return self._made_ms

    def enter(self, quorum_round: int, jump: bool, round_min: int, now_ms: int) -> bool:
        """Enters the next round if the rules let it; returns whether a round was entered.

        `quorum_round` is the highest round with a quorum admitted.  `jump`: the last own block is
        at or below gc_round, or this validator has just synced or lost its memory; then it enters
        the highest round that it can.  `round_min`: nothing may be made below.
        """
        following = quorum_round + 1
        if not jump:
            if quorum_round < self.last_round:
                return False
            following = self.last_round + 1
        if following <= max(self.round, self.last_round) or following < round_min:
            return False
        self.round = following
        self._entered_ms = now_ms
        return True

    def due(self, around: Surroundings, now_ms: int) -> bool:
        """Whether the block of the entered round is to be made now."""
        if self.waits_for_quorum:
            return False
        if around.quorum_here:
            return True
        if now_ms < self._earliest_ms(around):
            return False
        return self._is_ready(around) or now_ms >= self._entered_ms + self.timeout_ms

    def made(self, round_: int, around: Surroundings, now_ms: int) -> None:
        """The own block of `round_` is being made; without what it waits for it was a timeout."""
        self.last_round = self.round = round_
        self._made_ms = now_ms
        if around.quorum_here:
            # Others went on; who is late may well be this validator.
            return
        was_ready = self._is_ready(around)
        patience = self._patience
        if around.leader_here:
            patience.was_ready(around.leader, round_)
        elif patience.waits_for(around.leader, round_):
            patience.was_late(around.leader, round_)
        if not around.settled and patience.waits_for(around.leader_before, round_):
            patience.was_late(around.leader_before, round_)
        if not was_ready:
            self.timeouts += 1
            self.timeout_ms = min(2 * self.timeout_ms, self._parameters.leader_timeout_ms_max)

    def quorum_took(self, quorum_ms: int) -> None:
        """A quorum took so long to hold an own batch; in between, what was found stays."""
        round_delay_ms = self._parameters.round_delay_ms
        if quorum_ms > PRESSED_ROUNDS * round_delay_ms:
            self.pressed = True
        elif quorum_ms < RELIEVED_ROUNDS * round_delay_ms:
            self.pressed = False

    def committed(self) -> None:
        """Something was committed: the timeout is the shortest again."""
        self.timeout_ms = self._parameters.leader_timeout_ms
        self._patience.committed(self.round)

    def wake_ms(self, around: Surroundings) -> int | None:
        """When `due` may become true by time alone."""
        if self.waits_for_quorum:
            return None
        earliest_ms = self._earliest_ms(around)
        if self._is_ready(around):
            return earliest_ms
        return max(earliest_ms, self._entered_ms + self.timeout_ms)

    def _is_ready(self, around: Surroundings) -> bool:
        """Whether all is here that the block of the entered round waits for."""
        waits_for = self._patience.waits_for
        return (around.leader_here or not waits_for(around.leader, self.round)) and (
            around.settled or not waits_for(around.leader_before, self.round)
        )

    def _earliest_ms(self, around: Surroundings) -> int:
        parameters = self._parameters
        if around.idle:
            delay_ms = parameters.round_idle_ms
        elif around.saturated or self.pressed:
            delay_ms = 2 * parameters.round_delay_ms
        else:
            delay_ms = parameters.round_delay_ms
        return self._made_ms + delay_ms
