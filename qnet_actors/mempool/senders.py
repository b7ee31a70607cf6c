"""A sender in the pool: its account, and its entries by nonce."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qnet_actors.mempool.entries import Entry
from qnet_actors.rooms import AccountColumns
from qnet_actors.wire.hashing import ZERO_DIGEST


class Account(NamedTuple):
    """What the state says of a sender."""

    nonce: int
    balance: int
    key_id: bytes
    """Zeros: the account has no key yet."""


class AccountRows:
    """The accounts of rows' senders, as columns."""

    __slots__ = ("_key_ids", "balances", "current", "nonces")

    def __init__(
        self, columns: AccountColumns, senders: Sequence[bytes], key_ids: Sequence[bytes]
    ) -> None:
        count = len(senders)
        keys = np.ascontiguousarray(columns.key_ids)
        self._key_ids = keys.tobytes()
        self.nonces: list[int] = columns.nonces.tolist()
        self.balances: list[int] = columns.balances.tolist()
        # Eight bytes at a time: comparing single ones would take four times as long.
        words = keys.reshape(count, 32).view(np.uint64)
        fresh = ~words.any(axis=1, keepdims=True)
        expected = np.where(fresh, _words(senders), words)
        self.current: list[bool] = (_words(key_ids) == expected).all(axis=1).tolist()
        """Whether `key_ids` names the key that the account has, rotations in the pool apart."""

    def account(self, row: int) -> Account:
        return Account(
            self.nonces[row], self.balances[row], self._key_ids[32 * row : 32 * row + 32]
        )


def _words(digests: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    """uint64[n, 4], for comparison only."""
    return np.frombuffer(b"".join(digests), dtype=np.uint64).reshape(len(digests), 4)


class SenderQueue:
    """A sender's entries by nonce."""

    __slots__ = (
        "address",
        "ahead_cost",
        "ahead_nonce",
        "cost",
        "entries",
        "frontier",
        "key_id",
        "nonce",
        "rotations",
    )

    def __init__(self, address: bytes, account: Account) -> None:
        self.address = address
        self.nonce = account.nonce
        """The account's next nonce, as of the last block heard of."""
        self.key_id = account.key_id
        self.entries: dict[int, Entry] = {}
        self.cost = 0
        self.frontier = account.nonce
        """The first nonce missing: all before it are batched, seen or ready."""
        self.rotations: dict[int, bytes] = {}
        # Where the state is ahead of the blocks heard of: its nonce, and the cost of the entries
        # before that.  0: not known.
        self.ahead_nonce = 0
        self.ahead_cost = 0

    def key_at(self, nonce: int, key_id: bytes) -> bytes:
        """The key id that is valid at `nonce`, the account's own being `key_id`."""
        key = self.address if key_id == ZERO_DIGEST else key_id
        if self.rotations:
            before = [at for at in self.rotations if at < nonce]
            if before:
                key = self.rotations[max(before)]
        return key

    def cost_from(self, nonce: int) -> int:
        """What the entries from `nonce` on can take; those before it are paid for already."""
        if nonce <= self.nonce:
            return self.cost
        if nonce != self.ahead_nonce:
            self.ahead_nonce = nonce
            self.ahead_cost = sum(e.cost for at, e in self.entries.items() if at < nonce)
        return self.cost - self.ahead_cost
