"""The block log on disk: segments that are written, sealed when full, and kept."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from qnet_actors.ledger.databases import LogOptions
from qnet_actors.ledger.segment_reader import SegmentReader, newer
from qnet_actors.ledger.segments import Segments
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
)
from qnet_actors.wire.blocks import Certificate
from qnet_actors.wire.codes import Code, QnetError

TRANSACTION_SIZE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of blocks that go into one database transaction, unless a single block is larger."""
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
        self._options = options or LogOptions()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._segments: Final = Segments(directory, chain_id, self._options)
        self._reader: Final = SegmentReader(self._segments)
        self._snapshots = Snapshots(directory, chain_id, self._options)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="ledger-background")
        # A snapshot of a large state takes seconds, for which no segment may wait.
        self._snapshot_thread = ThreadPoolExecutor(1, thread_name_prefix="ledger-snapshot")
        self._snapshotting: list[Future[None]] = []
        self._sealing: Future[None] | None = None
        self._pruning: Future[None] | None = None
        try:
            sequences = self._segments.open_all()
            self._certificate = self._reader.newest_certificate(sequences)
            self._current = sequences[-1], self._segments.whole(sequences[-1])
        except QnetError:
            self._segments.close()
            raise
        self._next = self._background.submit(self._segments.create, self._current[0] + 1)
        self._snapshots.settle_joins(self.last_height())
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
        for height, block in enumerate(blocks, self.last_height()):
            check_height(height, block)
        sequence, segment = self._current
        segment.append(blocks, certificates)
        with self._segments.tables:
            self._segments.note(sequence, blocks)
            for certificate in certificates:
                self._certificate = newer(self._certificate, certificate)
        if segment.size_bytes >= self._options.segment_size_bytes:
            self._rotate()

    def _joined(self, write: JoinedWrite) -> None:
        """Goes on from the block of a snapshot that is fetched whole.

        The renaming of the new segment decides: before it the old log stands, and after it the
        snapshot is one of this log, whatever its name.
        """
        height = write.block.record.header.height
        if height <= self.last_height() or self._snapshots.seal_join() != height:
            raise QnetError(Code.INTERNAL, f"the log cannot go on from block {height}")
        if self._sealing is not None:
            self._sealing.result()
        full, _ = self._current
        sequence, _ = self._next.result()
        self._segments.discard(sequence)
        begun = self._segments.begin_anew(sequence, write.block, write.certificate)
        self._current = sequence, begun
        self._certificate = newer(self._certificate, write.certificate)
        self._snapshots.settle_joins(height)
        self._next = self._background.submit(self._segments.create, sequence + 1)
        self._sealing = self._background.submit(self._segments.seal, full)
        self.prune()

    def _rotate(self) -> None:
        """Goes on in the segment made ahead; the full one is sealed behind the writer's back."""
        if self._sealing is not None:
            self._sealing.result()
        sequence, _ = self._current
        self._current = self._next.result()
        # The next one first: it takes moments, and a writer that is fast waits for it.
        self._next = self._background.submit(self._segments.create, sequence + 2)
        self._sealing = self._background.submit(self._segments.seal, sequence)
        self.prune()

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
        with self._segments.tables:
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
                self._segments.prune(sequence)
                more = True
        except QnetError as error:
            # Nothing depends on it: the next segment that is full has it tried again.
            logger.warning("blocks could not be pruned: %s", error)
        with self._segments.tables:
            if more and not self._closed:
                self._pruning = self._background.submit(self._prune)

    def _due(self) -> int | None:
        certificate = self._certificate
        if certificate is None or self._closed:
            return None
        kept = self._options.retention.first_kept(
            certificate.checkpoint.height, self._snapshots.heights()
        )
        with self._segments.tables:
            oldest = self._segments.ranges.oldest_whole()
            if oldest is None or oldest.last_height >= kept:
                return None
            # One that is not sealed yet is pruned later.
            if oldest.sequence in self._segments.recent:
                return None
            return oldest.sequence

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
        return self._reader.first_height()

    def first_header_height(self) -> int:
        return self._reader.first_header_height()

    def last_height(self) -> int:
        return self._segments.ranges.last_height

    def records(self, first_height: int, count_max: int, size_bytes_max: int) -> list[bytes]:
        return self._reader.records(first_height, count_max, size_bytes_max)

    def headers(self, first_height: int, count_max: int) -> list[bytes]:
        return self._reader.headers(first_height, count_max)

    def certificate_within(self, first_height: int, last_height: int) -> Certificate | None:
        return self._reader.certificate_within(first_height, last_height)

    def newest_certificate(self) -> Certificate | None:
        return self._certificate

    def certificate_from(self, height: int) -> Certificate | None:
        newest = self._certificate
        if newest is None or newest.checkpoint.height < height:
            return None
        return self._reader.certificate_from(height)

    def height_of(self, block_hash: bytes) -> int | None:
        return self._reader.height_of(block_hash)

    def find_transaction(self, id_: bytes) -> Place | None:
        return self._reader.find_transaction(id_)

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
        with self._segments.tables:
            self._closed = True
        self._background.shutdown(wait=True)
        self._snapshot_thread.shutdown(wait=True)
        self._segments.close()
        self._snapshots.close()
