"""What the ledger makes durable, and what it asks of whatever keeps it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qnet_actors.wire.blocks import BlockRecord, Certificate, WriteSet
from qnet_actors.wire.codes import Code, QnetError


@dataclass(frozen=True, slots=True)
class BlockWrite:
    """An executed block; `encoded` are the canonical bytes of `record`."""

    record: BlockRecord
    block_hash: bytes
    encoded: bytes


@dataclass(frozen=True, slots=True)
class CertificateWrite:
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class SnapshotWrite:
    """All accounts after the block at `height`: shortens the next start, and may be lost."""

    height: int
    state_root: bytes
    accounts: WriteSet


Write = BlockWrite | CertificateWrite | SnapshotWrite


@dataclass(frozen=True, slots=True)
class Place:
    """Where a transaction stands."""

    height: int
    position: int


class BlockQueries(Protocol):
    """Reads of the block log for gateways; they may wait for a disk and run off the event loop."""

    def last_height(self) -> int:
        """The height of the last durable block; 0: none."""

    def records(self, first_height: int, count_max: int, size_bytes_max: int) -> list[bytes]:
        """Consecutive records from `first_height` on, as many as fit; at least one if there is."""

    def newest_certificate(self) -> Certificate | None: ...

    def certificate_from(self, height: int) -> Certificate | None:
        """The certificate of the lowest checkpoint at or above `height` that has one."""

    def headers(self, first_height: int, count_max: int) -> list[bytes]:
        """Canonical headers of consecutive blocks."""

    def height_of(self, block_hash: bytes) -> int | None:
        """The height of a block by its hash."""

    def find_transaction(self, id_: bytes) -> Place | None:
        """Where an included transaction stands."""


class BlockReader(Protocol):
    """What a ledger reads of its log; the calls may wait for a disk."""

    def last_height(self) -> int:
        """The height of the last durable block; 0: none."""

    def records(self, first_height: int, count_max: int, size_bytes_max: int) -> list[bytes]:
        """Consecutive records from `first_height` on, as many as fit; at least one if there is."""

    def certificate_within(self, first_height: int, last_height: int) -> Certificate | None:
        """The certificate of the highest checkpoint of the range that has one."""

    def newest_certificate(self) -> Certificate | None: ...


class BlockLog(BlockReader, BlockQueries, Protocol):
    """The durable side of a ledger; also the `Storage` of its driver."""

    def write(self, writes: Sequence[Any]) -> None:
        """Makes `Write`s durable, in order; after a crash each is there whole or not at all."""

    def snapshots(self) -> Iterator[SnapshotWrite]:
        """Snapshots of the state, newest first."""

    def close(self) -> None: ...


def receipt_id(receipt: bytes) -> bytes:
    """The transaction id in a canonical receipt: behind the array's and the id's headers."""
    return receipt[3:35]


def check_height(last_height: int, block: BlockWrite) -> None:
    """Raises `QnetError(DATA_CORRUPT)` where a block does not follow the last one kept."""
    height = block.record.header.height
    if height != last_height + 1:
        raise QnetError(Code.DATA_CORRUPT, f"block {height} where {last_height + 1} was due")
