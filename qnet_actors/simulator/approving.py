"""Validators that approve other rules while the network runs, and then the first ones again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import structs

from qnet_actors.simulator.actions import Actions
from qnet_actors.simulator.scheduler import Scheduler
from qnet_actors.simulator.signing import SimSigner
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.rules import EpochRules, first_rules
from qnet_actors.wire.transactions import Approve

LOOK_MS: Final = 250
STAY_MS: Final = 2_000
"""How long the network goes by the rules before the next ones are approved."""


def other_rules(genesis: Genesis) -> EpochRules:
    """Rules whose every change makes validators that do not follow it fall apart."""
    parameters = genesis.parameters
    return EpochRules(
        1,
        structs.replace(
            parameters,
            round_delay_ms=2 * parameters.round_delay_ms,
            block_interval_ms=3 * parameters.block_interval_ms,
            block_size_bytes_max=parameters.block_size_bytes_max // 64,
        ),
    )


class Approving:
    """Has all approve each of several rules, one after the other, until all go by them."""

    def __init__(
        self,
        scheduler: Scheduler,
        actions: Actions,
        members: Sequence[SimSigner],
        steps: Sequence[EpochRules],
        seen: Callable[[], set[EpochRules]],
    ) -> None:
        """`seen`: the rules that the validators go by."""
        self._scheduler: Final = scheduler
        self._actions: Final = actions
        self._members: Final = tuple(members)
        self._steps: Final = list(steps)
        self._seen: Final = seen
        self._begun_ms = 0
        self._nonces: dict[bytes, int] = {}
        """Owner -> the nonce of its approval of the step that is under way."""
        self.done = not self._steps

    def begin(self) -> None:
        if self.done:
            return
        now_ms = self._scheduler.now_ms
        if self._seen() == {self._steps[0]}:
            del self._steps[0]
            self._nonces.clear()
            self._begun_ms = now_ms + STAY_MS
            self.done = not self._steps
        elif now_ms >= self._begun_ms:
            for owner in self._members:
                nonce = self._nonces.setdefault(owner.key_id, self._actions.nonce(owner))
                self._actions.submit(owner, nonce, Approve(self._steps[0]))
        self._scheduler.after(LOOK_MS, self.begin)


def there_and_back(genesis: Genesis) -> list[EpochRules]:
    return [other_rules(genesis), first_rules(genesis.parameters)]
