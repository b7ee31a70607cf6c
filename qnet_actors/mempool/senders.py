"""A sender in the pool: its account, and its entries by nonce."""

from __future__ import annotations

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

    __slots__ = ("balances", "current", "key_words", "nonces")

    def __init__(
        self,
        columns: AccountColumns,
        senders: npt.NDArray[np.uint8],
        key_ids: npt.NDArray[np.uint8],
    ) -> None:
        """`senders` and `key_ids`, which those would use, are uint8[n, 32]."""
        count = len(senders)
        keys = np.ascontiguousarray(columns.key_ids)
        self.nonces = np.ascontiguousarray(columns.nonces, dtype=np.uint64)
        self.balances = np.ascontiguousarray(columns.balances, dtype=np.uint64)
        # Eight bytes at a time: comparing single ones would take four times as long.
        self.key_words = keys.reshape(count, 32).view(np.uint64)
        """uint64[n, 4]: the accounts' key ids."""
        fresh = ~self.key_words.any(axis=1, keepdims=True)
        expected = np.where(fresh, _words(senders), self.key_words)
        self.current: npt.NDArray[np.bool_] = (_words(key_ids) == expected).all(axis=1)
        """Whether `key_ids` names the key that the account has, rotations in the pool apart."""

    def account(self, row: int) -> Account:
        return Account(
            int(self.nonces[row]), int(self.balances[row]), self.key_words[row].tobytes()
        )


def _words(digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """uint64[n, 4], for comparison only."""
    return np.ascontiguousarray(digests).view(np.uint64)


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
