"""The epoch that a validator is in, by what its ledger holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qnet_actors.ledger import committee_of, read_epoch, rules_of
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.rules import EpochRules, check_known

if TYPE_CHECKING:
    from qnet_actors.ledger import Recovered


@dataclass(frozen=True, slots=True)
class Present:
    """What the rooms of an epoch are made with."""

    committee: Committee
    rules: EpochRules
    previous: Committee | None
    """Of the epoch before, whose batches may not be executed yet; None: there is none."""
    epoch_end: int
    """The last commit of the epoch; 0: not known yet."""
    commit_index: int
    """The last commit executed."""
    last: Commit | None
    """The same, where it is known."""

    def place_of(self, public_key: bytes) -> int | None:
        """The index of a validator's key in the committee; None where it is not of it."""
        keys = [member.public_key for member in self.committee.members]
        return keys.index(public_key) if public_key in keys else None


def present_of(recovered: Recovered[Any], genesis: Genesis) -> Present:
    """The epoch that the ledger stands in; the one before as long as its last block is not final,
    since its committee goes on until then.

    Raises `QnetError(UNSUPPORTED_VERSION)` where the epoch goes by rules that are not known here.
    """
    state, tip = recovered.state, recovered.tip
    epoch = read_epoch(state)
    number, end = epoch.number, epoch.last_commit
    certified = 0 if recovered.certificate is None else recovered.certificate.checkpoint.height
    if number and tip.commit_index == epoch.first_commit and certified < tip.height:
        # Its end is executed, and it must not go on to hand over commits behind that.
        number, end = number - 1, epoch.first_commit
    rules = rules_of(state, genesis, number)
    check_known(number, rules.version)
    return Present(
        committee=committee_of(state, genesis, number),
        rules=rules,
        previous=(committee_of(state, genesis, number - 1) if number == epoch.number > 0 else None),
        epoch_end=end,
        commit_index=tip.commit_index,
        last=recovered.commits[-1] if recovered.commits else None,
    )
