"""The segment files of a block log: which there are, which are open, and what stands where.

Segments are numbered in the order of writing.  The newest is made ahead of its time, the one before
is written to, full ones are sealed, and the oldest may be pruned: then only their headers are left.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock, RLock
from typing import Final

from qnet_actors.durable import sync
from qnet_actors.ledger.databases import Databases, LogOptions, copy_database, guarded
from qnet_actors.ledger.index import Index, RecentIndex
from qnet_actors.ledger.pruned import SUFFIX, PrunedSegment, write_pruned
from qnet_actors.ledger.ranges import Ranges
from qnet_actors.ledger.segment import TABLES, Segment
from qnet_actors.ledger.writes import BlockWrite, receipt_id
from qnet_actors.wire.blocks import BLOCK_RECORD_CODEC, Certificate
from qnet_actors.wire.codes import Code, QnetError

_OPEN_SEALED_MAX: Final = 2
_CHUNK_RECORDS: Final = 256
# A `base` segment begins anew: what is before it does not reach up to it.
_NAME: Final = re.compile(r"(blocks|base)-(\d{8})\.(duckdb|headers)")


class Segments:
    """What a `DuckLog` and its `SegmentReader` share, behind two locks.

    `files` is held while a segment is read or closed: reads wait for one another, writes for
    neither.  `tables` is held for moments, around `ranges` and `recent`, which a write changes and
    a read looks into; it is taken after `files` where both are.
    """

    def __init__(self, directory: Path, chain_id: bytes, options: LogOptions) -> None:
        self._directory: Final = directory
        self._chain_id: Final = chain_id
        self._options: Final = options
        self.files: Final = RLock()
        self.tables: Final = Lock()
        self.ranges = Ranges()
        self.recent: Final[dict[int, RecentIndex]] = {}
        """What stands in segments that are not sealed yet, which `index` does not know."""
        self._open: OrderedDict[int, Segment | PrunedSegment] = OrderedDict()
        self._databases: Final = Databases(directory, options)
        self.index: Final = Index(self._databases, directory / "index.duckdb", chain_id, options)
        # An empty segment's file: a copy takes a tenth of the time that DuckDB takes to make one.
        self._empty: bytes | None = None
        # A write-ahead log that is not needed any more becomes the next segment's file, so that the
        # disk need not give back the place of the one and find that of the other while commits
        # wait.  One from before may be another name of a log that is needed.
        self._spare: Final = directory / "spare"
        self._spare.unlink(missing_ok=True)

    def open_all(self) -> list[int]:
        """Finds the segments; the last one is written to.

        A full segment that was not sealed when the process died is sealed now.
        """
        names = [n for path in self._directory.iterdir() if (n := _NAME.fullmatch(path.name))]
        sequences = sorted({int(name[2]) for name in names})
        self.ranges = Ranges(
            bases=(int(name[2]) for name in names if name[1] == "base"),
            pruned=(int(name[2]) for name in names if name[3] == "headers"),
        )
        if not sequences:
            self.create(1)
            return [1]
        self._drop_unused(sequences)
        indexed = self.index.segments()
        for sequence in sequences:
            if sequence in indexed and sequence != sequences[-1]:
                self.ranges.follow(sequence, *indexed[sequence])
                if sequence in self.ranges.pruned:
                    self._remove_blocks(sequence)
                continue
            segment = self.segment(sequence)
            if isinstance(segment, PrunedSegment):
                # The index is made anew: where the transactions stood is not known any more.
                heights = (segment.first_height, segment.last_height)
                self.ranges.follow(sequence, *heights)
                self.index.add(sequence, heights, segment.hashes(), RecentIndex())
                self._remove_blocks(sequence)
                continue
            self.recent[sequence] = RecentIndex()
            if segment.first_height is not None and segment.last_height is not None:
                self.ranges.follow(sequence, segment.first_height, segment.last_height)
                self._remember(segment, self.recent[sequence])
            if sequence != sequences[-1]:
                self.seal(sequence)
        self.whole(sequences[-1]).measure()
        return sequences

    def _drop_unused(self, sequences: list[int]) -> None:
        """Removes the segment that was made ahead and not written to."""
        if len(sequences) > 1 and self.whole(sequences[-1]).unused:
            self.discard(sequences.pop())

    @staticmethod
    def _remember(segment: Segment, recent: RecentIndex) -> None:
        height = segment.first_height or 1
        while records := segment.records(height, _CHUNK_RECORDS):
            for data in records:
                receipts = BLOCK_RECORD_CODEC.decode(data).receipts
                recent.add(height, [receipt_id(receipt) for receipt in receipts])
                height += 1

    def create(self, sequence: int) -> tuple[int, Segment]:
        """An empty segment, with its number."""
        path = self._path(sequence)
        if self._empty is None:
            self._databases.create(path, TABLES, self._chain_id)
            with guarded("a database could not be read"):
                self._empty = path.read_bytes()
        else:
            copy_database(self._empty, path, self._spare)
        with self.tables:
            self.recent[sequence] = RecentIndex()
        with self.files:
            return sequence, self.whole(sequence)

    def begin_anew(self, sequence: int, block: BlockWrite, certificate: Certificate) -> Segment:
        """A segment that begins with a block behind which there are none.

        The renaming decides: before it the old log stands.
        """
        building = self._directory / "base.building"
        self._databases.create(building, TABLES, self._chain_id)
        segment = Segment(self._databases, building, self._chain_id, self._options)
        segment.append([block], [certificate])
        segment.seal(self._spare)
        segment.close()
        self.ranges.bases.add(sequence)
        building.rename(self._path(sequence))
        sync(self._directory)
        with self.tables:
            self.recent[sequence] = RecentIndex()
            self.note(sequence, [block])
        with self.files:
            begun = self.whole(sequence)
        begun.measure()
        return begun

    def note(self, sequence: int, blocks: Sequence[BlockWrite]) -> None:
        """Blocks are in the segment now; the caller holds `tables`."""
        for block in blocks:
            ids = [receipt_id(receipt) for receipt in block.record.receipts]
            self.recent[sequence].add(block.record.header.height, ids)
        if blocks:
            first, last = (block.record.header.height for block in (blocks[0], blocks[-1]))
            self.ranges.extend(sequence, first, last)

    def seal(self, sequence: int) -> None:
        """Checkpoints a full segment and indexes what is in it."""
        with self.files:
            segment = self.whole(sequence)
        with self.tables:
            recent = self.recent[sequence]
        segment.seal(self._spare)
        if segment.first_height is not None and segment.last_height is not None:
            heights = (segment.first_height, segment.last_height)
            self.index.add(sequence, heights, segment.hashes(), recent)
        with self.tables:
            del self.recent[sequence]
        with self.files:
            self._close_sealed()

    def prune(self, sequence: int) -> None:
        """The headers' file is there, whole, before the blocks' goes; both count as pruned."""
        with self.files:
            fsync = self._options.fsync
            write_pruned(
                self.whole(sequence), self._headers_path(sequence), self._chain_id, fsync=fsync
            )
            self._open.pop(sequence).close()
            with self.tables:
                self.ranges.pruned.add(sequence)
        self._remove_blocks(sequence)

    def _remove_blocks(self, sequence: int) -> None:
        """Removes what a pruned segment leaves behind; again is no harm."""
        path = self._path(sequence)
        with guarded("a pruned segment could not be removed"):
            path.unlink(missing_ok=True)
            path.with_name(path.name + ".wal").unlink(missing_ok=True)
        if self._options.retention.mode == "light":
            self.index.forget(sequence)

    def discard(self, sequence: int) -> None:
        """Removes a segment that was never written to."""
        with self.files:
            self._open.pop(sequence).close()
        with self.tables:
            self.recent.pop(sequence, None)
        path = self._path(sequence)
        with guarded("an empty segment could not be removed"):
            path.unlink()
            path.with_name(path.name + ".wal").unlink(missing_ok=True)

    def at(self, height: int) -> Segment | PrunedSegment | None:
        """The segment with a block; the caller holds `files` while it reads."""
        with self.tables:
            part = self.ranges.at(height)
        return None if part is None else self.segment(part.sequence)

    def whole(self, sequence: int) -> Segment:
        """A segment that has its blocks; raises `QnetError(DATA_CORRUPT)` for one that has not."""
        segment = self.segment(sequence)
        if isinstance(segment, PrunedSegment):
            raise QnetError(
                Code.DATA_CORRUPT, f"{segment.path} is where blocks are due; resync this validator"
            )
        return segment

    def segment(self, sequence: int) -> Segment | PrunedSegment:
        """An open segment; sealed ones are opened as they are needed, two at a time."""
        segment = self._open.get(sequence)
        if segment is None:
            if sequence in self.ranges.pruned:
                segment = PrunedSegment(self._headers_path(sequence), self._chain_id)
            else:
                path = self._path(sequence)
                segment = Segment(self._databases, path, self._chain_id, self._options)
            self._open[sequence] = segment
            self._close_sealed()
        self._open.move_to_end(sequence)
        return segment

    def _close_sealed(self) -> None:
        """Closes the sealed segments that were used least lately."""
        with self.tables:
            sealed = [sequence for sequence in self._open if sequence not in self.recent]
        for sequence in sealed[:-_OPEN_SEALED_MAX]:
            self._open.pop(sequence).close()

    def close(self) -> None:
        """Closes every file."""
        with self.files:
            for segment in self._open.values():
                segment.close()
            self._open.clear()
            self.index.close()
            self._databases.close()
            self._spare.unlink(missing_ok=True)

    def _path(self, sequence: int) -> Path:
        kind = "base" if sequence in self.ranges.bases else "blocks"
        return self._directory / f"{kind}-{sequence:08d}.duckdb"

    def _headers_path(self, sequence: int) -> Path:
        return self._path(sequence).with_suffix(SUFFIX)
