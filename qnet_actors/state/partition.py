"""The state of a validator: accounts and tree, in partitions by the prefix of the key hash."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import lt
from threading import Lock
from typing import Final

import numpy as np
import numpy.typing as npt

from qnet_actors.kernels.blake3 import hash_fixed, hash_short
from qnet_actors.kernels.tree import account_messages
from qnet_actors.light import Account, AccountProof, key_hash
from qnet_actors.rooms import AccountColumns
from qnet_actors.state.accounts import Accounts, split_rows
from qnet_actors.state.fast_tree import FastTree
from qnet_actors.state.proving import levels_of, prove_through
from qnet_actors.state.tree import Subtree
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.hashing import STATE_KEY, STATE_VALUE, ZERO_DIGEST

PARTITIONS_MAX: Final = 64
_ROW_BYTES: Final = 32 + 8 + 8 + 32


Changed = tuple[npt.NDArray[np.uint8], AccountColumns]
"""Addresses and values of accounts."""
Overwritten = tuple[int, npt.NDArray[np.int64], AccountColumns]
"""The number of a write, the rows that it set, and what they held before."""


CHECKPOINTS_KEPT: Final = 8
"""How many of the newest roots can be proved under: a certificate comes within a second or two of
its checkpoint."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What a partition's tree is brought up to."""

    height: int
    writes: int
    """How many writes there were until then."""
    changed: Changed | None


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    height: int
    writes: int
    tree: int
    """The version of the tree."""


class Partition:
    """Accounts whose key hash begins with one prefix, with the part of the tree over them.

    What a write overwrites is kept for as long as a checkpoint before it can be proved under.
    """

    def __init__(self, depth: int) -> None:
        self.accounts = Accounts()
        self.tree = FastTree(depth, CHECKPOINTS_KEPT)
        self._changed: list[npt.NDArray[np.int64]] = []
        self._checkpoints: deque[_Checkpoint] = deque(maxlen=CHECKPOINTS_KEPT)
        self._overwritten: deque[Overwritten] = deque()
        self._writes = 0

    def write(self, addresses: list[bytes], values: AccountColumns) -> None:
        rows = self.accounts.rows(addresses)
        self._writes += 1
        self._overwritten.append((self._writes, rows, self.accounts.values(rows)))
        self.accounts.set(rows, addresses, values)
        self._changed.append(rows)

    def fill(self, addresses: npt.NDArray[np.uint8], values: AccountColumns) -> None:
        """Adds accounts to a partition that nobody reads yet, and to its tree.

        In parts that are neighbours in the tree, which then are neighbours in memory too: a
        million take half the time that they take all at once.
        """
        keys = split_rows(addresses)
        self.accounts.set(self.accounts.rows(keys), keys, values)
        self._grow_tree(addresses, values)

    def cut(self, height: int) -> Cut:
        """Copies of the accounts that were written since this was asked last."""
        # The next checkpoint pushes out the oldest one.
        full = len(self._checkpoints) == CHECKPOINTS_KEPT
        oldest = self._checkpoints[1].writes if full else 0
        if not self._checkpoints:
            oldest = self._writes
        while self._overwritten and self._overwritten[0][0] <= oldest:
            self._overwritten.popleft()
        changed = None
        if self._changed:
            # A flag for each account takes less than sorting out which rows stand twice.
            flags = np.zeros(len(self.accounts), dtype=np.bool_)
            for rows in self._changed:
                flags[rows] = True
            changed = self.accounts.at(np.flatnonzero(flags))
            self._changed.clear()
        return Cut(height, self._writes, changed)

    def update(self, cut: Cut) -> Subtree:
        """Brings the tree up to `cut`; returns its root.  Costs about 2 us an account."""
        if cut.changed is not None:
            self._grow_tree(*cut.changed)
        if self._checkpoints and self._checkpoints[-1].height == cut.height:
            self._checkpoints.pop()
        self._checkpoints.append(_Checkpoint(cut.height, cut.writes, self.tree.version))
        return self.tree.root()

    def _grow_tree(self, addresses: npt.NDArray[np.uint8], values: AccountColumns) -> None:
        rows, lengths = account_messages(values.nonces, values.balances, values.key_ids)
        self.tree.update(key_hashes(addresses), hash_short(STATE_VALUE, rows, lengths))

    def root_at(self, height: int) -> Subtree:
        """The root at a checkpoint.  Raises `QnetError(NOT_FOUND)` where it is not kept."""
        return self.tree.root(self._checkpoint(height).tree)

    def prove_at(self, key: bytes, height: int) -> tuple[bool, AccountProof]:
        """(whether the key hash was there, its proof below this partition's root).

        Raises `QnetError(NOT_FOUND)`.
        """
        return self.tree.prove(key, self._checkpoint(height).tree)

    def account_at(self, address: bytes, height: int) -> Account:
        """An account at a checkpoint; zeros for none.  Raises `QnetError(NOT_FOUND)`."""
        writes = self._checkpoint(height).writes
        row = self.accounts.row(address)
        if row is None:
            return Account(0, 0, ZERO_DIGEST)
        for number, rows, values in self._overwritten:
            if number > writes and len(places := np.flatnonzero(rows == row)):
                return _account(values, int(places[0]))
        return _account(self.accounts.values(np.array([row])), 0)

    def _checkpoint(self, height: int) -> _Checkpoint:
        for checkpoint in self._checkpoints:
            if checkpoint.height == height:
                return checkpoint
        raise QnetError(Code.NOT_FOUND, f"no proof can be made at height {height} here any more")


class State:
    """The newest executed accounts: an `AccountReader`, and what a ledger executes on.

    `partitions` is a power of two, 1 to 64; no result depends on it.  Locks let admission and the
    gateway read on one thread while a block is applied on another, and see one height only; a read
    never waits for the tree.
    """

    def __init__(self, partitions: int = 1) -> None:
        if not 1 <= partitions <= PARTITIONS_MAX or partitions & (partitions - 1):
            raise QnetError(
                Code.CONFIGURATION_INVALID, f"{partitions} state partitions; a power of two to 64"
            )
        self.height = 0
        self._depth = partitions.bit_length() - 1
        self._partitions = [Partition(self._depth) for _ in range(partitions)]
        self._lock = Lock()
        """Around accounts; taken after `_tree_lock` where both are."""
        self._tree_lock = Lock()

    def __len__(self) -> int:
        """How many accounts exist."""
        return sum(len(partition.accounts) for partition in self._partitions)

    def read(self, addresses: npt.NDArray[np.uint8]) -> AccountColumns:
        """The accounts of `addresses`, uint8[n, 32]."""
        return self.read_at(addresses)[1]

    def read_at(self, addresses: npt.NDArray[np.uint8]) -> tuple[int, AccountColumns]:
        """(height, accounts of `addresses` at that height)."""
        keys = split_rows(addresses)
        with self._lock:
            if not self._depth:
                return self.height, self._partitions[0].accounts.read(keys)
            return self.height, self._read_partitioned(addresses, keys)

    def apply(self, height: int, write_set: WriteSet) -> None:
        """Sets what the block at `height` left changed; heights come in order.

        Raises `QnetError(DATA_CORRUPT)` for another height or a write set of the wrong form.
        """
        if height != self.height + 1:
            raise QnetError(Code.DATA_CORRUPT, f"height {height} follows {self.height}")
        self._write(height, write_set)

    def load(self, height: int, accounts: WriteSet) -> None:
        """Fills an empty state with the accounts of a snapshot at `height`."""
        if self.height or len(self):
            raise QnetError(Code.DATA_CORRUPT, "a snapshot is loaded into an empty state only")
        self._write(height, accounts)

    def replace(self, height: int, parts: Iterable[WriteSet]) -> None:
        """Forgets everything for the accounts at `height`; each stands in one part.

        A reader sees the old state until the new one is complete.  Raises
        `QnetError(DATA_CORRUPT)` where a part has the wrong form; then the old state stands.
        """
        fresh = [Partition(self._depth) for _ in self._partitions]
        for part in parts:
            addresses, values = write_set_columns(part)
            for index, rows in self._placed(addresses):
                columns = AccountColumns(
                    values.nonces[rows], values.balances[rows], values.key_ids[rows]
                )
                fresh[index].fill(addresses[rows], columns)
        with self._tree_lock, self._lock:
            self._partitions = fresh
            self.height = height

    def root(self) -> bytes:
        """The state root at the present height, under which `prove` proves for a while."""
        with self._tree_lock:
            with self._lock:
                cuts = [partition.cut(self.height) for partition in self._partitions]
            pairs = zip(self._partitions, cuts, strict=True)
            return levels_of([partition.update(cut) for partition, cut in pairs])[0][0].hash

    def prove(self, address: bytes, height: int) -> tuple[bytes, Account | None, AccountProof]:
        """(root, account or None, proof) at one of the last heights that `root` was asked at.

        Raises `QnetError(NOT_FOUND)` for another height.
        """
        key = key_hash(address)
        owner = self._partitions[self._index(key)]
        with self._tree_lock:
            with self._lock:
                account = owner.account_at(address, height)
            root, proof = prove_through(
                key,
                [partition.root_at(height) for partition in self._partitions],
                lambda index: self._partitions[index].prove_at(key, height)[1],
            )
            exists, _ = owner.prove_at(key, height)
        return root, account if exists else None, proof

    def snapshot(self) -> WriteSet:
        """All accounts at the present height, in no particular order.

        Copies of the columns and no more, 30 ms for a million accounts: blocks wait meanwhile.
        """
        with self._lock:
            parts = [partition.accounts.columns() for partition in self._partitions]
        return WriteSet(
            addresses=b"".join(addresses.tobytes() for addresses, _ in parts),
            nonces=b"".join(v.nonces.astype("<u8", copy=False).tobytes() for _, v in parts),
            balances=b"".join(v.balances.astype("<u8", copy=False).tobytes() for _, v in parts),
            key_ids=b"".join(v.key_ids.tobytes() for _, v in parts),
        )

    def _index(self, key: bytes) -> int:
        return key[0] >> (8 - self._depth)

    def _write(self, height: int, write_set: WriteSet) -> None:
        addresses, values = write_set_columns(write_set)
        keys = split_rows(addresses)
        with self._lock:
            self.height = height
            if not self._depth:
                self._partitions[0].write(keys, values)
                return
            for index, rows in self._placed(addresses):
                part = AccountColumns(
                    values.nonces[rows], values.balances[rows], values.key_ids[rows]
                )
                self._partitions[index].write([keys[row] for row in rows.tolist()], part)

    def _read_partitioned(
        self, addresses: npt.NDArray[np.uint8], keys: list[bytes]
    ) -> AccountColumns:
        columns = AccountColumns(
            np.zeros(len(keys), dtype=np.uint64),
            np.zeros(len(keys), dtype=np.uint64),
            np.zeros((len(keys), 32), dtype=np.uint8),
        )
        for index, rows in self._placed(addresses):
            part = self._partitions[index].accounts.read([keys[row] for row in rows.tolist()])
            columns.nonces[rows] = part.nonces
            columns.balances[rows] = part.balances
            columns.key_ids[rows] = part.key_ids
        return columns

    def _placed(
        self, addresses: npt.NDArray[np.uint8]
    ) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """(partition, rows of `addresses` that are its), for the partitions that have any."""
        owners = key_hashes(addresses)[:, 0] >> (8 - self._depth)
        for index in np.unique(owners).tolist():
            yield index, np.flatnonzero(owners == index)


def _account(values: AccountColumns, row: int) -> Account:
    return Account(
        int(values.nonces[row]), int(values.balances[row]), values.key_ids[row].tobytes()
    )


def key_hashes(addresses: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Where addresses stand in the tree, uint8[n, 32] both."""
    return hash_fixed(STATE_KEY, addresses)


def genesis_write_set(genesis: Genesis) -> WriteSet:
    """The accounts that genesis creates, sorted; those without a balance do not exist."""
    accounts = sorted((a.address, a.balance) for a in genesis.accounts if a.balance)
    count = len(accounts)
    return WriteSet(
        addresses=b"".join(address for address, _ in accounts),
        nonces=bytes(8 * count),
        balances=np.array([balance for _, balance in accounts], dtype="<u8").tobytes(),
        key_ids=bytes(32 * count),
    )


def write_set_columns(write_set: WriteSet) -> tuple[npt.NDArray[np.uint8], AccountColumns]:
    """Addresses uint8[n, 32] and values of a write set.

    Raises `QnetError(DATA_CORRUPT)` where columns differ in length or addresses do not rise.
    """
    count = len(write_set.addresses) // 32
    lengths = [len(write_set.addresses), len(write_set.key_ids)]
    lengths += [4 * len(write_set.nonces), 4 * len(write_set.balances)]
    if lengths != [32 * count] * 4:
        raise QnetError(Code.DATA_CORRUPT, "the columns of a write set differ in length")
    addresses = np.frombuffer(write_set.addresses, dtype=np.uint8).reshape(count, 32)
    keys = split_rows(addresses)
    if not all(map(lt, keys, keys[1:])):
        raise QnetError(Code.DATA_CORRUPT, "the addresses of a write set do not rise")
    values = AccountColumns(
        np.frombuffer(write_set.nonces, dtype="<u8"),
        np.frombuffer(write_set.balances, dtype="<u8"),
        np.frombuffer(write_set.key_ids, dtype=np.uint8).reshape(count, 32),
    )
    return addresses, values
