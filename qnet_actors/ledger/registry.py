"""The validators of the next epoch, their stake, and when the present epoch ends.

All of it stands in accounts whose addresses are hashes that nobody holds a key for, so the state
root proves it like any balance, and snapshots, partitions and write sets know nothing of it.  Money
is a balance; everything else is in the 32 bytes of the key id.
Their nonce is the last there is, so nothing is ever sent from them.

    head             epoch, first commit, last commit (0: not known yet), flags; u64 each
    slot i           the owner of the validator in a place of the registry; zeros: free
    validator owner  balance: bonded stake; key id of its validator key; zeros: not registered
    unbonding owner  balance; the epoch in which it is paid out
    key k            the owner who registered it
    chunk k, i       scheme and public key of a key id, 32 bytes at a time
    offence k, e     who reported the key's equivocation in epoch e
    seed p           of the leader schedule of the present epoch and the one before: p is the
                     epoch's number modulo 2, since a restart may still need the one before
    member p, i      validator key id, stake and owner of their committees, an account each
    committee p      the digest of these committees, which is how a light client learns of them
    approval owner   the digest of what the owner approved last, and of the epoch it is for
    decided i        the rules of the next epoch in rows, once a quorum of stake approved them
    rules p, i       the rules of the present epoch and the one before, once any were approved
    burnt            what was taken from equivocators

Nothing is written before the first action of this kind.  Until then the genesis speaks; its stakes
become balances with that action.  Whoever pays to a validator's account adds to its stake.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, assert_never

import numpy as np

from qnet_actors.ledger.names import (
    BURNT,
    HEAD,
    approval_account,
    chunk_account,
    decided_account,
    key_account,
    member_account,
    member_accounts,
    offence_account,
    seed_account,
    slot_account,
    unbonding_account,
    validator_account,
)
from qnet_actors.ledger.outcome import Reader
from qnet_actors.ledger.values import AccountMap, Accounts, Draft, Given
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee, Member, committee_account, quorum_of
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.genesis import Genesis, Parameters
from qnet_actors.wire.hashing import EPOCH_SEED, ZERO_DIGEST, hash32
from qnet_actors.wire.limits import U64_MAX, VALIDATORS_MAX
from qnet_actors.wire.rules import (
    EpochRules,
    approval_digest,
    check_change,
    first_rules,
    pack_rules,
    rules_account,
    unpack_head,
    unpack_rules,
)
from qnet_actors.wire.schemes import (
    CONTEXT_REGISTRATION,
    SCHEME_SIZES,
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
_HEAD: Final = struct.Struct(">4Q")
_OPEN: Final = 1
_CHANGED: Final = 2
_RULED: Final = 4
_DECIDED: Final = 8


@dataclass(frozen=True, slots=True)
class Epoch:
    """Where the present epoch stands."""

    number: int = 0
    first_commit: int = 0
    """The last commit of the epoch before."""
    last_commit: int = 0
    """The commit with which the epoch ends; 0: not known yet."""
    is_open: bool = False
    """Whether the registry is written at all."""
    is_changed: bool = False
    """Whether the next epoch is to have another committee or other rules."""
    is_ruled: bool = False
    """Whether rules were ever approved; else the genesis' parameters hold."""
    is_decided: bool = False
    """Whether the rules of the next epoch are approved."""

    def packed(self) -> bytes:
        flags = _OPEN * self.is_open | _CHANGED * self.is_changed
        flags |= _RULED * self.is_ruled | _DECIDED * self.is_decided
        return _HEAD.pack(self.number, self.first_commit, self.last_commit, flags)

    def end_of(self, number: int) -> int:
        """The last commit of an epoch, this one or the one before; 0: not known yet."""
        return self.last_commit if number == self.number else self.first_commit

    def is_due(self, commit_index: int, commits_min: int) -> bool:
        """Whether a block that ends with this commit does something to the epoch."""
        if self.last_commit:
            return commit_index >= self.last_commit
        if not commits_min or not self.is_changed:
            return False
        return commit_index >= self.first_commit + commits_min


def _unpack(key_id: bytes) -> Epoch:
    number, first, last, flags = _HEAD.unpack(key_id)
    bits = [bool(flags & bit) for bit in (_OPEN, _CHANGED, _RULED, _DECIDED)]
    return Epoch(number, first, last, *bits)


def read_epoch(reader: Reader) -> Epoch:
    """The epoch as of the block before."""
    head = reader.read(np.frombuffer(HEAD, dtype=np.uint8).reshape(1, 32))
    return _unpack(head.key_ids[0].tobytes())


def ends_epoch(epoch: int, written: WriteSet) -> bool:
    """Whether a block of an epoch is its last, by what the block wrote."""
    at = written.addresses.find(HEAD)
    while at >= 0 and at % 32:
        at = written.addresses.find(HEAD, at + 1)
    return at >= 0 and _unpack(written.key_ids[at : at + 32]).number > epoch


def committee_of(reader: Reader, genesis: Genesis, number: int | None = None) -> Committee:
    """The committee of the epoch that the state stands in, or of the epoch before that."""
    present = read_epoch(reader).number
    number = present if number is None else number
    if not present - 1 <= number <= present:
        raise ValueError(f"the committee of epoch {number} in a state of epoch {present}")
    if not number:
        return genesis.committee()
    return Registry(Accounts(reader), genesis).committee(number)


def rules_of(reader: Reader, genesis: Genesis, number: int | None = None) -> EpochRules:
    """The rules of the epoch that the state stands in, or of the epoch before that."""
    present = read_epoch(reader).number
    number = present if number is None else number
    if not present - 1 <= number <= present:
        raise ValueError(f"the rules of epoch {number} in a state of epoch {present}")
    return Registry(Accounts(reader), genesis).rules(number)


def validator_keys(reader: Reader, genesis: Genesis) -> tuple[tuple[int, bytes], ...]:
    """(scheme, public key) of everybody who takes part: those of the present committee and of the
    one before it, and whoever is registered for the next."""
    epoch = read_epoch(reader)
    committees = [committee_of(reader, genesis, epoch.number)]
    if epoch.number:
        committees.append(committee_of(reader, genesis, epoch.number - 1))
    keys = [(m.scheme, m.public_key) for committee in committees for m in committee.members]
    if epoch.is_open:
        keys += Registry(Accounts(reader), genesis).registered()
    return tuple(dict.fromkeys(keys))


def is_punishable(epoch: int, present: int, unbonding_epochs: int) -> bool:
    """Whether the stake of an epoch may still be held: who got it back, and perhaps staked anew, is
    not punished for a key that was given up or sold long ago."""
    return epoch <= present <= epoch + unbonding_epochs


@dataclass(slots=True)
class Registry:
    """The registry over the accounts of a block that is being executed."""

    accounts: AccountMap
    genesis: Genesis
    verifier: Verifier | None = None
    _opening: dict[bytes, Given] = field(default_factory=dict)
    _present_stakes: dict[bytes, int] = field(default_factory=dict)

    def apply(self, sender: bytes, action: RegistryAction) -> Code:
        """Does what an included transaction asks for, wholly or not at all; returns its status."""
        # Where no epoch ends, what is staked or punished here would never be paid out again.
        if not self.genesis.parameters.epoch_commits_min:
            return Code.COMMITTEE_FIXED
        under = self.accounts
        draft = Draft(under, {} if self.epoch.is_open else self._opened())
        self.accounts = draft
        try:
            status = self._judge(sender, action)
        finally:
            self.accounts = under
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

    def end_block(self, commit: Commit) -> None:
        """A block ends with `commit`: the epoch's end is fixed, or is here."""
        epoch = self.epoch
        if not (epoch.is_changed or epoch.last_commit):
            # As nearly always: what follows reads more of the state.
            return
        parameters = self.rules(epoch.number).parameters
        if not epoch.is_due(commit.index, parameters.epoch_commits_min):
            return
        if not epoch.last_commit:
            self.epoch = replace(epoch, last_commit=commit.index + parameters.commit_lag)
            return
        number = epoch.number + 1
        seed = hash32(EPOCH_SEED, self.genesis.chain_id(), _u64(number), commit.digest())
        self._put(seed_account(number), seed)
        is_ruled = epoch.is_ruled or epoch.is_decided
        rules = first_rules(self.genesis.parameters)
        if is_ruled:
            before = decided_account if epoch.is_decided else partial(rules_account, epoch.number)
            rows = self._rows(before)
            self.accounts.fetch([rules_account(number, row) for row in range(len(rows))])
            for row, data in enumerate(rows):
                self._put(rules_account(number, row), data)
            rules = unpack_rules(rows)
        self._elect(number, rules.parameters.stake_min)
        self._put(committee_account(number), self.committee(number).digest)
        self.epoch = Epoch(number, commit.index, 0, True, is_ruled=is_ruled)

    # The epoch and its committee

    @property
    def epoch(self) -> Epoch:
        return _unpack(self.accounts[HEAD].key_id)

    @epoch.setter
    def epoch(self, epoch: Epoch) -> None:
        self._put(HEAD, epoch.packed())

    def rules(self, number: int) -> EpochRules:
        """The rules of the present epoch or of the one before."""
        rows = self._rows(partial(rules_account, number)) if self.epoch.is_ruled else []
        return unpack_rules(rows) if rows else first_rules(self.genesis.parameters)

    @property
    def parameters(self) -> Parameters:
        return self.rules(self.epoch.number).parameters

    def _rows(self, account: Callable[[int], bytes]) -> list[bytes]:
        """The rows of rules in accounts; empty where none were written."""
        head = self.accounts[account(0)].key_id
        if head == ZERO_DIGEST:
            return []
        _, count = unpack_head(head)
        names = [account(row) for row in range(count)]
        self.accounts.fetch(names)
        return [self.accounts[name].key_id for name in names]

    def _opened(self) -> dict[bytes, Given]:
        """What the first action takes over from the genesis: its validators."""
        # Kept for the block: a block may hold many actions that fail, and so open nothing.
        opening = self._opening
        if opening:
            return opening
        opening[HEAD] = Given(U64_MAX, Epoch(is_open=True).packed(), 0)
        for slot, member in enumerate(self.genesis.members):
            validator = validator_account(member.reward)
            name = key_id(member.scheme, member.public_key)
            paid = opening[validator].paid if validator in opening else 0
            opening[slot_account(slot)] = Given(U64_MAX, member.reward, 0)
            opening[validator] = Given(U64_MAX, name, paid + member.stake)
            for address, data in _key_rows(member.reward, member.scheme, member.public_key):
                opening[address] = Given(U64_MAX, data, 0)
        return opening

    def committee(self, number: int) -> Committee:
        """The committee that `_elect` wrote for an epoch: the present one or the one before."""
        self.accounts.fetch([seed_account(number)])
        members: list[Member] = []
        for name, stake, owner in self._members(number):
            scheme, public_key = self._key(name)
            members.append(Member(scheme, public_key, stake, owner))
        return Committee(members, number, self.accounts[seed_account(number)].key_id)

    def _members(self, number: int) -> list[tuple[bytes, int, bytes]]:
        """(key id, stake, owner) of a committee that `_elect` wrote."""
        self.accounts.fetch(member_accounts(number))
        members: list[tuple[bytes, int, bytes]] = []
        for i in range(VALIDATORS_MAX):
            row = (self.accounts[member_account(number, i, what)].key_id for what in range(3))
            name, stake, owner = row
            if name == ZERO_DIGEST:
                break
            members.append((name, int.from_bytes(stake[:8], "big"), owner))
        return members

    def registered(self) -> list[tuple[int, bytes]]:
        """(scheme, public key) of all registered validators, by their places."""
        slots = [slot_account(i) for i in range(VALIDATORS_MAX)]
        self.accounts.fetch(slots)
        owners = [owner for slot in slots if (owner := self.accounts[slot].key_id) != ZERO_DIGEST]
        self.accounts.fetch([validator_account(owner) for owner in owners])
        names = [self.accounts[validator_account(owner)].key_id for owner in owners]
        return [self._key(name) for name in names if name != ZERO_DIGEST]

    def _elect(self, number: int, least: int) -> None:
        """Makes the validators with stake the committee; where there are none it stays."""
        slots = [slot_account(i) for i in range(VALIDATORS_MAX)]
        self.accounts.fetch(slots)
        owners = [owner for slot in slots if (owner := self.accounts[slot].key_id) != ZERO_DIGEST]
        self.accounts.fetch([validator_account(owner) for owner in owners])
        elected: list[tuple[bytes, bytes, bytes]] = []
        for owner in owners:
            validator = self.accounts[validator_account(owner)]
            if validator.key_id != ZERO_DIGEST and validator.balance >= least:
                stake = _u64(validator.balance).ljust(32, b"\0")
                elected.append((validator.key_id, stake, owner))
        if not elected:
            elected = [
                (key_id(m.scheme, m.public_key), _u64(m.stake).ljust(32, b"\0"), m.reward)
                for m in self._present()
            ]
        self.accounts.fetch(member_accounts(number))
        for i in range(VALIDATORS_MAX):
            row = elected[i] if i < len(elected) else (ZERO_DIGEST,) * 3
            if row[0] == self.accounts[member_account(number, i, 0)].key_id == ZERO_DIGEST:
                break
            for what in range(3):
                self._put(member_account(number, i, what), row[what])

    def _present(self) -> tuple[Member, ...]:
        number = self.epoch.number
        return self.committee(number).members if number else self.genesis.members

    def _change(self) -> None:
        self.epoch = replace(self.epoch, is_changed=True)

    # Actions

    def _register(self, owner: bytes, action: RegisterValidator) -> Code:
        name = key_id(action.scheme, action.public_key)
        holder = self.accounts[key_account(name)].key_id
        if action.scheme not in self.genesis.schemes or holder not in (ZERO_DIGEST, owner):
            return Code.VALIDATOR_KEY_IN_USE
        if self.accounts[owner].balance < action.stake:
            return Code.INSUFFICIENT_BALANCE
        validator = self.accounts[validator_account(owner)]
        if validator.balance + action.stake < self.parameters.stake_min:
            return Code.STAKE_TOO_LOW
        if validator.balance + action.stake > U64_MAX:
            return Code.BALANCE_OVERFLOW
        if validator.key_id == ZERO_DIGEST:
            free = self._find_slot(ZERO_DIGEST)
            if free is None:
                return Code.REGISTRY_FULL
            self._put(free, owner)
        if not self._is_proved(owner, action):
            return Code.KEY_NOT_PROVED
        if holder == ZERO_DIGEST:
            self._keep_key(owner, action.scheme, action.public_key)
        self._put(validator_account(owner), name)
        self._move(owner, validator_account(owner), action.stake)
        self._change()
        return Code.SUCCESS

    def _stake(self, owner: bytes, amount: int) -> Code:
        validator = self.accounts[validator_account(owner)]
        if validator.key_id == ZERO_DIGEST:
            return Code.NOT_A_VALIDATOR
        if self.accounts[owner].balance < amount:
            return Code.INSUFFICIENT_BALANCE
        if validator.balance + amount > U64_MAX:
            return Code.BALANCE_OVERFLOW
        self._move(owner, validator_account(owner), amount)
        self._change()
        return Code.SUCCESS

    def _unstake(self, owner: bytes, amount: int) -> Code:
        validator, unbonding = (
            self.accounts[validator_account(owner)],
            self.accounts[unbonding_account(owner)],
        )
        left = validator.balance - amount
        if left < 0 or 0 < left < self.parameters.stake_min:
            return Code.STAKE_TOO_LOW
        if not amount and not unbonding.balance:
            return Code.NOT_A_VALIDATOR
        if unbonding.balance and self.epoch.number >= int.from_bytes(unbonding.key_id[:8], "big"):
            if self.accounts[owner].balance + unbonding.balance > U64_MAX:
                return Code.BALANCE_OVERFLOW
            self._move(unbonding_account(owner), owner, unbonding.balance)
        if amount:
            self._unbond(owner, amount)
        return Code.SUCCESS

    def _unbond(self, owner: bytes, amount: int) -> None:
        """Stake leaves the next committee; all that unbonds waits for the newest of it."""
        self._move(validator_account(owner), unbonding_account(owner), amount)
        # It counts to the end of this epoch, and is held for `unbonding_epochs` after that.
        release = self.epoch.number + 1 + self.parameters.unbonding_epochs
        self._put(unbonding_account(owner), _u64(release).ljust(32, b"\0"))
        if not self.accounts[validator_account(owner)].balance:
            self._put(validator_account(owner), ZERO_DIGEST)
            slot = self._find_slot(owner)
            if slot is not None:
                self._put(slot, ZERO_DIGEST)
        self._change()

    def _approve(self, owner: bytes, number: int, rules: EpochRules) -> Code:
        epoch, stakes = self.epoch, self._stakes()
        if number != epoch.number:
            return Code.OTHER_EPOCH
        if owner not in stakes:
            return Code.NOT_OF_COMMITTEE
        try:
            check_change(self.rules(epoch.number), rules)
        except QnetError as error:
            return error.code
        digest = approval_digest(epoch.number, rules)
        self._put(approval_account(owner), digest)
        self.accounts.fetch([approval_account(other) for other in stakes])
        approved = sum(
            stake
            for other, stake in stakes.items()
            if self.accounts[approval_account(other)].key_id == digest
        )
        if approved >= quorum_of(sum(stakes.values())):
            for row, data in enumerate(pack_rules(rules)):
                self._put(decided_account(row), data)
            self.epoch = replace(self.epoch, is_changed=True, is_decided=True)
        return Code.SUCCESS

    def _stakes(self) -> dict[bytes, int]:
        """Owner -> stake of the present committee, whose keys need not be read."""
        # Kept for the block: no action changes it, and anybody may send many approvals.
        stakes = self._present_stakes
        if not stakes:
            number = self.epoch.number
            if number:
                stakes.update({owner: stake for _, stake, owner in self._members(number)})
            else:
                stakes.update({member.reward: member.stake for member in self.genesis.members})
        return stakes

    def _punish(self, reporter: bytes, report: ReportEquivocation) -> Code:
        name = key_id(report.scheme, report.public_key)
        owner = self.accounts[key_account(name)].key_id
        offence = offence_account(name, report.equivocation.epoch)
        if owner == ZERO_DIGEST or not is_punishable(
            report.equivocation.epoch, self.epoch.number, self.parameters.unbonding_epochs
        ):
            return Code.EVIDENCE_REFUSED
        if self.accounts[offence].key_id != ZERO_DIGEST:
            return Code.ALREADY_PUNISHED
        if not self._is_proof(report):
            return Code.EVIDENCE_REFUSED
        self._put(offence, reporter)
        taken = 0
        for held in (validator_account(owner), unbonding_account(owner)):
            part = self.accounts[held].balance // SLASH_DIVISOR
            self._move(held, BURNT, part)
            taken += part
        reward = taken // REPORTER_DIVISOR
        if self.accounts[reporter].balance + reward <= U64_MAX:
            self._move(BURNT, reporter, reward)
        bonded = self.accounts[validator_account(owner)].balance
        if bonded:
            self._unbond(owner, bonded)
        return Code.SUCCESS

    def _is_proof(self, report: ReportEquivocation) -> bool:
        rows = report.equivocation.rows()
        return self._are_signed(report, rows, dag_context(self.genesis.chain_id()))

    def _is_proved(self, owner: bytes, action: RegisterValidator) -> bool:
        chain_id = self.genesis.chain_id()
        digest = registration_digest(chain_id, owner, action.scheme, action.public_key)
        return self._are_signed(action, [(digest, action.proof)], CONTEXT_REGISTRATION)

    def _are_signed(
        self,
        key: RegisterValidator | ReportEquivocation,
        rows: Sequence[tuple[bytes, bytes]],
        context: bytes,
    ) -> bool:
        """Whether the key of an action signed all of (message, signature)."""
        if self.verifier is None:
            raise AssertionError("signatures are judged without a verifier")
        verdicts = self.verifier.verify(
            [key.public_key] * len(rows),
            [message for message, _ in rows],
            [signature for _, signature in rows],
            context,
            Scheme(key.scheme),
        )
        return bool(verdicts.all())

    # Accounts

    def _find_slot(self, owner: bytes) -> bytes | None:
        slots = [slot_account(i) for i in range(VALIDATORS_MAX)]
        self.accounts.fetch(slots)
        return next((slot for slot in slots if self.accounts[slot].key_id == owner), None)

    def _keep_key(self, owner: bytes, scheme: int, public_key: bytes) -> None:
        rows = _key_rows(owner, scheme, public_key)
        self.accounts.fetch([address for address, _ in rows])
        for address, data in rows:
            self._put(address, data)

    def _key(self, name: bytes) -> tuple[int, bytes]:
        scheme = self.accounts[chunk_account(name, 0)].key_id[0]
        size = 1 + SCHEME_SIZES[Scheme(scheme)].public_key
        chunks = [chunk_account(name, i) for i in range((size + 31) // 32)]
        self.accounts.fetch(chunks)
        data = b"".join(self.accounts[chunk].key_id for chunk in chunks)
        return scheme, data[1:size]

    def _put(self, address: bytes, data: bytes) -> None:
        # With the last nonce of all, no transaction of this account is ever included: what stands
        # in the place of its key id may be one that somebody holds.
        account = self.accounts[address]
        self.accounts[address] = replace(account, nonce=U64_MAX, key_id=data)

    def _pay(self, address: bytes, amount: int) -> None:
        account = self.accounts[address]
        self.accounts[address] = replace(account, balance=account.balance + amount)

    def _move(self, payer: bytes, payee: bytes, amount: int) -> None:
        self._pay(payer, -amount)
        self._pay(payee, amount)


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


def _key_rows(owner: bytes, scheme: int, public_key: bytes) -> list[tuple[bytes, bytes]]:
    """(address, data) of a key and who registered it."""
    name = key_id(scheme, public_key)
    data = bytes((scheme,)) + public_key
    pieces = [data[at : at + 32].ljust(32, b"\0") for at in range(0, len(data), 32)]
    rows = [(chunk_account(name, i), piece) for i, piece in enumerate(pieces)]
    return [(key_account(name), owner), *rows]


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")
