"""What an included transaction does to the registry: all that it asks for, or nothing.

A validator is registered, stakes and unstakes, its owner approves rules, equivocators
are punished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from qnet_actors.ledger.names import (
    BURNT,
    HEAD,
    approval_account,
    decided_account,
    key_account,
    offence_account,
    slot_account,
    unbonding_account,
    validator_account,
)
from qnet_actors.ledger.registry import Epoch, Registry, key_rows, u64
from qnet_actors.ledger.values import Draft, Given
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import quorum_of
from qnet_actors.wire.hashing import ZERO_DIGEST
from qnet_actors.wire.limits import U64_MAX
from qnet_actors.wire.rules import (
    EpochRules,
    approval_digest,
    check_change,
    pack_rules,
)
from qnet_actors.wire.schemes import (
    CONTEXT_REGISTRATION,
    Scheme,
    Verifier,
    dag_context,
    key_id,
)
from qnet_actors.wire.transactions import (
    Approve,
    RegisterValidator,
    RegistryAction,
    ReportEquivocation,
    Stake,
    Unstake,
    registration_digest,
)

SLASH_DIVISOR: Final = 20
"""An equivocator loses a twentieth of its stake, bonded and unbonding."""
REPORTER_DIVISOR: Final = 10
"""A tenth of what it loses is the reporter's; the rest is nobody's any more."""


def is_punishable(epoch: int, present: int, unbonding_epochs: int) -> bool:
    """Whether the stake of an epoch may still be held: who got it back, and perhaps staked anew, is
    not punished for a key that was given up or sold long ago."""
    return epoch <= present <= epoch + unbonding_epochs


@dataclass(slots=True)
class ValidatorActions:
    """What the transactions of a block do, one after the other."""

    registry: Registry
    verifier: Verifier
    _opening: dict[bytes, Given] = field(default_factory=dict)
    _present_stakes: dict[bytes, int] = field(default_factory=dict)

    def apply(self, sender: bytes, action: RegistryAction) -> Code:
        """Does what an included transaction asks for, wholly or not at all; returns its status."""
        registry = self.registry
        # Where no epoch ends, what is staked or punished here would never be paid out again.
        if not registry.genesis.parameters.epoch_commits_min:
            return Code.COMMITTEE_FIXED
        under = registry.accounts
        draft = Draft(under, {} if registry.epoch.is_open else self._opened())
        registry.accounts = draft
        try:
            status = self._judge(sender, action)
        finally:
            registry.accounts = under
        if status == Code.SUCCESS:
            draft.commit()
        return status

    def _judge(self, sender: bytes, action: RegistryAction) -> Code:
        match action:
            case RegisterValidator():
                return self._register(sender, action)
            case Stake(amount=amount):
                return self._stake(sender, amount)
            case Unstake(amount=amount):
                return self._unstake(sender, amount)
            case Approve(epoch=epoch, rules=rules):
                return self._approve(sender, epoch, rules)
            case ReportEquivocation():
                return self._punish(sender, action)
            case _:
                assert_never(action)

    def _opened(self) -> dict[bytes, Given]:
        """What the first action takes over from the genesis: its validators."""
        registry = self.registry
        # Kept for the block: a block may hold many actions that fail, and so open nothing.
        opening = self._opening
        if opening:
            return opening
        opening[HEAD] = Given(U64_MAX, Epoch(is_open=True).packed(), 0)
        for slot, member in enumerate(registry.genesis.members):
            validator = validator_account(member.reward)
            name = key_id(member.scheme, member.public_key)
            paid = opening[validator].paid if validator in opening else 0
            opening[slot_account(slot)] = Given(U64_MAX, member.reward, 0)
            opening[validator] = Given(U64_MAX, name, paid + member.stake)
            for address, data in key_rows(member.reward, member.scheme, member.public_key):
                opening[address] = Given(U64_MAX, data, 0)
        return opening

    def _register(self, owner: bytes, action: RegisterValidator) -> Code:
        registry, accounts = self.registry, self.registry.accounts
        name = key_id(action.scheme, action.public_key)
        holder = accounts[key_account(name)].key_id
        if action.scheme not in registry.genesis.schemes or holder not in (ZERO_DIGEST, owner):
            return Code.VALIDATOR_KEY_IN_USE
        if accounts[owner].balance < action.stake:
            return Code.INSUFFICIENT_BALANCE
        validator = accounts[validator_account(owner)]
        if validator.balance + action.stake < registry.parameters.stake_min:
            return Code.STAKE_TOO_LOW
        if validator.balance + action.stake > U64_MAX:
            return Code.BALANCE_OVERFLOW
        if validator.key_id == ZERO_DIGEST:
            free = registry.find_slot(ZERO_DIGEST)
            if free is None:
                return Code.REGISTRY_FULL
            registry.put(free, owner)
        if not self._is_proved(owner, action):
            return Code.KEY_NOT_PROVED
        if holder == ZERO_DIGEST:
            registry.keep_key(owner, action.scheme, action.public_key)
        registry.put(validator_account(owner), name)
        registry.move(owner, validator_account(owner), action.stake)
        registry.change()
        return Code.SUCCESS

    def _stake(self, owner: bytes, amount: int) -> Code:
        registry, accounts = self.registry, self.registry.accounts
        validator = accounts[validator_account(owner)]
        if validator.key_id == ZERO_DIGEST:
            return Code.NOT_A_VALIDATOR
        if accounts[owner].balance < amount:
            return Code.INSUFFICIENT_BALANCE
        if validator.balance + amount > U64_MAX:
            return Code.BALANCE_OVERFLOW
        registry.move(owner, validator_account(owner), amount)
        registry.change()
        return Code.SUCCESS

    def _unstake(self, owner: bytes, amount: int) -> Code:
        registry, accounts = self.registry, self.registry.accounts
        validator, unbonding = (
            accounts[validator_account(owner)],
            accounts[unbonding_account(owner)],
        )
        left = validator.balance - amount
        if left < 0 or 0 < left < registry.parameters.stake_min:
            return Code.STAKE_TOO_LOW
        if not amount and not unbonding.balance:
            return Code.NOT_A_VALIDATOR
        if unbonding.balance and registry.epoch.number >= int.from_bytes(
            unbonding.key_id[:8], "big"
        ):
            if accounts[owner].balance + unbonding.balance > U64_MAX:
                return Code.BALANCE_OVERFLOW
            registry.move(unbonding_account(owner), owner, unbonding.balance)
        if amount:
            self._unbond(owner, amount)
        return Code.SUCCESS

    def _unbond(self, owner: bytes, amount: int) -> None:
        """Stake leaves the next committee; all that unbonds waits for the newest of it."""
        registry, accounts = self.registry, self.registry.accounts
        registry.move(validator_account(owner), unbonding_account(owner), amount)
        # It counts to the end of this epoch, and is held for `unbonding_epochs` after that.
        release = registry.epoch.number + 1 + registry.parameters.unbonding_epochs
        registry.put(unbonding_account(owner), u64(release).ljust(32, b"\0"))
        if not accounts[validator_account(owner)].balance:
            registry.put(validator_account(owner), ZERO_DIGEST)
            slot = registry.find_slot(owner)
            if slot is not None:
                registry.put(slot, ZERO_DIGEST)
        registry.change()

    def _approve(self, owner: bytes, number: int, rules: EpochRules) -> Code:
        registry, accounts = self.registry, self.registry.accounts
        epoch, stakes = registry.epoch, self._stakes()
        if number != epoch.number:
            return Code.OTHER_EPOCH
        if owner not in stakes:
            return Code.NOT_OF_COMMITTEE
        try:
            check_change(registry.rules(epoch.number), rules)
        except QnetError as error:
            return error.code
        digest = approval_digest(epoch.number, rules)
        registry.put(approval_account(owner), digest)
        accounts.fetch([approval_account(other) for other in stakes])
        approved = sum(
            stake
            for other, stake in stakes.items()
            if accounts[approval_account(other)].key_id == digest
        )
        if approved >= quorum_of(sum(stakes.values())):
            for row, data in enumerate(pack_rules(rules)):
                registry.put(decided_account(row), data)
            registry.epoch = replace(registry.epoch, is_changed=True, is_decided=True)
        return Code.SUCCESS

    def _punish(self, reporter: bytes, report: ReportEquivocation) -> Code:
        registry, accounts = self.registry, self.registry.accounts
        name = key_id(report.scheme, report.public_key)
        owner = accounts[key_account(name)].key_id
        offence = offence_account(name, report.equivocation.epoch)
        if owner == ZERO_DIGEST or not is_punishable(
            report.equivocation.epoch, registry.epoch.number, registry.parameters.unbonding_epochs
        ):
            return Code.EVIDENCE_REFUSED
        if accounts[offence].key_id != ZERO_DIGEST:
            return Code.ALREADY_PUNISHED
        if not self._is_proof(report):
            return Code.EVIDENCE_REFUSED
        registry.put(offence, reporter)
        taken = 0
        for held in (validator_account(owner), unbonding_account(owner)):
            part = accounts[held].balance // SLASH_DIVISOR
            registry.move(held, BURNT, part)
            taken += part
        reward = taken // REPORTER_DIVISOR
        if accounts[reporter].balance + reward <= U64_MAX:
            registry.move(BURNT, reporter, reward)
        bonded = accounts[validator_account(owner)].balance
        if bonded:
            self._unbond(owner, bonded)
        return Code.SUCCESS

    def _is_proof(self, report: ReportEquivocation) -> bool:
        rows = report.equivocation.rows()
        return self._are_signed(report, rows, dag_context(self.registry.genesis.chain_id()))

    def _is_proved(self, owner: bytes, action: RegisterValidator) -> bool:
        chain_id = self.registry.genesis.chain_id()
        digest = registration_digest(chain_id, owner, action.scheme, action.public_key)
        return self._are_signed(action, [(digest, action.proof)], CONTEXT_REGISTRATION)

    def _are_signed(
        self,
        key: RegisterValidator | ReportEquivocation,
        rows: Sequence[tuple[bytes, bytes]],
        context: bytes,
    ) -> bool:
        """Whether the key of an action signed all of (message, signature)."""
        verdicts = self.verifier.verify(
            [key.public_key] * len(rows),
            [message for message, _ in rows],
            [signature for _, signature in rows],
            context,
            Scheme(key.scheme),
        )
        return bool(verdicts.all())

    def _stakes(self) -> dict[bytes, int]:
        """Owner -> stake of the present committee, whose keys need not be read."""
        registry = self.registry
        # Kept for the block: no action changes it, and anybody may send many approvals.
        stakes = self._present_stakes
        if not stakes:
            number = registry.epoch.number
            if number:
                stakes.update({owner: stake for _, stake, owner in registry.members(number)})
            else:
                stakes.update({member.reward: member.stake for member in registry.genesis.members})
        return stakes


def accounts_of(sender: bytes, action: RegistryAction) -> list[bytes]:
    """Accounts that an action will need, as far as it says so itself, to be read at once."""
    names = [HEAD, validator_account(sender), unbonding_account(sender)]
    if isinstance(action, Approve):
        names.append(approval_account(sender))
    if isinstance(action, RegisterValidator | ReportEquivocation):
        names.append(key_account(key_id(action.scheme, action.public_key)))
    if isinstance(action, ReportEquivocation):
        names.append(
            offence_account(key_id(action.scheme, action.public_key), action.equivocation.epoch)
        )
    return names
