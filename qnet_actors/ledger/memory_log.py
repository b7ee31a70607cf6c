"""A block log in memory, for the simulator and for tests; it survives what `crash` models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qnet_actors import state
from qnet_actors.ledger.writes import (
    BlockWrite,
    CertificateWrite,
    HeldSnapshot,
    JoinedWrite,
    Joining,
    JoinWrite,
    Place,
    SectionWrite,
    SnapshotWrite,
    check_height,
    part_count,
    receipt_id,
)
from qnet_actors.wire.blocks import Certificate
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.limits import SNAPSHOT_SECTION_ACCOUNTS_MAX
from qnet_actors.wire.snapshots import SnapshotManifest, SnapshotSection

SNAPSHOTS_KEPT = 2


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """See `writes.HeldSnapshot`."""

    height: int
    state_root: bytes
    commits: tuple[Commit, ...]
    sections: tuple[SnapshotSection, ...]
    data: dict[int, bytes]

    def part(self, number: int) -> bytes | None:
        return self.data.get(number)


@dataclass(frozen=True, slots=True)
class _Joining:
    """See `writes.Joining`."""

    manifest: SnapshotManifest
    data: dict[int, bytes] = field(default_factory=dict)

    @property
    def parts(self) -> frozenset[int]:
        return frozenset(self.data)

    def part(self, number: int) -> bytes | None:
        return self.data.get(number)


@dataclass(slots=True)
class _Disk:
    """What is durable."""

    blocks: list[BlockWrite] = field(default_factory=list)
    """Those from `base` + 1 on."""
    base: int = 0
    certificates: dict[int, Certificate] = field(default_factory=dict)
    snapshots: list[_Snapshot] = field(default_factory=list)
    """The newest first."""
    joining: _Joining | None = None
    heights: dict[bytes, int] = field(default_factory=dict)
    places: dict[bytes, Place] = field(default_factory=dict)

    @property
    def last_height(self) -> int:
        return self.base + len(self.blocks)


class MemoryLog:
    """A `BlockLog` whose writes are durable when they return.

    Whoever joins loses the blocks from before.
    """

    def __init__(
        self,
        disk: _Disk | None = None,
        section_accounts_max: int = SNAPSHOT_SECTION_ACCOUNTS_MAX,
    ) -> None:
        self._disk = disk or _Disk()
        self._section_accounts_max = section_accounts_max
        self._alive = True

    def crash(self) -> MemoryLog:
        """The process dies: this handle refuses everything, the returned one is its successor's.

        What was not written is lost with whoever held it, for a write is all or nothing.
        """
        self._alive = False
        return MemoryLog(self._disk, self._section_accounts_max)

    def write(self, writes: Sequence[Any]) -> None:
        disk = self._held()
        for write in writes:
            match write:
                case BlockWrite():
                    check_height(disk.last_height, write)
                    self._append(disk, write)
                case CertificateWrite(certificate):
                    disk.certificates[certificate.checkpoint.height] = certificate
                case SnapshotWrite():
                    self._keep(disk, _snapshot(write, self._section_accounts_max))
                case JoinWrite(manifest):
                    disk.joining = None if manifest is None else _Joining(manifest)
                case SectionWrite(part, data) if disk.joining is not None:
                    disk.joining.data[part] = data
                case JoinedWrite():
                    self._joined(disk, write)
                case _:
                    raise TypeError(f"the ledger does not write {type(write).__name__}")

    def first_height(self) -> int:
        return self._held().base + 1

    def first_header_height(self) -> int:
        return self.first_height()

    def last_height(self) -> int:
        return self._held().last_height

    def records(self, first_height: int, count_max: int, size_bytes_max: int) -> list[bytes]:
        records: list[bytes] = []
        size = 0
        for write in self._from(first_height, count_max):
            size += len(write.encoded)
            if records and size > size_bytes_max:
                break
            records.append(write.encoded)
        return records

    def headers(self, first_height: int, count_max: int) -> list[bytes]:
        return [encode(write.record.header) for write in self._from(first_height, count_max)]

    def certificate_within(self, first_height: int, last_height: int) -> Certificate | None:
        held = self._held().certificates
        heights = [height for height in held if first_height <= height <= last_height]
        return held[max(heights)] if heights else None

    def newest_certificate(self) -> Certificate | None:
        held = self._held().certificates
        return held[max(held)] if held else None

    def certificate_from(self, height: int) -> Certificate | None:
        held = self._held().certificates
        heights = [at for at in held if at >= height]
        return held[min(heights)] if heights else None

    def snapshot_heights(self) -> list[int]:
        return [snapshot.height for snapshot in self._held().snapshots]

    def snapshot(self, height: int) -> HeldSnapshot | None:
        return next((kept for kept in self._held().snapshots if kept.height == height), None)

    def joining(self) -> Joining | None:
        return self._held().joining

    def height_of(self, block_hash: bytes) -> int | None:
        return self._held().heights.get(block_hash)

    def find_transaction(self, id_: bytes) -> Place | None:
        return self._held().places.get(id_)

    def close(self) -> None:
        self._alive = False

    def _held(self) -> _Disk:
        if not self._alive:
            raise QnetError(Code.INTERNAL, "the block log is closed")
        return self._disk

    def _from(self, first_height: int, count_max: int) -> Sequence[BlockWrite]:
        disk = self._held()
        start = max(first_height, 1) - 1 - disk.base
        return disk.blocks[start : start + count_max] if start >= 0 else ()

    @staticmethod
    def _append(disk: _Disk, write: BlockWrite) -> None:
        disk.blocks.append(write)
        height = disk.last_height
        disk.heights[write.block_hash] = height
        for position, receipt in enumerate(write.record.receipts):
            disk.places[receipt_id(receipt)] = Place(height, position)

    @staticmethod
    def _keep(disk: _Disk, snapshot: _Snapshot) -> None:
        disk.snapshots = [snapshot, *disk.snapshots[: SNAPSHOTS_KEPT - 1]]

    def _joined(self, disk: _Disk, write: JoinedWrite) -> None:
        height = write.block.record.header.height
        joining = disk.joining
        if height <= disk.last_height or joining is None:
            raise QnetError(Code.INTERNAL, f"the log cannot go on from block {height}")
        manifest = joining.manifest
        checkpoint = manifest.certificate.checkpoint
        if checkpoint.height != height or len(joining.parts) != part_count(manifest.sections):
            raise QnetError(Code.INTERNAL, "a snapshot is not fetched whole")
        disk.blocks, disk.base = [], height - 1
        disk.heights.clear()
        disk.places.clear()
        disk.certificates = {height: write.certificate}
        self._append(disk, write.block)
        disk.joining = None
        root = checkpoint.state_root
        self._keep(disk, _Snapshot(height, root, manifest.commits, manifest.sections, joining.data))


def _snapshot(write: SnapshotWrite, accounts_max: int) -> _Snapshot:
    made = list(state.split_sections(write.accounts, accounts_max))
    full = (accounts for section, accounts in made if section.kind)
    data = {number: encode(accounts) for number, accounts in enumerate(full, 1)}
    sections = tuple(section for section, _ in made)
    return _Snapshot(write.height, write.state_root, write.commits, sections, data)
