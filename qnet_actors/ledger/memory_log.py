"""A block log in memory, for the simulator and for tests; it survives what `crash` models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from qnet_actors.ledger.writes import (
    BlockWrite,
    CertificateWrite,
    Place,
    SnapshotWrite,
    check_height,
    receipt_id,
)
from qnet_actors.wire.blocks import Certificate
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError


@dataclass(slots=True)
class _Disk:
    """What is durable."""

    blocks: list[BlockWrite] = field(default_factory=list)
    certificates: dict[int, Certificate] = field(default_factory=dict)
    snapshots: list[SnapshotWrite] = field(default_factory=list)
    heights: dict[bytes, int] = field(default_factory=dict)
    places: dict[bytes, Place] = field(default_factory=dict)


class MemoryLog:
    """A `BlockLog` whose writes are durable when they return."""

    def __init__(self, disk: _Disk | None = None) -> None:
        self._disk = disk or _Disk()
        self._alive = True

    def crash(self) -> MemoryLog:
        """The process dies: this handle refuses everything, the returned one is its successor's.

        What was not written is lost with whoever held it, for a write is all or nothing.
        """
        self._alive = False
        return MemoryLog(self._disk)

    def write(self, writes: Sequence[Any]) -> None:
        disk = self._held()
        for write in writes:
            match write:
                case BlockWrite():
                    check_height(len(disk.blocks), write)
                    self._append(disk, write)
                case CertificateWrite(certificate):
                    disk.certificates[certificate.checkpoint.height] = certificate
                case SnapshotWrite():
                    disk.snapshots = [write, *disk.snapshots[:1]]
                case _:
                    raise TypeError(f"the ledger does not write {type(write).__name__}")

    def last_height(self) -> int:
        return len(self._held().blocks)

    def records(self, first_height: int, count_max: int, size_bytes_max: int) -> list[bytes]:
        records: list[bytes] = []
        size = 0
        start = max(first_height, 1) - 1
        for write in self._held().blocks[start : start + count_max]:
            size += len(write.encoded)
            if records and size > size_bytes_max:
                break
            records.append(write.encoded)
        return records

    def headers(self, first_height: int, count_max: int) -> list[bytes]:
        start = max(first_height, 1) - 1
        blocks = self._held().blocks[start : start + count_max]
        return [encode(write.record.header) for write in blocks]

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

    def snapshots(self) -> Iterator[SnapshotWrite]:
        return iter(list(self._held().snapshots))

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

    @staticmethod
    def _append(disk: _Disk, write: BlockWrite) -> None:
        disk.blocks.append(write)
        height = len(disk.blocks)
        disk.heights[write.block_hash] = height
        for position, receipt in enumerate(write.record.receipts):
            disk.places[receipt_id(receipt)] = Place(height, position)
