"""The block log on disk: segments that are written, sealed when full, and kept."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock, RLock
from typing import Any, Final

from qnet_actors.ledger.databases import Databases, LogOptions, copy_database, guarded, sync
from qnet_actors.ledger.index import Index, RecentIndex
from qnet_actors.ledger.pruned import SUFFIX, PrunedSegment, write_pruned
from qnet_actors.ledger.ranges import Ranges
from qnet_actors.ledger.segment import TABLES, Segment
from qnet_actors.ledger.snapshots import Snapshots
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
    receipt_id,
)
from qnet_actors.wire.blocks import BLOCK_RECORD_CODEC, Certificate
from qnet_actors.wire.codes import Code, QnetError

TRANSACTION_SIZE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of blocks that go into one database transaction, unless a single block is larger."""
_OPEN_SEALED_MAX: Final = 2
_CHUNK_RECORDS: Final = 256
_CERTIFICATE_SEGMENTS: Final = 8
# A `base` segment begins anew: what is before it does not reach up to it.
_NAME: Final = re.compile(r"(blocks|base)-(\d{8})\.(duckdb|headers)")
logger: Final = logging.getLogger(__name__)


class DuckLog:
    """A `BlockLog` in a directory of DuckDB files.

    `write` belongs to one thread; everything else may be called from any.  A thread of its own
    makes the next segment ahead of its time and seals full ones, another writes snapshots; where
    that fails, the next `write` raises.  A writer that fills segments faster than they are sealed
    waits for the sealing, so at most two full ones are in memory.  What the retention does not keep
    is pruned by the former, a segment at a time: see `prune`.
    """

    def __init__(self, directory: Path, chain_id: bytes, options: LogOptions | None = None) -> None:
        """Opens the log, or makes an empty one.

        Raises `QnetError`: DATA_CORRUPT, DATA_VERSION, WRONG_CHAIN, DISK_FULL.
        """
        self._directory = directory
        self._chain_id = chain_id
        self._options = options or LogOptions()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Held while a segment is read or closed: reads wait for one another, writes for neither.
        self._files = RLock()
        # Held for moments, around the tables that a write changes and a read looks into; taken
        # after `_files` where both are.
        self._tables = Lock()
        self._open: OrderedDict[int, Segment | PrunedSegment] = OrderedDict()
        self._recent: dict[int, RecentIndex] = {}
        self._databases = Databases(directory, self._options)
        self._index = Index(self._databases, directory / "index.duckdb", chain_id, self._options)
        self._snapshots = Snapshots(directory, chain_id, self._options)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="ledger-background")
        # A snapshot of a large state takes seconds, for which no segment may wait.
        self._snapshot_thread = ThreadPoolExecutor(1, thread_name_prefix="ledger-snapshot")
        # An empty segment's file: a copy takes a tenth of the time that DuckDB takes to make one.
        self._empty: bytes | None = None
        # A write-ahead log that is not needed any more becomes the next segment's file, so that the
        # disk need not give back the place of the one and find that of the other while commits
        # wait.  One from before may be another name of a log that is needed.
        self._spare = directory / "spare"
        self._spare.unlink(missing_ok=True)
        self._snapshotting: list[Future[None]] = []
        self._sealing: Future[None] | None = None
        self._ranges = Ranges()
        self._pruning: Future[None] | None = None
        self._certificate: Certificate | None = None
        try:
            self._current = self._open_all()
        except QnetError:
            self._databases.close()
            raise
        self._next = self._background.submit(self._create, self._current[0] + 1)
        self._last_height = self._ranges.last_height
        self._snapshots.settle_joins(self._last_height)
        self._closed = False
        self.prune()

    # Writing

    def write(self, writes: Sequence[Any]) -> None:
        """See `BlockLog`; every transaction is one flush to the disk."""
        self._check_background()
        blocks: list[BlockWrite] = []
        certificates: list[Certificate] = []
        size = 0
        for write in writes:
            match write:
                case BlockWrite(encoded=encoded):
                    if blocks and size + len(encoded) > TRANSACTION_SIZE_BYTES_MAX:
                        self._commit(blocks, certificates)
                        blocks, certificates, size = [], [], 0
                    blocks.append(write)
                    size += len(encoded)
                case CertificateWrite(certificate=certificate):
                    certificates.append(certificate)
                case SnapshotWrite():
                    writing = self._snapshot_thread.submit(self._snapshots.write, write)
                    self._snapshotting.append(writing)
                case JoinWrite(manifest=manifest):
                    if manifest is None:
                        self._snapshots.drop_join()
                    else:
                        self._snapshots.begin_join(manifest)
                case SectionWrite(part=part, data=data):
                    self._snapshots.add_section(part, data)
                case JoinedWrite():
                    self._commit(blocks, certificates)
                    blocks, certificates, size = [], [], 0
                    self._joined(write)
                case _:
                    raise TypeError(f"the ledger does not write {type(write).__name__}")
        self._commit(blocks, certificates)

    def _commit(self, blocks: list[BlockWrite], certificates: list[Certificate]) -> None:
        if not blocks and not certificates:
            return
        for height, block in enumerate(blocks, self._last_height):
            check_height(height, block)
        sequence, segment = self._current
        segment.append(blocks, certificates)
        with self._tables:
            for block in blocks:
                ids = [receipt_id(receipt) for receipt in block.record.receipts]
                self._recent[sequence].add(block.record.header.height, ids)
            if blocks:
                self._last_height = blocks[-1].record.header.height
                self._ranges.extend(sequence, blocks[0].record.header.height, self._last_height)
            for certificate in certificates:
                self._certificate = _newer(self._certificate, certificate)
        if segment.size_bytes >= self._options.segment_size_bytes:
            self._rotate()

    def _joined(self, write: JoinedWrite) -> None:
        """Goes on from the block of a snapshot that is fetched whole.

        The renaming of the new segment decides: before it the old log stands, and after it the
        snapshot is one of this log, whatever its name.
        """
        height = write.block.record.header.height
        if height <= self._last_height or self._snapshots.seal_join() != height:
            raise QnetError(Code.INTERNAL, f"the log cannot go on from block {height}")
        if self._sealing is not None:
            self._sealing.result()
        full, _ = self._current
        sequence, _ = self._next.result()
        self._discard(sequence)
        building = self._directory / "base.building"
        self._databases.create(building, TABLES, self._chain_id)
        segment = Segment(self._databases, building, self._chain_id, self._options)
        segment.append([write.block], [write.certificate])
        segment.seal(self._spare)
        segment.close()
        self._ranges.bases.add(sequence)
        building.rename(self._path(sequence))
        sync(self._directory)
        ids = [receipt_id(receipt) for receipt in write.block.record.receipts]
        with self._tables:
            self._recent[sequence] = RecentIndex()
            self._recent[sequence].add(height, ids)
            self._last_height = height
            self._ranges.extend(sequence, height, height)
            self._certificate = _newer(self._certificate, write.certificate)
        with self._files:
            self._current = (sequence, self._whole(sequence))
        self._current[1].measure()
        self._snapshots.settle_joins(height)
        self._next = self._background.submit(self._create, sequence + 1)
        self._sealing = self._background.submit(self._seal, full)
        self.prune()

    def _rotate(self) -> None:
        """Goes on in the segment made ahead; the full one is sealed behind the writer's back."""
        if self._sealing is not None:
            self._sealing.result()
        sequence, _ = self._current
        self._current = self._next.result()
        # The next one first: it takes moments, and a writer that is fast waits for it.
        self._next = self._background.submit(self._create, sequence + 2)
        self._sealing = self._background.submit(self._seal, sequence)
        self.prune()

    def _seal(self, sequence: int) -> None:
        """Checkpoints a full segment and indexes what is in it."""
        with self._files:
            segment = self._whole(sequence)
        with self._tables:
            recent = self._recent[sequence]
        segment.seal(self._spare)
        if segment.first_height is not None and segment.last_height is not None:
            heights = (segment.first_height, segment.last_height)
            self._index.add(sequence, heights, segment.hashes(), recent)
        with self._tables:
            del self._recent[sequence]
        with self._files:
            self._close_sealed()

    def _check_background(self) -> None:
        """Raises what went wrong behind the back of the writer."""
        if self._sealing is not None and self._sealing.done():
            self._sealing.result()
        if self._next.done():
            self._next.result()
        for future in [future for future in self._snapshotting if future.done()]:
            self._snapshotting.remove(future)
            future.result()
        if self._pruning is not None and self._pruning.done():
            self._pruning.result()

    def prune(self) -> None:
        """Has pruned what the retention does not keep; returns at once.

        One segment after the other, and whatever else waits comes in between.
        """
        with self._tables:
            if self._closed:
                return
            # One that failed stays, for the writer to see.
            if self._pruning is None or (
                self._pruning.done() and self._pruning.exception() is None
            ):
                self._pruning = self._background.submit(self._prune)

    def _prune(self) -> None:
        """Prunes the oldest segment that is whole, if that is due."""
        more = False
        try:
            sequence = self._due()
            if sequence is not None:
                self._prune_one(sequence)
                more = True
        except QnetError as error:
            # Nothing depends on it: the next segment that is full has it tried again.
            logger.warning("blocks could not be pruned: %s", error)
        with self._tables:
            if more and not self._closed:
                self._pruning = self._background.submit(self._prune)

    def _due(self) -> int | None:
        certificate = self._certificate
        if certificate is None or self._closed:
            return None
        kept = self._options.retention.first_kept(
            certificate.checkpoint.height, self._snapshots.heights()
        )
        with self._tables:
            oldest = self._ranges.oldest_whole()
            if oldest is None or oldest.last_height >= kept or oldest.sequence in self._recent:
                return None
            return oldest.sequence

    def _prune_one(self, sequence: int) -> None:
        """The headers' file is there, whole, before the blocks' goes; both count as pruned."""
        with self._files:
            fsync = self._options.fsync
            write_pruned(
                self._whole(sequence), self._headers_path(sequence), self._chain_id, fsync=fsync
            )
            self._open.pop(sequence).close()
            with self._tables:
                self._ranges.pruned.add(sequence)
        self._remove_blocks(sequence)

    def _remove_blocks(self, sequence: int) -> None:
        """Removes what a pruned segment leaves behind; again is no harm."""
        path = self._path(sequence)
        with guarded("a pruned segment could not be removed"):
            path.unlink(missing_ok=True)
            path.with_name(path.name + ".wal").unlink(missing_ok=True)
        if self._options.retention.mode == "light":
            self._index.forget(sequence)

    @property
    def sealing(self) -> bool:
        """Whether a full segment is being checkpointed now, behind the writer's back."""
        return self._sealing is not None and not self._sealing.done()

    @property
    def snapshotting(self) -> bool:
        """Whether a snapshot is being written, or waits for its turn."""
        return any(not future.done() for future in self._snapshotting)

    @property
    def pruning(self) -> bool:
        """Whether old blocks are being pruned now, or that is being looked into."""
        return self._pruning is not None and not self._pruning.done()

    # Reading

    def first_height(self) -> int:
        with self._tables:
            return self._ranges.first_height()

    def first_header_height(self) -> int:
        with self._tables:
            return self._ranges.first_header_height()

    def last_height(self) -> int:
        return self._last_height

    def records(self, first_height: int, count_max: int, size_bytes_max: int) -> list[bytes]:
        records: list[bytes] = []
        size = 0
        while len(records) < count_max:
            height = first_height + len(records)
            with self._files:
                with self._tables:
                    # What has no blocks is not worth the reading of a whole file of headers.
                    if self._ranges.is_pruned(height):
                        break
                segment = self._at(height)
                count = 0
                for one in segment.sizes(height, count_max - len(records)) if segment else ():
                    if (records or count) and size + one > size_bytes_max:
                        break
                    size += one
                    count += 1
                if segment is None or not count:
                    break
                records.extend(segment.records(height, count))
        return records

    def headers(self, first_height: int, count_max: int) -> list[bytes]:
        headers: list[bytes] = []
        while len(headers) < count_max:
            height = first_height + len(headers)
            with self._files:
                segment = self._at(height)
                more = segment.headers(height, count_max - len(headers)) if segment else []
            if not more:
                break
            headers.extend(more)
        return headers

    def certificate_within(self, first_height: int, last_height: int) -> Certificate | None:
        """See `BlockReader`; a certificate may stand in the segment after its block's."""
        with self._tables:
            end = self._ranges.position(last_height) + 2
            start = max(0, self._ranges.position(first_height), end - _CERTIFICATE_SEGMENTS)
            sequences = self._ranges.sequences(start, end)
        best: Certificate | None = None
        for sequence in sequences:
            with self._files:
                found = self._segment(sequence).certificate_within(first_height, last_height)
            best = _newer(best, found)
        return best

    def newest_certificate(self) -> Certificate | None:
        return self._certificate

    def certificate_from(self, height: int) -> Certificate | None:
        """See `BlockQueries`; certificates are written by rising height, so the first will do."""
        newest = self._certificate
        if newest is None or newest.checkpoint.height < height:
            return None
        with self._tables:
            sequences = self._ranges.sequences(max(0, self._ranges.position(height)))
        for sequence in sequences[:_CERTIFICATE_SEGMENTS]:
            with self._files:
                found = self._segment(sequence).certificate_from(height)
            if found is not None:
                return found
        return None

    def height_of(self, block_hash: bytes) -> int | None:
        with self._tables:
            unindexed = sorted(self._recent, reverse=True)
        for sequence in unindexed:
            with self._files:
                height = self._segment(sequence).height_of(block_hash)
            if height is not None:
                return height
        for height in self._index.heights_of(block_hash):
            with self._files:
                segment = self._at(height)
                if segment is not None and segment.height_of(block_hash) == height:
                    return height
        return None

    def find_transaction(self, id_: bytes) -> Place | None:
        with self._tables:
            places = [place for recent in self._recent.values() for place in recent.find(id_)]
        places += self._index.find(id_)
        for place in places:
            for data in self.records(place.height, 1, 0):
                receipts = BLOCK_RECORD_CODEC.decode(data).receipts
                if place.position < len(receipts) and receipt_id(receipts[place.position]) == id_:
                    return place
        with self._tables:
            return next((place for place in places if self._ranges.is_pruned(place.height)), None)

    def snapshot_heights(self) -> list[int]:
        return self._snapshots.heights()

    def snapshot(self, height: int) -> HeldSnapshot | None:
        return self._snapshots.read(height)

    def joining(self) -> Joining | None:
        return self._snapshots.joining()

    def flush(self) -> None:
        """Waits for what goes on behind the writer's back; raises what went wrong there."""
        self._next.result()
        if self._sealing is not None:
            self._sealing.result()
        for future in list(self._snapshotting):
            future.result()
        self._check_background()
        # Pruning is a chain of jobs, each of which sets the next before it is done.
        while (pruning := self._pruning) is not None:
            pruning.result()
            if pruning is self._pruning:
                break

    def close(self) -> None:
        """Waits for the background, and closes every file; what is durable stays so."""
        if self._closed:
            return
        with self._tables:
            self._closed = True
        self._background.shutdown(wait=True)
        self._snapshot_thread.shutdown(wait=True)
        with self._files:
            for segment in self._open.values():
                segment.close()
            self._open.clear()
            self._index.close()
            self._databases.close()
            self._spare.unlink(missing_ok=True)
        self._snapshots.close()

    # Segments

    def _open_all(self) -> tuple[int, Segment]:
        """Finds the segments; returns the one that is written to.

        A full segment that was not sealed when the process died is sealed now.
        """
        names = [n for path in self._directory.iterdir() if (n := _NAME.fullmatch(path.name))]
        sequences = sorted({int(name[2]) for name in names})
        self._ranges = Ranges(
            bases=(int(name[2]) for name in names if name[1] == "base"),
            pruned=(int(name[2]) for name in names if name[3] == "headers"),
        )
        if not sequences:
            return self._create(1)
        self._drop_unused(sequences)
        indexed = self._index.segments()
        for sequence in sequences:
            if sequence in indexed and sequence != sequences[-1]:
                self._ranges.follow(sequence, *indexed[sequence])
                if sequence in self._ranges.pruned:
                    self._remove_blocks(sequence)
                continue
            segment = self._segment(sequence)
            if isinstance(segment, PrunedSegment):
                # The index is made anew: where the transactions stood is not known any more.
                heights = (segment.first_height, segment.last_height)
                self._ranges.follow(sequence, *heights)
                self._index.add(sequence, heights, segment.hashes(), RecentIndex())
                self._remove_blocks(sequence)
                continue
            self._recent[sequence] = RecentIndex()
            if segment.first_height is not None and segment.last_height is not None:
                self._ranges.follow(sequence, segment.first_height, segment.last_height)
                self._remember(segment, self._recent[sequence])
            if sequence != sequences[-1]:
                self._seal(sequence)
        for sequence in sequences[-1 : -1 - _CERTIFICATE_SEGMENTS : -1]:
            self._certificate = self._segment(sequence).certificate_within(0, 2**63)
            if self._certificate is not None:
                break
        current = self._whole(sequences[-1])
        current.measure()
        return sequences[-1], current

    def _drop_unused(self, sequences: list[int]) -> None:
        """Removes the segment that was made ahead and not written to."""
        if len(sequences) > 1 and self._whole(sequences[-1]).unused:
            self._discard(sequences.pop())

    def _discard(self, sequence: int) -> None:
        """Removes a segment that was never written to."""
        with self._files:
            self._open.pop(sequence).close()
        with self._tables:
            self._recent.pop(sequence, None)
        path = self._path(sequence)
        with guarded("an empty segment could not be removed"):
            path.unlink()
            path.with_name(path.name + ".wal").unlink(missing_ok=True)

    @staticmethod
    def _remember(segment: Segment, recent: RecentIndex) -> None:
        height = segment.first_height or 1
        while records := segment.records(height, _CHUNK_RECORDS):
            for data in records:
                receipts = BLOCK_RECORD_CODEC.decode(data).receipts
                recent.add(height, [receipt_id(receipt) for receipt in receipts])
                height += 1

    def _create(self, sequence: int) -> tuple[int, Segment]:
        path = self._path(sequence)
        if self._empty is None:
            self._databases.create(path, TABLES, self._chain_id)
            with guarded("a database could not be read"):
                self._empty = path.read_bytes()
        else:
            copy_database(self._empty, path, self._spare)
        with self._tables:
            self._recent[sequence] = RecentIndex()
        with self._files:
            return sequence, self._whole(sequence)

    def _at(self, height: int) -> Segment | PrunedSegment | None:
        """The segment with a block; the caller holds `_files` while it reads."""
        with self._tables:
            part = self._ranges.at(height)
        return None if part is None else self._segment(part.sequence)

    def _whole(self, sequence: int) -> Segment:
        """A segment that has its blocks; raises `QnetError(DATA_CORRUPT)` for one that has not."""
        segment = self._segment(sequence)
        if isinstance(segment, PrunedSegment):
            raise QnetError(
                Code.DATA_CORRUPT, f"{segment.path} is where blocks are due; resync this validator"
            )
        return segment

    def _segment(self, sequence: int) -> Segment | PrunedSegment:
        """An open segment; sealed ones are opened as they are needed, two at a time."""
        segment = self._open.get(sequence)
        if segment is None:
            if sequence in self._ranges.pruned:
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
        with self._tables:
            sealed = [sequence for sequence in self._open if sequence not in self._recent]
        for sequence in sealed[:-_OPEN_SEALED_MAX]:
            self._open.pop(sequence).close()

    def _path(self, sequence: int) -> Path:
        kind = "base" if sequence in self._ranges.bases else "blocks"
        return self._directory / f"{kind}-{sequence:08d}.duckdb"

    def _headers_path(self, sequence: int) -> Path:
        return self._path(sequence).with_suffix(SUFFIX)


def _newer(one: Certificate | None, other: Certificate | None) -> Certificate | None:
    if one is None or other is None:
        return one or other
    return one if one.checkpoint.height >= other.checkpoint.height else other
