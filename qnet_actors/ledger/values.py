"""Accounts while a block executes one transaction after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from qnet_actors.ledger.outcome import Reader
from qnet_actors.wire.blocks import WriteSet


@dataclass(frozen=True, slots=True)
class Values:
    """An account while a block executes."""

    nonce: int
    balance: int
    key_id: bytes


class AccountMap(Protocol):
    """Accounts by address, as they are now."""

    def __getitem__(self, address: bytes) -> Values: ...

    def __setitem__(self, address: bytes, values: Values) -> None: ...

    def fetch(self, addresses: list[bytes]) -> None:
        """Reads those that are not here yet, with one call."""


class Given(NamedTuple):
    """What an account is made into, whatever its balance is."""

    nonce: int
    key_id: bytes
    paid: int
    """Is added to the balance."""


class Draft:
    """Changes to accounts that are made wholly or not at all; only `commit` makes them."""

    def __init__(self, under: AccountMap, given: Mapping[bytes, Given]) -> None:
        """`given` stands in it from the start, as if it had been set."""
        self._under = under
        self._given = given
        self._changed: dict[bytes, Values] = {}

    def __getitem__(self, address: bytes) -> Values:
        changed = self._changed.get(address)
        if changed is not None:
            return changed
        values, given = self._under[address], self._given.get(address)
        if given is None:
            return values
        return Values(given.nonce, values.balance + given.paid, given.key_id)

    def __setitem__(self, address: bytes, values: Values) -> None:
        self._changed[address] = values

    def fetch(self, addresses: list[bytes]) -> None:
        self._under.fetch(addresses)

    def commit(self) -> None:
        addresses = list({**self._given, **self._changed})
        self._under.fetch(addresses)
        for address, values in [(address, self[address]) for address in addresses]:
            self._under[address] = values


@dataclass(slots=True)
class Accounts:
    """The accounts that a block has touched, as it found them and as they are now."""

    reader: Reader
    before: dict[bytes, Values] = field(default_factory=dict)
    now: dict[bytes, Values] = field(default_factory=dict)

    def __getitem__(self, address: bytes) -> Values:
        if address not in self.now:
            self.fetch([address])
        return self.now[address]

    def __setitem__(self, address: bytes, values: Values) -> None:
        if address not in self.now:
            self.fetch([address])
        self.now[address] = values

    def fetch(self, addresses: list[bytes]) -> None:
        """Reads those that are not here yet, with one call."""
        missing = [address for address in dict.fromkeys(addresses) if address not in self.now]
        if not missing:
            return
        columns = np.frombuffer(b"".join(missing), dtype=np.uint8).reshape(-1, 32)
        read = self.reader.read(columns)
        for row, address in enumerate(missing):
            values = Values(
                int(read.nonces[row]), int(read.balances[row]), read.key_ids[row].tobytes()
            )
            self.before[address] = self.now[address] = values

    def write_set(self) -> WriteSet:
        """The accounts that differ from what they were, sorted by address."""
        changed = sorted(a for a in self.now if self.now[a] != self.before[a])
        values = [self.now[address] for address in changed]
        return WriteSet(
            addresses=b"".join(changed),
            nonces=b"".join(v.nonce.to_bytes(8, "little") for v in values),
            balances=b"".join(v.balance.to_bytes(8, "little") for v in values),
            key_ids=b"".join(v.key_id for v in values),
        )
