"""The state over partitions that live elsewhere: the same results as `partition.State`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from qnet_actors.light import Account, AccountProof, key_hash
from qnet_actors.rooms import AccountColumns
from qnet_actors.state.accounts import Accounts, split_rows
from qnet_actors.state.partition import PARTITIONS_MAX, key_hashes, write_set_columns
from qnet_actors.state.ports import (
    Answer,
    Everything,
    Port,
    Prove,
    Put,
    Read,
    Request,
    Reset,
    Root,
    RootAt,
    account_columns,
    accounts_of,
    ask,
    column_bytes,
    done,
    proved_of,
    root_of,
    values_of,
)
from qnet_actors.state.proving import levels_of, prove_through
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.codes import Code, QnetError


class PartitionedState:
    """What a ledger executes on, over a power of two of partitions, 1 to 64.

    Belongs to one thread.  A read or a write is one call to each partition that it concerns, and
    the calls run side by side.
    """

    def __init__(self, partitions: Sequence[Port]) -> None:
        """Empties the partitions."""
        count = len(partitions)
        if not 1 <= count <= PARTITIONS_MAX or count & (count - 1):
            raise QnetError(
                Code.CONFIGURATION_INVALID, f"{count} state partitions; a power of two to 64"
            )
        self.height = 0
        self._ports: Final = tuple(partitions)
        self._depth: Final = count.bit_length() - 1
        for answer in self._ask_all(Reset(self._depth)):
            done(answer)

    def read(self, addresses: npt.NDArray[np.uint8]) -> AccountColumns:
        """The accounts of `addresses`, uint8[n, 32]."""
        columns = AccountColumns(
            np.zeros(len(addresses), dtype=np.uint64),
            np.zeros(len(addresses), dtype=np.uint64),
            np.zeros((len(addresses), 32), dtype=np.uint8),
        )
        waits = [
            (rows, ask(self._ports[index], Read(addresses[rows].tobytes())))
            for index, rows in self._placed(addresses)
        ]
        for rows, wait in waits:
            part = values_of(wait())
            columns.nonces[rows] = part.nonces
            columns.balances[rows] = part.balances
            columns.key_ids[rows] = part.key_ids
        return columns

    def apply(self, height: int, write_set: WriteSet) -> None:
        """Sets what the block at `height` left changed; heights come in order.

        Raises `QnetError(DATA_CORRUPT)` for another height or a write set of the wrong form.
        """
        if height != self.height + 1:
            raise QnetError(Code.DATA_CORRUPT, f"height {height} follows {self.height}")
        self._write(height, write_set)

    def load(self, height: int, accounts: WriteSet) -> None:
        """Fills an empty state with the accounts of a snapshot at `height`."""
        if self.height or self.snapshot().addresses:
            raise QnetError(Code.DATA_CORRUPT, "a snapshot is loaded into an empty state only")
        self._write(height, accounts)

    def replace(self, height: int, parts: Iterable[WriteSet]) -> None:
        """Forgets everything for the accounts at `height`; each stands in one part."""
        for answer in self._ask_all(Reset(self._depth)):
            done(answer)
        for part in parts:
            self._write(height, part)
        self.height = height

    def root(self) -> bytes:
        """The state root at the present height."""
        roots = [root_of(answer) for answer in self._ask_all(Root(self.height))]
        return levels_of(roots)[0][0].hash

    def snapshot(self) -> WriteSet:
        """All accounts at the present height, in no particular order."""
        parts = [accounts_of(answer) for answer in self._ask_all(Everything())]
        return WriteSet(
            addresses=b"".join(part.addresses for part in parts),
            nonces=b"".join(part.nonces for part in parts),
            balances=b"".join(part.balances for part in parts),
            key_ids=b"".join(part.key_ids for part in parts),
        )

    def _write(self, height: int, accounts: WriteSet) -> None:
        addresses, values = write_set_columns(accounts)
        self.height = height
        waits = [
            ask(self._ports[index], Put(column_bytes(addresses[rows], _rows(values, rows))))
            for index, rows in self._placed(addresses)
        ]
        for wait in waits:
            done(wait())

    def _ask_all(self, request: Request) -> list[Answer]:
        waits = [ask(port, request) for port in self._ports]
        return [wait() for wait in waits]

    def _placed(
        self, addresses: npt.NDArray[np.uint8]
    ) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """(partition, rows of `addresses` that are its), for the partitions that have any."""
        if not len(addresses):
            return
        # In 16 bits, since one partition shifts by 8.
        owners = key_hashes(addresses)[:, 0].astype(np.uint16) >> (8 - self._depth)
        for index in np.unique(owners).tolist():
            yield index, np.flatnonzero(owners == index)


class PartitionedProofs:
    """Proofs from the partitions of a `PartitionedState`, whichever process that lives in."""

    def __init__(self, partitions: Sequence[Port]) -> None:
        self._ports: Final = tuple(partitions)
        self._depth: Final = len(self._ports).bit_length() - 1

    def prove(self, address: bytes, height: int) -> tuple[bytes, Account | None, AccountProof]:
        """(root, account or None, proof) at one of the last heights that had a root.

        Raises `QnetError(NOT_FOUND)` for another height.
        """
        key = key_hash(address)
        waits = [ask(port, RootAt(height)) for port in self._ports]
        owner = proved_of(ask(self._ports[key[0] >> (8 - self._depth)], Prove(address, height))())
        root, proof = prove_through(
            key,
            [root_of(wait()) for wait in waits],
            lambda index: proved_of(ask(self._ports[index], Prove(address, height))()).proof,
        )
        return root, owner.account, proof


class AccountReplica:
    """A copy of the accounts, without the tree, for readers in another process than the state.

    It follows the executed blocks, so a mempool shard reads without asking anybody.
    """

    def __init__(self, height: int, accounts: WriteSet) -> None:
        self.height = height
        self._accounts = Accounts()
        addresses, values = account_columns(accounts)
        self._accounts.write(split_rows(addresses), values)

    def read(self, addresses: npt.NDArray[np.uint8]) -> AccountColumns:
        """The accounts of `addresses`, uint8[n, 32]."""
        return self._accounts.read(split_rows(addresses))

    def apply(self, height: int, write_set: WriteSet) -> None:
        """Raises `QnetError(DATA_CORRUPT)` for another height than the next."""
        if height != self.height + 1:
            raise QnetError(Code.DATA_CORRUPT, f"height {height} follows {self.height}")
        addresses, values = write_set_columns(write_set)
        self._accounts.write(split_rows(addresses), values)
        self.height = height


def _rows(values: AccountColumns, rows: npt.NDArray[np.int64]) -> AccountColumns:
    return AccountColumns(values.nonces[rows], values.balances[rows], values.key_ids[rows])
