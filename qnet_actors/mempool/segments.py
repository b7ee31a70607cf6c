"""The batch store on disk: segment files, a log of marks and a log of public keys.

Batches are appended to segments, each of which is unlinked once all its batches are dropped: with
retention zero most are gone before the system has written them out.  The log of marks says which
batches are executed and which sequences were used, the latter for segments that are gone.

Durability is the network's: `power` syncs all files written before `write` returns; without it a
`write` survives the end of every process, and not the loss of power.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from qnet_actors.durable import sync
from qnet_actors.mempool.frames import FrameFile, FrameReader, read_frame
from qnet_actors.mempool.logs import KeyLog, MarkLog
from qnet_actors.mempool.settings import MIB
from qnet_actors.mempool.store import (
    BatchCache,
    DropBatches,
    Executed,
    PutBatch,
    PutKeys,
    Recovered,
    RecoveredBatch,
)
from qnet_actors.mempool.validity import peek
from qnet_actors.wire.batches import Batch, decode_batch
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import BATCH_SIZE_BYTES_MAX
from qnet_actors.wire.messages import PublicKey

FORGOTTEN_BATCHES_MAX: Final = 65_536
"""What the loss of power or a damaged disk takes from the end of a file leaves no trace."""


class _Place(NamedTuple):
    segment: int
    offset: int
    length: int


@dataclass(slots=True)
class _Segment:
    path: Path
    size_bytes: int = 0
    live: set[bytes] = field(default_factory=set)
    """Digests of batches that are not dropped."""
    digests: set[bytes] = field(default_factory=set)
    """All that it holds."""


class _Logs(NamedTuple):
    marks: MarkLog
    keys: KeyLog


class FileBatchStore:
    """A `BatchStore` in one directory.  `write` may run in another thread than all else."""

    def __init__(
        self,
        directory: Path,
        *,
        power: bool,
        keys_max: int = 65_536,
        segment_size_bytes: int = 64 * MIB,
        cache_size_bytes: int = 256 * MIB,
        size_bytes_max: int = 16 * 1024 * MIB,
        disk_free_bytes_min: int = 512 * MIB,
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._power = power
        self._keys_max = keys_max
        self._segment_size_bytes = segment_size_bytes
        self._size_bytes_max = size_bytes_max
        self._disk_free_bytes_min = disk_free_bytes_min
        self._lock = threading.Lock()
        self._cache = BatchCache(cache_size_bytes)
        self._index: dict[bytes, _Place] = {}
        self._discarded: dict[bytes, _Place] = {}
        self._segments: dict[int, _Segment] = {}
        self._active = 0
        self._active_file: FrameFile | None = None
        self._marks: MarkLog | None = None
        self._keys: KeyLog | None = None
        self._full = False
        self.bytes_cut = 0
        """What `load` cut off torn tails."""

    @property
    def full(self) -> bool:
        return self._full

    @property
    def size_bytes(self) -> int:
        """Of all segments."""
        return sum(segment.size_bytes for segment in self._segments.values())

    # Reading.

    def put(self, batch: Batch) -> None:
        with self._lock:
            self._cache.pin(batch)

    def discard(self, digest: bytes) -> None:
        with self._lock:
            self._cache.remove(digest)
            place = self._index.pop(digest, None)
            if place is not None:
                self._discarded[digest] = place

    def __contains__(self, digest: object) -> bool:
        with self._lock:
            return isinstance(digest, bytes) and (
                digest in self._index or self._cache.unwritten(digest)
            )

    def get(self, digest: bytes) -> Batch | None:
        batch, place = self._find(digest)
        if batch is not None or place is None:
            return batch
        try:
            batch = decode_batch(self._read(place))
        except QnetError as error:
            raise QnetError(Code.DATA_CORRUPT, f"a stored batch: {error.detail}") from error
        if batch.digest != digest:
            raise QnetError(Code.DATA_CORRUPT, "a stored batch is another than the index says")
        with self._lock:
            self._cache.add(batch)
        return batch

    def encoded(self, digest: bytes) -> bytes | None:
        batch, place = self._find(digest)
        if batch is not None:
            return batch.encode()
        return None if place is None else self._read(place)

    def _find(self, digest: bytes) -> tuple[Batch | None, _Place | None]:
        with self._lock:
            return self._cache.get(digest), self._index.get(digest)

    def _read(self, place: _Place) -> bytes:
        return read_frame(self._segments[place.segment].path, place.offset, place.length)

    # Writing.

    def write(self, writes: Sequence[Any]) -> None:
        """See `BatchStore`.  Raises `QnetError(DISK_FULL)`, OSError; the store is unusable then."""
        logs = self._logs()
        batches: list[PutBatch] = []
        marks: list[bytes] = []
        keys: list[PublicKey] = []
        dropped: list[bytes] = []
        for write in writes:
            match write:
                case PutBatch():
                    batches.append(write)
                case PutKeys(added):
                    keys += added
                case Executed(digests, height, commit_index):
                    marks += logs.marks.execution_marks(digests, height, commit_index)
                case DropBatches(digests):
                    dropped += digests
                case _:
                    raise QnetError(Code.INTERNAL, f"not a write of the batch store: {write!r}")
        logs.keys.write(keys, sync=self._power)
        freed = self._drop(dropped)
        if freed:
            marks += logs.marks.sequence_marks()
        logs.marks.write(marks, sync=self._power)
        self._write_batches(batches)
        # Marks are durable by now: they say of the segments what nothing else will.
        for segment in freed:
            self._unlink(segment)
        self._full = self._past_watermark()

    def _logs(self) -> _Logs:
        if self._marks is None or self._keys is None:
            raise QnetError(Code.INTERNAL, "a batch store is written to before it is loaded")
        return _Logs(self._marks, self._keys)

    def _write_batches(self, batches: Sequence[PutBatch]) -> None:
        first = 0
        while first < len(batches):
            file, segment = self._open_segment()
            room = self._segment_size_bytes - file.size_bytes
            last = first
            while last < len(batches) and (last == first or room > 0):
                room -= len(batches[last].data)
                last += 1
            part = batches[first:last]
            offsets = file.append([write.data for write in part])
            if self._power:
                file.sync()
            segment.size_bytes = file.size_bytes
            for write, offset in zip(part, offsets, strict=True):
                place = _Place(self._active, offset, len(write.data))
                self._keep(write.digest, write.data, place)
            first = last

    def _keep(self, digest: bytes, data: bytes, place: _Place) -> None:
        header, _ = peek(data)
        if self._marks is not None:
            self._marks.used(header.author, header.shard, header.sequence)
        segment = self._segments[place.segment]
        segment.live.add(digest)
        segment.digests.add(digest)
        with self._lock:
            self._index[digest] = place
            self._cache.written(digest)

    def _open_segment(self) -> tuple[FrameFile, _Segment]:
        """The segment that is appended to, a new one where there is none or it is full."""
        file = self._active_file
        if file is not None and file.size_bytes < self._segment_size_bytes:
            return file, self._segments[self._active]
        if file is not None:
            file.close()
            done = self._active
            self._active_file = None
            if not self._segments[done].live:
                marks = self._logs().marks
                marks.write(marks.sequence_marks(), sync=self._power)
                self._unlink(done)
        self._active += 1
        path = self._directory / f"segment-{self._active:012d}.log"
        self._active_file = FrameFile(path, 0)
        self._segments[self._active] = _Segment(path)
        if self._power:
            sync(self._directory)
        return self._active_file, self._segments[self._active]

    def _drop(self, digests: Iterable[bytes]) -> list[int]:
        """Forgets batches; the closed segments that have none left."""
        freed = []
        for digest in digests:
            with self._lock:
                place = self._discarded.pop(digest, None)
            if place is None:
                continue
            segment = self._segments[place.segment]
            segment.live.discard(digest)
            if not segment.live and place.segment != self._active:
                freed.append(place.segment)
        return freed

    def _unlink(self, number: int) -> None:
        segment = self._segments.pop(number)
        segment.path.unlink()
        if self._marks is not None:
            self._marks.forget(digest for digest in segment.digests if digest not in self._index)

    def _past_watermark(self) -> bool:
        disk = os.statvfs(self._directory)
        free = disk.f_bavail * disk.f_frsize
        return self.size_bytes >= self._size_bytes_max or free < self._disk_free_bytes_min

    # Starting and stopping.

    def load(self) -> Recovered:
        """Reads what is there, cuts torn tails, and opens the logs.

        Raises `QnetError(DATA_CORRUPT)` where something else than the tail is damaged.
        """
        self._keys = KeyLog(self._directory / "keys.log", self._keys_max)
        self._marks = marks = MarkLog(self._directory / "marks.log")
        self.bytes_cut = self._keys.bytes_cut + marks.bytes_cut
        batches = self._load_segments(marks)
        present = {batch.digest for batch in batches}
        marks.forget([digest for digest in marks.executed if digest not in present])
        marks.rewrite()
        for number, segment in list(self._segments.items()):
            if number != self._active and not segment.live:
                self._unlink(number)
        self._full = self._past_watermark()
        sequences = tuple((*slot, at) for slot, at in sorted(marks.sequences.items()))
        return Recovered(tuple(batches), sequences, self._keys.keys, FORGOTTEN_BATCHES_MAX)

    def _load_segments(self, marks: MarkLog) -> list[RecoveredBatch]:
        """Indexes all segments and opens the last one for appending, where there is one."""
        paths = sorted(self._directory.glob("segment-*.log"))
        found: dict[bytes, RecoveredBatch] = {}
        for path in paths:
            number = int(path.stem.rpartition("-")[2])
            self._active = number
            self._segments[number] = _Segment(path)
            reader = FrameReader(path, BATCH_SIZE_BYTES_MAX)
            for offset, payload in reader:
                try:
                    header, digest = peek(payload)
                except QnetError as error:
                    raise QnetError(Code.DATA_CORRUPT, f"{path.name}: {error.detail}") from error
                if digest in found:
                    self._segments[self._index[digest].segment].live.discard(digest)
                self._keep(digest, payload, _Place(number, offset, len(payload)))
                executed = marks.executed.get(digest)
                found[digest] = RecoveredBatch(header, digest, len(payload), executed)
            if reader.torn and self._power and path != paths[-1]:
                raise QnetError(Code.DATA_CORRUPT, f"{path.name} is damaged at {reader.end}")
            self.bytes_cut += path.stat().st_size - reader.end
            self._segments[number].size_bytes = reader.end
            if reader.torn or path == paths[-1]:
                file = FrameFile(path, reader.end)
                if path == paths[-1]:
                    self._active_file = file
                else:
                    file.close()
        return list(found.values())

    def close(self) -> None:
        """Closes the files; nothing is lost that was written."""
        for file in (self._active_file, self._marks, self._keys):
            if file is not None:
                file.close()
        self._active_file = self._marks = self._keys = None
