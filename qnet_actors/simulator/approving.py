"""Validators that approve other rules while the network runs, and then the first ones again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import structs

from qnet_actors.ledger import approval_account
from qnet_actors.simulator.accounts import Accounts
from qnet_actors.simulator.actions import Actions
from qnet_actors.simulator.scheduler import Scheduler
from qnet_actors.simulator.signing import SimSigner
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.rules import EpochRules, approval_digest, first_rules
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
        accounts: Accounts,
        steps: Sequence[EpochRules],
        seen: Callable[[], set[tuple[int, EpochRules]]],
    ) -> None:
        """`seen`: the epochs that the validators are in, and the rules that they go by."""
        self._scheduler: Final = scheduler
        self._actions: Final = actions
        self._members: Final = tuple(members)
        self._accounts: Final = accounts
        self._steps: Final = list(steps)
        self._seen: Final = seen
        self._begun_ms = 0
        self.done = not self._steps

    def begin(self) -> None:
        if self.done:
            return
        now_ms, seen, wanted = self._scheduler.now_ms, self._seen(), self._steps[0]
        followed = {rules for _, rules in seen}
        if followed == {wanted}:
            del self._steps[0]
            self._begun_ms = now_ms + STAY_MS
            self.done = not self._steps
        elif now_ms >= self._begun_ms and wanted not in followed:
            self._approve(max((epoch for epoch, _ in seen), default=0), wanted)
        self._scheduler.after(LOOK_MS, self.begin)

    def _approve(self, epoch: int, rules: EpochRules) -> None:
        """Everybody approves, unless the chain has it; again where the epoch ended without it."""
        digest = approval_digest(epoch, rules)
        for owner in self._members:
            if self._accounts.get(approval_account(owner.key_id)).key_id != digest:
                nonce = self._actions.nonce(owner)
                self._actions.submit(owner, nonce, Approve(epoch, rules))


def there_and_back(genesis: Genesis) -> list[EpochRules]:
    return [other_rules(genesis), first_rules(genesis.parameters)]
