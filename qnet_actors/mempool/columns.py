"""Senders by slot: what the pool and admission know of each, as columns for the kernels.

Most senders are regular: the pool has a run of their nonces without a gap, by one key.  Of those
the pool keeps nothing but a slot here and the entries themselves.  Of an irregular one it keeps a
`SenderQueue`, and the slot says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from qnet_actors.kernels.senders import NO_RANK, add_rows, check_rows
from qnet_actors.mempool.senders import AccountRows

_CAPACITY_MIN: Final = 1_024

Slots = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]


class SenderColumns:
    """A sender has a slot while the pool has something of it or its signatures are verified.

    By slot: `firsts` and `frontiers`, between which the pool has every nonce of a regular sender
    (and all it has), `ends`, the nonce behind those that are verified just now (0: not known),
    `pending`, the sum of the entries' costs, `verifying`, how many are verified, `irregular`,
    `ranks`, the rank of the newest entry, and `keys`, the account's key id as four words.
    """

    def __init__(self) -> None:
        self._slot_of: dict[bytes, int] = {}
        self._free: list[int] = []
        self._capacity = 0
        self._stamp = 0
        self.firsts: Words = np.zeros(0, dtype=np.uint64)
        self.frontiers = self.ends = self.pending = self.ranks = self.stamps = self.firsts
        self.verifying: Slots = np.zeros(0, dtype=np.int64)
        self.irregular: Flags = np.zeros(0, dtype=np.bool_)
        self.keys: Words = np.zeros((0, 4), dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._slot_of)

    def get(self, sender: bytes) -> int | None:
        """The slot of `sender`, if it has one."""
        return self._slot_of.get(sender)

    def slot(self, sender: bytes) -> int:
        """The slot of `sender`, which has one from now on."""
        slot = self._slot_of.get(sender)
        return int(self.slots((sender,))[0]) if slot is None else slot

    def slots(self, senders: Sequence[bytes]) -> Slots:
        """The slots of `senders`, which have one from now on."""
        found = list(map(self._slot_of.get, senders))
        if None in found:
            fresh = []
            for row, slot in enumerate(found):
                if slot is None:
                    sender = senders[row]
                    slot = self._slot_of.get(sender)
                    if slot is None:
                        slot = self._take()
                        self._slot_of[sender] = slot
                        fresh.append(slot)
                    found[row] = slot
            for column in (self.firsts, self.frontiers, self.ends, self.pending, self.verifying):
                column[fresh] = 0
            self.irregular[fresh] = False
            self.ranks[fresh] = NO_RANK
        return np.array(found, dtype=np.int64)

    def _take(self) -> int:
        if not self._free:
            start, self._capacity = self._capacity, max(2 * self._capacity, _CAPACITY_MIN)
            for name in ("firsts", "frontiers", "ends", "pending", "ranks", "stamps"):
                self._grow(name)
            for name in ("verifying", "irregular", "keys"):
                self._grow(name)
            self._free = list(range(self._capacity - 1, start - 1, -1))
        return self._free.pop()

    def _grow(self, name: str) -> None:
        old = getattr(self, name)
        new = np.zeros((self._capacity, *old.shape[1:]), dtype=old.dtype)
        new[: len(old)] = old
        setattr(self, name, new)

    def release(self, senders: Iterable[bytes]) -> None:
        """Takes the slots of those of whom nothing is left."""
        for sender in senders:
            slot = self._slot_of.get(sender)
            if (
                slot is not None
                and not self.verifying[slot]
                and not self.irregular[slot]
                and self.firsts[slot] == self.frontiers[slot]
            ):
                del self._slot_of[sender]
                self._free.append(slot)

    def idle(self, slots: Slots) -> bool:
        """Whether nothing is left of the sender of one of `slots`."""
        left = self.verifying[slots] + self.irregular[slots]
        return bool(np.any((left == 0) & (self.firsts[slots] == self.frontiers[slots])))

    def check(
        self,
        slots: Slots,
        nonces: Words,
        costs: Words,
        accounts: AccountRows,
        usable: Flags,
        sender_max: int,
    ) -> Flags:
        """Which rows are plainly worth a look at their signature: they are verified from now on.

        `usable`: nothing but the nonce, the balance and the sender's limit is to be looked at.
        """
        self._stamp += 1
        taken = np.empty(len(slots), dtype=np.bool_)
        check_rows(
            slots,
            nonces,
            costs,
            accounts.nonces,
            accounts.balances,
            usable,
            np.uint64(sender_max),
            np.uint64(self._stamp),
            self.firsts,
            self.frontiers,
            self.ends,
            self.pending,
            self.verifying,
            self.irregular,
            self.stamps,
            taken,
        )
        return taken

    def add(
        self,
        slots: Slots,
        nonces: Words,
        costs: Words,
        prices: Words,
        accounts: AccountRows,
        usable: Flags,
        sender_max: int,
    ) -> tuple[Flags, Words, Words]:
        """(which rows are plainly added, their ranks, their places uint64[n, 2])."""
        self._stamp += 1
        taken = np.empty(len(slots), dtype=np.bool_)
        ranks = np.empty(len(slots), dtype=np.uint64)
        places = np.empty((len(slots), 2), dtype=np.uint64)
        add_rows(
            slots,
            nonces,
            costs,
            prices,
            accounts.nonces,
            accounts.balances,
            usable,
            accounts.key_words.reshape(-1),
            np.uint64(sender_max),
            np.uint64(self._stamp),
            self.firsts,
            self.frontiers,
            self.ends,
            self.pending,
            self.irregular,
            self.stamps,
            self.ranks,
            self.keys,
            taken,
            ranks,
            places,
        )
        return taken, ranks, places
