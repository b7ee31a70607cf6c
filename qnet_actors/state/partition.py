"""The state of a validator: accounts and tree, in partitions by the prefix of the key hash."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from threading import Lock
from typing import Final

import numpy as np
import numpy.typing as npt

from qnet_actors.kernels.blake3 import hash_fixed, hash_short
from qnet_actors.kernels.tree import account_messages
from qnet_actors.light import Account, AccountProof, OtherLeaf, bit, key_hash
from qnet_actors.rooms import AccountColumns
from qnet_actors.state.accounts import Accounts, split_rows
from qnet_actors.state.fast_tree import FastTree
from qnet_actors.state.tree import Kind, Subtree, combine
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.hashing import STATE_KEY, STATE_VALUE, ZERO_DIGEST

PARTITIONS_MAX: Final = 64
_ROW_BYTES: Final = 32 + 8 + 8 + 32


Changed = tuple[npt.NDArray[np.uint8], AccountColumns]
"""Addresses and values of accounts."""


class Partition:
    """Accounts whose key hash begins with one prefix, with the part of the tree over them."""

    def __init__(self, depth: int) -> None:
        self.accounts = Accounts()
        self.tree = FastTree(depth)
        self._changed: list[npt.NDArray[np.int64]] = []

    def write(self, addresses: list[bytes], values: AccountColumns) -> None:
        self._changed.append(self.accounts.write(addresses, values))

    def take_changed(self) -> Changed | None:
        """Copies of the accounts that were written since this was asked last."""
        if not self._changed:
            return None
        rows = np.unique(np.concatenate(self._changed))
        self._changed.clear()
        return self.accounts.at(rows)

    def update(self, changed: Changed | None) -> Subtree:
        """Brings the tree up to `changed`; returns its root.  Costs about 2 us an account."""
        if changed is not None:
            addresses, values = changed
            rows, lengths = account_messages(values.nonces, values.balances, values.key_ids)
            self.tree.update(key_hashes(addresses), hash_short(STATE_VALUE, rows, lengths))
        return self.tree.root()


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

    def root(self) -> bytes:
        """The state root at the present height."""
        with self._tree_lock:
            with self._lock:
                changed = [partition.take_changed() for partition in self._partitions]
            return self._levels(changed)[0][0].hash

    def prove(self, address: bytes) -> tuple[bytes, Account | None, AccountProof]:
        """(root, account or None, proof) at the present height."""
        key = key_hash(address)
        with self._tree_lock:
            with self._lock:
                changed = [partition.take_changed() for partition in self._partitions]
                account = self._account(address, key)
            levels = self._levels(changed)
            return levels[0][0].hash, account, self._prove(key, levels)

    def snapshot(self) -> WriteSet:
        """All accounts at the present height, sorted by address."""
        with self._lock:
            parts = [partition.accounts.columns() for partition in self._partitions]
        addresses = np.concatenate([addresses for addresses, _ in parts])
        order = np.argsort(np.ascontiguousarray(addresses).view("S32").ravel(), kind="stable")
        return WriteSet(
            addresses=addresses[order].tobytes(),
            nonces=np.concatenate([v.nonces for _, v in parts])[order].astype("<u8").tobytes(),
            balances=np.concatenate([v.balances for _, v in parts])[order].astype("<u8").tobytes(),
            key_ids=np.concatenate([v.key_ids for _, v in parts])[order].tobytes(),
        )

    def _prove(self, key: bytes, levels: list[list[Subtree]]) -> AccountProof:
        """A proof through the combined roots, then through one partition's tree."""
        siblings: list[bytes] = []
        depth = index = 0
        while levels[depth][index].kind == Kind.NODE and depth < self._depth:
            index = 2 * index + bit(key, depth)
            depth += 1
            siblings.append(levels[depth][index ^ 1].hash)
        found = levels[depth][index]
        other: OtherLeaf | None = None
        if found.kind == Kind.NODE:
            below = self._partitions[index].tree.prove(key)
            siblings.extend(below.siblings)
            other = below.other
        elif found.kind == Kind.LEAF:
            # The leaf rose: it is the only one of the partitions below this point.
            while depth < self._depth:
                index = 2 * index + (levels[depth + 1][2 * index].kind == Kind.EMPTY)
                depth += 1
            other = self._partitions[index].tree.prove(key).other
        return AccountProof(tuple(siblings), other)

    def _account(self, address: bytes, key: bytes) -> Account | None:
        values = self._partitions[self._index(key)].accounts.read([address])
        account = Account(
            int(values.nonces[0]), int(values.balances[0]), values.key_ids[0].tobytes()
        )
        return None if account == Account(0, 0, ZERO_DIGEST) else account

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

    def _levels(self, changed: list[Changed | None]) -> list[list[Subtree]]:
        """The combined roots from the whole state (one) down to the partitions."""
        pairs = zip(self._partitions, changed, strict=True)
        levels = [[partition.update(part) for partition, part in pairs]]
        while len(levels[0]) > 1:
            below = levels[0]
            levels.insert(0, [combine(below[i], below[i + 1]) for i in range(0, len(below), 2)])
        return levels


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
    if any(a >= b for a, b in pairwise(keys)):
        raise QnetError(Code.DATA_CORRUPT, "the addresses of a write set do not rise")
    values = AccountColumns(
        np.frombuffer(write_set.nonces, dtype="<u8"),
        np.frombuffer(write_set.balances, dtype="<u8"),
        np.frombuffer(write_set.key_ids, dtype=np.uint8).reshape(count, 32),
    )
    return addresses, values
