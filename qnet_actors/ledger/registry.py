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
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from qnet_actors.ledger.names import (
    HEAD,
    chunk_account,
    decided_account,
    key_account,
    member_account,
    member_accounts,
    seed_account,
    slot_account,
    validator_account,
)
from qnet_actors.ledger.outcome import Reader
from qnet_actors.ledger.values import AccountMap, Accounts
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.committee import Committee, Member, committee_account
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.genesis import Genesis, Parameters
from qnet_actors.wire.hashing import EPOCH_SEED, ZERO_DIGEST, hash32
from qnet_actors.wire.limits import U64_MAX, VALIDATORS_MAX
from qnet_actors.wire.rules import (
    EpochRules,
    first_rules,
    rules_account,
    unpack_head,
    unpack_rules,
)
from qnet_actors.wire.schemes import (
    SCHEME_SIZES,
    Scheme,
    key_id,
)

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


@dataclass(slots=True)
class Registry:
    """The registry over the accounts of a block that is being executed."""

    accounts: AccountMap
    genesis: Genesis

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
        seed = hash32(EPOCH_SEED, self.genesis.chain_id(), u64(number), commit.digest())
        self.put(seed_account(number), seed)
        is_ruled = epoch.is_ruled or epoch.is_decided
        rules = first_rules(self.genesis.parameters)
        if is_ruled:
            before = decided_account if epoch.is_decided else partial(rules_account, epoch.number)
            rows = self._rows(before)
            self.accounts.fetch([rules_account(number, row) for row in range(len(rows))])
            for row, data in enumerate(rows):
                self.put(rules_account(number, row), data)
            rules = unpack_rules(rows)
        self._elect(number, rules.parameters.stake_min)
        self.put(committee_account(number), self.committee(number).digest)
        self.epoch = Epoch(number, commit.index, 0, True, is_ruled=is_ruled)

    # The epoch and its committee

    @property
    def epoch(self) -> Epoch:
        return _unpack(self.accounts[HEAD].key_id)

    @epoch.setter
    def epoch(self, epoch: Epoch) -> None:
        self.put(HEAD, epoch.packed())

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

    def committee(self, number: int) -> Committee:
        """The committee that `_elect` wrote for an epoch: the present one or the one before."""
        self.accounts.fetch([seed_account(number)])
        members: list[Member] = []
        for name, stake, owner in self.members(number):
            scheme, public_key = self._key(name)
            members.append(Member(scheme, public_key, stake, owner))
        return Committee(members, number, self.accounts[seed_account(number)].key_id)

    def members(self, number: int) -> list[tuple[bytes, int, bytes]]:
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
                stake = u64(validator.balance).ljust(32, b"\0")
                elected.append((validator.key_id, stake, owner))
        if not elected:
            elected = [
                (key_id(m.scheme, m.public_key), u64(m.stake).ljust(32, b"\0"), m.reward)
                for m in self._present()
            ]
        self.accounts.fetch(member_accounts(number))
        for i in range(VALIDATORS_MAX):
            row = elected[i] if i < len(elected) else (ZERO_DIGEST,) * 3
            if row[0] == self.accounts[member_account(number, i, 0)].key_id == ZERO_DIGEST:
                break
            for what in range(3):
                self.put(member_account(number, i, what), row[what])

    def _present(self) -> tuple[Member, ...]:
        number = self.epoch.number
        return self.committee(number).members if number else self.genesis.members

    def change(self) -> None:
        self.epoch = replace(self.epoch, is_changed=True)

    # Accounts

    def find_slot(self, owner: bytes) -> bytes | None:
        slots = [slot_account(i) for i in range(VALIDATORS_MAX)]
        self.accounts.fetch(slots)
        return next((slot for slot in slots if self.accounts[slot].key_id == owner), None)

    def keep_key(self, owner: bytes, scheme: int, public_key: bytes) -> None:
        rows = key_rows(owner, scheme, public_key)
        self.accounts.fetch([address for address, _ in rows])
        for address, data in rows:
            self.put(address, data)

    def _key(self, name: bytes) -> tuple[int, bytes]:
        scheme = self.accounts[chunk_account(name, 0)].key_id[0]
        size = 1 + SCHEME_SIZES[Scheme(scheme)].public_key
        chunks = [chunk_account(name, i) for i in range((size + 31) // 32)]
        self.accounts.fetch(chunks)
        data = b"".join(self.accounts[chunk].key_id for chunk in chunks)
        return scheme, data[1:size]

    def put(self, address: bytes, data: bytes) -> None:
        # With the last nonce of all, no transaction of this account is ever included: what stands
        # in the place of its key id may be one that somebody holds.
        account = self.accounts[address]
        self.accounts[address] = replace(account, nonce=U64_MAX, key_id=data)

    def _pay(self, address: bytes, amount: int) -> None:
        account = self.accounts[address]
        self.accounts[address] = replace(account, balance=account.balance + amount)

    def move(self, payer: bytes, payee: bytes, amount: int) -> None:
        self._pay(payer, -amount)
        self._pay(payee, amount)


def key_rows(owner: bytes, scheme: int, public_key: bytes) -> list[tuple[bytes, bytes]]:
    """(address, data) of a key and who registered it."""
    name = key_id(scheme, public_key)
    data = bytes((scheme,)) + public_key
    pieces = [data[at : at + 32].ljust(32, b"\0") for at in range(0, len(data), 32)]
    rows = [(chunk_account(name, i), piece) for i, piece in enumerate(pieces)]
    return [(key_account(name), owner), *rows]


def u64(number: int) -> bytes:
    return number.to_bytes(8, "big")
