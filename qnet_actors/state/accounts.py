"""Hot accounts in memory: a dictionary from address to row, and columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qnet_actors.rooms import AccountColumns

_CAPACITY_LEAST: Final = 1_024


def split_rows(rows: npt.NDArray[np.uint8]) -> list[bytes]:
    """The rows of a uint8[n, 32] as bytes, at about 25 ns each."""
    split: list[bytes] = np.ascontiguousarray(rows).view("V32").ravel().tolist()
    return split


class Accounts:
    """Accounts in no particular order; columns grow by doubling and never shrink."""

    def __init__(self) -> None:
        self._rows: dict[bytes, int] = {}
        self._addresses: npt.NDArray[np.uint8] = np.zeros((_CAPACITY_LEAST, 32), dtype=np.uint8)
        self._nonces: npt.NDArray[np.uint64] = np.zeros(_CAPACITY_LEAST, dtype=np.uint64)
        self._balances: npt.NDArray[np.uint64] = np.zeros(_CAPACITY_LEAST, dtype=np.uint64)
        self._key_ids: npt.NDArray[np.uint8] = np.zeros((_CAPACITY_LEAST, 32), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, addresses: Sequence[bytes]) -> AccountColumns:
        """Copies of the accounts in the order asked; zeros for those that do not exist."""
        rows = np.fromiter(
            map(self._rows.get, addresses, repeat(-1)), dtype=np.int64, count=len(addresses)
        )
        columns = AccountColumns(self._nonces[rows], self._balances[rows], self._key_ids[rows])
        missing = rows < 0
        if missing.any():
            columns.nonces[missing] = 0
            columns.balances[missing] = 0
            columns.key_ids[missing] = 0
        return columns

    def write(self, addresses: Sequence[bytes], values: AccountColumns) -> npt.NDArray[np.int64]:
        """Sets accounts, of which each may stand once; returns their rows, which never change."""
        rows = self.rows(addresses)
        self.set(rows, addresses, values)
        return rows

    def set(
        self, rows: npt.NDArray[np.int64], addresses: Sequence[bytes], values: AccountColumns
    ) -> None:
        """Sets the accounts of these rows, which `rows` gave for these addresses."""
        self._addresses[rows] = np.frombuffer(b"".join(addresses), dtype=np.uint8).reshape(-1, 32)
        self._nonces[rows] = values.nonces
        self._balances[rows] = values.balances
        self._key_ids[rows] = values.key_ids

    def rows(self, addresses: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """The rows of accounts; those that do not exist get one, of zeros."""
        known = self._rows
        rows = np.fromiter(
            map(known.get, addresses, repeat(-1)), dtype=np.int64, count=len(addresses)
        )
        for place in np.flatnonzero(rows < 0).tolist():
            rows[place] = known.setdefault(addresses[place], len(known))
        self._reserve(len(known))
        return rows

    def row(self, address: bytes) -> int | None:
        """The row of one account; None: it does not exist."""
        return self._rows.get(address)

    def values(self, rows: npt.NDArray[np.int64]) -> AccountColumns:
        """Copies of the values of rows."""
        return AccountColumns(self._nonces[rows], self._balances[rows], self._key_ids[rows])

    def at(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], AccountColumns]:
        """Copies of the addresses and values of rows."""
        return self._addresses[rows], self.values(rows)

    def columns(self) -> tuple[npt.NDArray[np.uint8], AccountColumns]:
        """Addresses and values of all accounts; copies."""
        count = len(self._rows)
        values = AccountColumns(
            self._nonces[:count].copy(),
            self._balances[:count].copy(),
            self._key_ids[:count].copy(),
        )
        return self._addresses[:count].copy(), values

    def _reserve(self, count: int) -> None:
        capacity = len(self._nonces)
        if count <= capacity:
            return
        while capacity < count:
            capacity *= 2
        self._addresses = _grown(self._addresses, capacity)
        self._nonces = _grown(self._nonces, capacity)
        self._balances = _grown(self._balances, capacity)
        self._key_ids = _grown(self._key_ids, capacity)


def _grown(column: npt.NDArray[Any], capacity: int) -> npt.NDArray[Any]:
    larger = np.zeros((capacity, *column.shape[1:]), dtype=column.dtype)
    larger[: len(column)] = column
    return larger
