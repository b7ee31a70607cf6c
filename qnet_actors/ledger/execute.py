"""Execution on columns: runs of plain transfers in a kernel, other actions in order between them.

The result equals `ledger.reference` to the byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from qnet_actors.kernels.expand import KIND_OTHER, Expanded, expand
from qnet_actors.kernels.transfers import EXCLUDED, execute_transfers
from qnet_actors.ledger.actions import ValidatorActions, accounts_of
from qnet_actors.ledger.outcome import Outcome, Reader
from qnet_actors.ledger.reference import Terms, execute_reference
from qnet_actors.ledger.registry import Registry
from qnet_actors.ledger.values import Accounts, Values
from qnet_actors.state import split_rows
from qnet_actors.wire.batches import Batch, BodyColumns
from qnet_actors.wire.blocks import Receipt, WriteSet
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import U64_MAX
from qnet_actors.wire.transactions import (
    Action,
    MultiTransfer,
    RegistryAction,
    RotateKey,
    Transfer,
)

Column = npt.NDArray[Any]

# A receipt of a native action whose gas takes two bytes: array of five, id, status, gas, no return
# data, no events.  Nearly every receipt has this shape, so all of them are written at once.
_RECEIPT_BYTES: Final = 42
_ID_AT: Final = 3
_STATUS_AT: Final = 35
_GAS_AT: Final = 37


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch made ready for execution; the witnesses are left behind."""

    digest: bytes
    author: int
    columns: BodyColumns
    expanded: Expanded

    @property
    def count(self) -> int:
        return self.columns.count


def open_batch(batch: Batch) -> OpenBatch:
    """Expands a batch, whose validity the mempool has established; CPU work.

    Raises `QnetError` where a row breaks a static rule: then the mempool let through what it must
    not, and the node stops.
    """
    return OpenBatch(batch.digest, batch.header.author, batch.columns, expand(batch))


def open_batches(batches: tuple[Batch, ...]) -> tuple[OpenBatch, ...]:
    """Expands the batches of a commit; see `open_batch`."""
    return tuple(open_batch(batch) for batch in batches)


class AccountTable:
    """The accounts that a block touches, as dense columns."""

    def __init__(self, addresses: list[bytes], reader: Reader) -> None:
        self.index = {address: i for i, address in enumerate(dict.fromkeys(addresses))}
        self.addresses = np.frombuffer(b"".join(self.index), dtype=np.uint8).reshape(-1, 32)
        self.before = reader.read(self.addresses)
        self.nonces = self.before.nonces.astype(np.uint64)
        self.balances = self.before.balances.astype(np.uint64)
        self.key_ids = self.before.key_ids.copy()

    def indices(self, addresses: list[bytes]) -> npt.NDArray[np.int64]:
        lookup = self.index.__getitem__
        return np.fromiter(map(lookup, addresses), dtype=np.int64, count=len(addresses))

    def write_set(self) -> WriteSet:
        """The accounts that differ from what they were, sorted by address."""
        changed = np.flatnonzero(
            (self.nonces != self.before.nonces)
            | (self.balances != self.before.balances)
            | (self.key_ids != self.before.key_ids).any(axis=1)
        )
        names = self.addresses[changed].view("S32").ravel()
        changed = changed[np.argsort(names, kind="stable")]
        return WriteSet(
            addresses=self.addresses[changed].tobytes(),
            nonces=self.nonces[changed].astype("<u8").tobytes(),
            balances=self.balances[changed].astype("<u8").tobytes(),
            key_ids=self.key_ids[changed].tobytes(),
        )


class TableAccounts:
    """All accounts there are, for what the registry does: those of a table are read and set there.

    Implements `values.AccountMap`.
    """

    def __init__(self, table: AccountTable, reader: Reader) -> None:
        self._table = table
        self._others = Accounts(reader)

    def __getitem__(self, address: bytes) -> Values:
        table, row = self._table, self._table.index.get(address)
        if row is None:
            return self._others[address]
        key_id = table.key_ids[row].tobytes()
        return Values(int(table.nonces[row]), int(table.balances[row]), key_id)

    def __setitem__(self, address: bytes, values: Values) -> None:
        table, row = self._table, self._table.index.get(address)
        if row is None:
            self._others[address] = values
            return
        table.nonces[row] = values.nonce
        table.balances[row] = values.balance
        table.key_ids[row] = np.frombuffer(values.key_id, dtype=np.uint8)

    def fetch(self, addresses: list[bytes]) -> None:
        self._others.fetch([a for a in addresses if a not in self._table.index])

    def write_set(self) -> WriteSet:
        """The accounts that differ from what they were, sorted by address."""
        named, others = self._table.write_set(), self._others.write_set()
        if not others.addresses:
            return named
        addresses = _rows_of(named.addresses + others.addresses)
        order = np.argsort(addresses.view("S32").ravel(), kind="stable")
        return WriteSet(
            addresses=addresses[order].tobytes(),
            nonces=np.frombuffer(named.nonces + others.nonces, dtype="<u8")[order].tobytes(),
            balances=np.frombuffer(named.balances + others.balances, dtype="<u8")[order].tobytes(),
            key_ids=_rows_of(named.key_ids + others.key_ids)[order].tobytes(),
        )


def _rows_of(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, 32)


@dataclass(frozen=True, slots=True)
class Rows:
    """Transactions in order, and the accounts under them; both change as they are run.

    Whatever may be run apart from the rest of a block is one: see `groups`.
    """

    height: int
    accounts: AccountTable
    senders: npt.NDArray[np.int64]
    """Indices of accounts, as payees are."""
    payees: npt.NDArray[np.int64]
    """Of plain transfers; other rows hold their sender."""
    authors: npt.NDArray[np.int64]
    """Indices into `fees`."""
    key_ids: npt.NDArray[np.uint8]
    nonces: npt.NDArray[np.uint64]
    valid_until: npt.NDArray[np.uint64]
    gas: npt.NDArray[np.uint64]
    gas_prices: npt.NDArray[np.uint64]
    amounts: npt.NDArray[np.uint64]
    actions: dict[int, Action]
    """Of the rows that are no plain transfers."""
    fees: npt.NDArray[np.uint64]
    statuses: npt.NDArray[np.int16]
    validator_actions: ValidatorActions | None = None
    """On the same accounts; None: no action concerns the validators."""

    def run(self) -> None:
        """Executes every row in order."""
        bounds = [-1, *sorted(self.actions), len(self.statuses)]
        for before, after in pairwise(bounds):
            if before + 1 < after:
                self._transfers(before + 1, after)
            if after < len(self.statuses):
                self._other(after)

    def _transfers(self, start: int, end: int) -> None:
        accounts = self.accounts
        if not execute_transfers(
            start,
            end,
            np.uint64(self.height),
            self.senders,
            self.payees,
            self.key_ids.view(np.uint64),
            self.nonces,
            self.valid_until,
            self.gas,
            self.gas_prices,
            self.amounts,
            self.authors,
            accounts.addresses.view(np.uint64),
            accounts.nonces,
            accounts.balances,
            accounts.key_ids.view(np.uint64),
            self.fees,
            self.statuses,
        ):
            raise fees_overflow()

    def _other(self, row: int) -> None:
        accounts = self.accounts
        sender = int(self.senders[row])
        nonce, balance = int(accounts.nonces[sender]), int(accounts.balances[sender])
        current = accounts.key_ids[sender]
        authorised = current if current.any() else accounts.addresses[sender]
        valid_until = int(self.valid_until[row])
        fee = int(self.gas[row]) * int(self.gas_prices[row])
        if (
            int(self.nonces[row]) != nonce
            or nonce == U64_MAX
            or (valid_until != 0 and valid_until < self.height)
            or balance < fee
            or self.key_ids[row].tobytes() != authorised.tobytes()
        ):
            return
        author = int(self.authors[row])
        total = int(self.fees[author]) + fee
        if total > U64_MAX:
            raise fees_overflow()
        self.fees[author] = total
        accounts.nonces[sender] = nonce + 1
        accounts.balances[sender] = balance - fee
        accounts.key_ids[sender] = self.key_ids[row]
        action = self.actions[row]
        if isinstance(action, RotateKey):
            accounts.key_ids[sender] = np.frombuffer(action.key_id, dtype=np.uint8)
            self.statuses[row] = Code.SUCCESS
        elif isinstance(action, RegistryAction):
            if self.validator_actions is None:
                raise QnetError(Code.INTERNAL, "an action on the validators without terms")
            address = accounts.addresses[sender].tobytes()
            self.statuses[row] = self.validator_actions.apply(address, action)
        else:
            self.statuses[row] = self._pay(sender, payments_of(action))

    def _pay(self, sender: int, payments: list[tuple[bytes, int]]) -> Code:
        """Moves all amounts or none; each is taken from the sender before the payee has it."""
        balances = self.accounts.balances
        if sum(amount for _, amount in payments) > int(balances[sender]):
            return Code.INSUFFICIENT_BALANCE
        moved: dict[int, int] = {}
        for payee, amount in payments:
            index = self.accounts.index[payee]
            moved[sender] = moved.get(sender, int(balances[sender])) - amount
            moved[index] = moved.get(index, int(balances[index])) + amount
            if moved[index] > U64_MAX:
                return Code.BALANCE_OVERFLOW
        for index, balance in moved.items():
            balances[index] = balance
        return Code.SUCCESS


class Block:
    """The batches of a block while it executes."""

    def __init__(
        self,
        height: int,
        batches: Sequence[OpenBatch],
        rewards: Sequence[bytes],
        reader: Reader,
        terms: Terms | None = None,
    ) -> None:
        self.batches = batches
        self._commit = None if terms is None else terms.commit
        counts = [batch.count for batch in batches]
        starts = np.cumsum([0, *counts]).tolist()
        kinds = _joined([b.expanded.kinds for b in batches])
        actions: dict[int, Action] = {
            start + row: payload.action
            for start, batch in zip(starts, batches, strict=False)
            for row, payload in batch.expanded.payloads.items()
        }
        senders = split_rows(_joined([b.columns.senders for b in batches]))
        payees = split_rows(_joined([b.expanded.payees for b in batches]))
        for row in np.flatnonzero(kinds == KIND_OTHER).tolist():
            # Such a row has no payee column; its sender stands in, so that no account is read for
            # nothing.
            payees[row] = senders[row]
        others = [payee for action in actions.values() for payee, _ in payments_of(action)]
        accounts = AccountTable([*senders, *payees, *others, *rewards], reader)
        self.rewards = accounts.indices(list(rewards))
        self._accounts = TableAccounts(accounts, reader)
        validator_actions = None
        if terms is not None:
            registry = Registry(self._accounts, terms.genesis)
            validator_actions = ValidatorActions(registry, terms.verifier)
        registry_rows = [(r, a) for r, a in actions.items() if isinstance(a, RegistryAction)]
        self._accounts.fetch([a for r, act in registry_rows for a in accounts_of(senders[r], act)])
        self.concerns_validators = bool(registry_rows)
        self.rows = Rows(
            height=height,
            accounts=accounts,
            senders=accounts.indices(senders),
            payees=accounts.indices(payees),
            authors=np.repeat(np.arange(len(batches)), counts),
            key_ids=_joined([b.columns.key_ids for b in batches]),
            nonces=_joined([b.columns.nonces for b in batches], np.uint64),
            valid_until=_joined([b.columns.valid_until for b in batches], np.uint64),
            gas=_joined([b.expanded.gas for b in batches]),
            gas_prices=_joined([b.columns.gas_prices for b in batches], np.uint64),
            amounts=_joined([b.expanded.amounts for b in batches]),
            actions=actions,
            fees=np.zeros(len(batches), dtype=np.uint64),
            statuses=np.full(starts[-1], EXCLUDED, dtype=np.int16),
            validator_actions=validator_actions,
        )

    def end(self) -> None:
        """The fees of each batch go to its author; then the epoch may end."""
        balances = self.rows.accounts.balances
        for index, fee in zip(self.rewards.tolist(), self.rows.fees.tolist(), strict=True):
            balance = int(balances[index]) + fee
            if balance > U64_MAX:
                raise fees_overflow()
            balances[index] = balance
        if self.rows.validator_actions is not None and self._commit is not None:
            self.rows.validator_actions.registry.end_block(self._commit)

    def outcome(self) -> Outcome:
        rows = self.rows
        included = rows.statuses != EXCLUDED
        ids = _joined([b.expanded.ids for b in self.batches])
        statuses = rows.statuses[included]
        gas = rows.gas[included]
        kept = ids[included]
        return Outcome(
            ids=split_rows(kept),
            bodies=self._bodies(included.tolist()),
            receipts=receipts(kept, statuses, gas),
            excluded=split_rows(ids[~included]),
            failed_count=int(np.count_nonzero(statuses)),
            gas_used=int(gas.sum(dtype=np.uint64)),
            write_set=self._accounts.write_set(),
        )

    def _bodies(self, included: list[bool]) -> list[bytes]:
        bodies: list[bytes] = []
        row = 0
        for batch in self.batches:
            data = batch.expanded.bodies.tobytes()
            for start, end in pairwise(batch.expanded.body_offsets.tolist()):
                if included[row]:
                    bodies.append(data[start:end])
                row += 1
        return bodies


class Execute(Protocol):
    """Executes a block: `execute`, or something that equals it."""

    def __call__(
        self,
        height: int,
        batches: Sequence[OpenBatch],
        rewards: Sequence[bytes],
        reader: Reader,
        terms: Terms | None = None,
    ) -> Outcome: ...


def execute(
    height: int,
    batches: Sequence[OpenBatch],
    rewards: Sequence[bytes],
    reader: Reader,
    terms: Terms | None = None,
) -> Outcome:
    """Executes `batches`, whose fees go to `rewards` (one a batch), as the block at `height`.

    Raises `QnetError(INTERNAL)` where fees overflow a balance, which a bounded supply rules out.
    """
    if not batches:
        return empty_outcome(height, reader, terms)
    block = Block(height, batches, rewards, reader, terms)
    block.rows.run()
    block.end()
    return block.outcome()


def empty_outcome(height: int, reader: Reader, terms: Terms | None) -> Outcome:
    """The outcome of a block without transactions, which may yet end an epoch."""
    return execute_reference(height, (), reader, terms)


def payments_of(action: Action) -> list[tuple[bytes, int]]:
    """(payee, amount) of an action, in order."""
    match action:
        case Transfer(payee=payee, amount=amount):
            return [(payee, amount)]
        case MultiTransfer(payments=payments):
            return [(payment.payee, payment.amount) for payment in payments]
        case _:
            return []


def receipts(ids: Column, statuses: Column, gas: Column) -> list[bytes]:
    """The canonical receipts of native actions: ids uint8[n, 32], statuses int16[n], gas u64[n]."""
    table = np.zeros((len(ids), _RECEIPT_BYTES), dtype=np.uint8)
    table[:, :_ID_AT] = (0x95, 0xC4, 0x20)
    table[:, _ID_AT:_STATUS_AT] = ids
    table[:, _STATUS_AT] = statuses
    table[:, _STATUS_AT + 1] = 0xCD
    table[:, _GAS_AT : _GAS_AT + 2] = gas.astype(">u2").view(np.uint8).reshape(-1, 2)
    table[:, _GAS_AT + 2 :] = (0xC4, 0x00, 0x90)
    encoded: list[bytes] = table.view(f"V{_RECEIPT_BYTES}").ravel().tolist()
    for row in np.flatnonzero((gas < 2**8) | (gas >= 2**16)).tolist():
        receipt = Receipt(ids[row].tobytes(), int(statuses[row]), int(gas[row]), b"", ())
        encoded[row] = encode(receipt)
    return encoded


def _joined(columns: list[Column], dtype: type[np.generic] | None = None) -> Column:
    joined: Column = np.concatenate(columns) if len(columns) > 1 else columns[0]
    return np.ascontiguousarray(joined, dtype=dtype)


def fees_overflow() -> QnetError:
    """What is raised where fees do not fit a u64, which a bounded supply rules out."""
    return QnetError(Code.INTERNAL, "fees overflow a balance: the supply is not conserved")
