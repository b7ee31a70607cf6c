"""What executing a block leaves: the same for the specification and for the fast path."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from qnet_actors.rooms import AccountColumns
from qnet_actors.wire.blocks import WriteSet


class Reader(Protocol):
    """The state as of the block before."""

    def read(self, addresses: npt.NDArray[np.uint8]) -> AccountColumns: ...


class LedgerState(Reader, Protocol):
    """The state as the ledger changes it: `state.State`, or one over partitions elsewhere."""

    @property
    def height(self) -> int:
        """Of the newest block applied."""

    def apply(self, height: int, write_set: WriteSet) -> None:
        """Sets what the block at `height`, the next, left changed."""

    def load(self, height: int, accounts: WriteSet) -> None:
        """Fills an empty state."""

    def root(self) -> bytes:
        """The state root at the present height."""

    def replace(self, height: int, parts: Iterable[WriteSet]) -> None:
        """Forgets everything for the accounts at `height`; each stands in one part."""

    def snapshot(self) -> WriteSet:
        """All accounts, in no particular order."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The included transactions of a block in order, and what they changed."""

    ids: list[bytes]
    bodies: list[bytes]
    receipts: list[bytes]
    """Canonical `Receipt`s."""
    excluded: list[bytes]
    """Ids of those that were not included, in order."""
    failed_count: int
    gas_used: int
    write_set: WriteSet
