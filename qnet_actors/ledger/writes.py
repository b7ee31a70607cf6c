"""What the ledger makes durable, and what it asks of whatever keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qnet_actors.wire.blocks import BlockRecord, Certificate, WriteSet
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.snapshots import SECTION_ACCOUNTS_CODEC, SnapshotManifest, SnapshotSection


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
    """All accounts after the block at `height`, in any order; may be lost.

    It shortens the next start, and is what others join from.
    """

    height: int
    state_root: bytes
    commits: tuple[Commit, ...]
    """The commits up to that block's, back to gc_round at least."""
    accounts: WriteSet


@dataclass(frozen=True, slots=True)
class JoinWrite:
    """The snapshot of a peer is being fetched; one that was before is given up."""

    manifest: SnapshotManifest | None
    """None: none is fetched any more."""


@dataclass(frozen=True, slots=True)
class SectionWrite:
    """A checked section of it: see `wire.messages.SnapshotRequest` for the number of the part."""

    part: int
    data: bytes


@dataclass(frozen=True, slots=True)
class JoinedWrite:
    """All of it is here: the log goes on from its block, whatever it held before."""

    block: BlockWrite
    certificate: Certificate


Write = BlockWrite | CertificateWrite | SnapshotWrite | JoinWrite | SectionWrite | JoinedWrite


class HeldSnapshot(Protocol):
    """A snapshot that is kept; its accounts are read as they are asked for."""

    @property
    def height(self) -> int: ...

    @property
    def state_root(self) -> bytes: ...

    @property
    def commits(self) -> tuple[Commit, ...]: ...

    @property
    def sections(self) -> tuple[SnapshotSection, ...]: ...

    def part(self, number: int) -> bytes | None:
        """The canonical accounts of the `number`-th section that is not empty, from 1."""


class Joining(Protocol):
    """A snapshot of a peer, fetched in part or whole."""

    @property
    def manifest(self) -> SnapshotManifest: ...

    @property
    def parts(self) -> frozenset[int]:
        """Those that are here."""

    def part(self, number: int) -> bytes | None:
        """See `HeldSnapshot`."""


def part_count(sections: Sequence[SnapshotSection]) -> int:
    """How many sections have accounts."""
    return sum(section.kind != 0 for section in sections)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a transaction stands."""

    height: int
    position: int


def all_parts(
    part: Callable[[int], bytes | None], sections: Sequence[SnapshotSection]
) -> Iterator[WriteSet]:
    """The accounts of all sections in order.

    Raises `QnetError(DATA_CORRUPT)` where a part lacks or does not decode.
    """
    for number in range(1, part_count(sections) + 1):
        data = part(number)
        if data is None:
            raise QnetError(Code.DATA_CORRUPT, f"part {number} of a snapshot lacks")
        yield SECTION_ACCOUNTS_CODEC.decode(data)


class BlockQueries(Protocol):
    """Reads of the block log for gateways; they may wait for a disk and run off the event loop."""

    def first_height(self) -> int:
        """From here to the last height no block lacks: 1, or the block that was joined at.

        What is below may be pruned.
        """

    def first_header_height(self) -> int:
        """From here to the last height no header lacks."""

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
        """Where an included transaction stands.

        In a block that is pruned it is known by the first bytes of its id alone.
        """


class BlockReader(Protocol):
    """What a ledger reads of its log; the calls may wait for a disk."""

    def last_height(self) -> int:
        """The height of the last durable block; 0: none."""

    def records(self, first_height: int, count_max: int, size_bytes_max: int) -> list[bytes]:
        """Consecutive records from `first_height` on, as many as fit; at least one if there is."""

    def certificate_within(self, first_height: int, last_height: int) -> Certificate | None:
        """The certificate of the highest checkpoint of the range that has one."""

    def newest_certificate(self) -> Certificate | None: ...

    def snapshot_heights(self) -> list[int]:
        """The heights of the snapshots that are kept, falling."""

    def snapshot(self, height: int) -> HeldSnapshot | None:
        """A snapshot; None where there is none, or it cannot be read: it is derived data."""

    def joining(self) -> Joining | None:
        """What is here of a peer's snapshot."""


class BlockLog(BlockReader, BlockQueries, Protocol):
    """The durable side of a ledger; also the `Storage` of its driver."""

    def write(self, writes: Sequence[Any]) -> None:
        """Makes `Write`s durable, in order; after a crash each is there whole or not at all."""

    def close(self) -> None: ...


def receipt_id(receipt: bytes) -> bytes:
    """The transaction id in a canonical receipt: behind the array's and the id's headers."""
    return receipt[3:35]


def check_height(last_height: int, block: BlockWrite) -> None:
    """Raises `QnetError(DATA_CORRUPT)` where a block does not follow the last one kept."""
    height = block.record.header.height
    if height != last_height + 1:
        raise QnetError(Code.DATA_CORRUPT, f"block {height} where {last_height + 1} was due")
