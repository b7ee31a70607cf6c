"""Validators that join a running network and leave it again, by actions like anybody's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from qnet_actors.simulator.actions import Actions
from qnet_actors.simulator.scheduler import Scheduler
from qnet_actors.simulator.signing import SimSigner
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.transactions import Unstake, register_validator

LOOK_MS: Final = 250
STAY_MS: Final = 3_000
"""How long the joiners are of the committee before they leave."""
STAKE: Final = 10


class Turnover:
    """Has every joiner register, waits until all validators see them, and has them leave."""

    def __init__(
        self,
        scheduler: Scheduler,
        actions: Actions,
        joiners: Sequence[SimSigner],
        owners: Sequence[SimSigner],
    ) -> None:
        self._scheduler: Final = scheduler
        self._actions: Final = actions
        self._pairs: Final = list(zip(joiners, owners, strict=True))
        self._leave_ms: int | None = None
        self.sizes: set[int] = set()
        """Of all the committees that there were."""
        self.done = not self._pairs
        """All have come and gone."""

    def begin(self, seen: Callable[[], Sequence[Committee]]) -> None:
        """`seen`: the committees that the validators are in."""
        if self.done:
            return
        committees = seen()
        self.sizes |= {len(committee) for committee in committees}
        # How many there are says nothing: a liar is punished and leaves meanwhile.
        joined = {owner.key_id for _, owner in self._pairs}
        present = [joined & {m.reward for m in committee.members} for committee in committees]
        now_ms = self._scheduler.now_ms
        if self._leave_ms is None:
            for joiner, owner in self._pairs:
                register = register_validator(joiner, self._actions.chain_id, owner.key_id, STAKE)
                self._actions.submit(owner, 0, register)
            if present and all(owners == joined for owners in present):
                self._leave_ms = now_ms + STAY_MS
        elif now_ms >= self._leave_ms:
            for _, owner in self._pairs:
                self._actions.submit(owner, 1, Unstake(STAKE))
            self.done = bool(present) and not any(present)
        self._scheduler.after(LOOK_MS, self.begin, seen)
