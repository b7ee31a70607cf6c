"""The batch store as the core sees it, what is written to it, and one in memory.

The core puts a batch in and has it written by a `Persist` that follows; reads are synchronous, from
memory where it was used lately.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from qnet_actors.mempool.validity import peek
from qnet_actors.wire.batches import Batch, BatchHeader, decode_batch
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.messages import PublicKey


@dataclass(frozen=True, slots=True)
class PutBatch:
    """Writes a batch, which `put` made readable already."""

    digest: bytes
    data: bytes
    """Its canonical bytes."""


@dataclass(frozen=True, slots=True)
class PutKeys:
    keys: tuple[PublicKey, ...]


@dataclass(frozen=True, slots=True)
class Executed:
    """When batches were executed; without it they would be proposed again after a restart."""

    digests: tuple[bytes, ...]
    height: int
    commit_index: int


@dataclass(frozen=True, slots=True)
class DropBatches:
    """Frees the room of batches that `discard` made unreadable already."""

    digests: tuple[bytes, ...]


Write = PutBatch | PutKeys | Executed | DropBatches


@dataclass(frozen=True, slots=True)
class RecoveredBatch:
    header: BatchHeader
    digest: bytes
    size_bytes: int
    executed: tuple[int, int] | None
    """(height, commit index)."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a validator finds in its store when it starts."""

    batches: tuple[RecoveredBatch, ...] = ()
    """In the order in which they were written."""
    sequences: tuple[tuple[int, int, int], ...] = ()
    """(author, shard, the highest sequence ever written), by rising author and shard."""
    keys: tuple[PublicKey, ...] = ()
    forgotten_max: int = 0
    """So many batches more of a shard it may have held, and sent, if its end is missing."""


class BatchStore(Protocol):
    """A `rooms.Storage` that the core also reads.  All but `write` belong to the core's thread."""

    @property
    def full(self) -> bool:
        """Whether the disk is past its watermark: nothing new should be admitted."""
        ...

    def put(self, batch: Batch) -> None:
        """Makes `batch` readable before it is written."""

    def discard(self, digest: bytes) -> None:
        """Makes a batch unreadable."""

    def __contains__(self, digest: object) -> bool: ...

    def get(self, digest: bytes) -> Batch | None:
        """The batch; raises `QnetError(DATA_CORRUPT)` where the disk gives back something else."""
        ...

    def encoded(self, digest: bytes) -> bytes | None:
        """Its canonical bytes; raises like `get`."""
        ...

    def write(self, writes: Sequence[Any]) -> None:
        """Makes `Write`s durable at the network's level before it returns."""

    def load(self) -> Recovered:
        """What was written before; called once, before anything else."""
        ...

    def close(self) -> None: ...


class BatchCache:
    """Decoded batches in memory, bounded by bytes; the least recently used leave first."""

    def __init__(self, size_bytes_max: int) -> None:
        self._size_bytes_max = size_bytes_max
        self._batches: OrderedDict[bytes, Batch] = OrderedDict()
        self._unwritten: dict[bytes, Batch] = {}
        self._size_bytes = 0

    def get(self, digest: bytes) -> Batch | None:
        batch = self._unwritten.get(digest)
        if batch is None:
            batch = self._batches.get(digest)
            if batch is not None:
                self._batches.move_to_end(digest)
        return batch

    def pin(self, batch: Batch) -> None:
        """Keeps `batch` until `written`: there is no other copy yet."""
        self._unwritten[batch.digest] = batch

    def written(self, digest: bytes) -> None:
        batch = self._unwritten.pop(digest, None)
        if batch is not None:
            self.add(batch)

    def unwritten(self, digest: bytes) -> bool:
        return digest in self._unwritten

    def add(self, batch: Batch) -> None:
        if batch.digest in self._batches:
            return
        self._batches[batch.digest] = batch
        self._size_bytes += batch.size_bytes
        while self._size_bytes > self._size_bytes_max and len(self._batches) > 1:
            _, oldest = self._batches.popitem(last=False)
            self._size_bytes -= oldest.size_bytes

    def remove(self, digest: bytes) -> None:
        self._unwritten.pop(digest, None)
        batch = self._batches.pop(digest, None)
        if batch is not None:
            self._size_bytes -= batch.size_bytes


class MemoryBatchStore:
    """A batch store of the simulator: what was not written is lost in a crash."""

    CACHE_BYTES: Final = 64 * 1024 * 1024

    def __init__(self) -> None:
        self._cache = BatchCache(self.CACHE_BYTES)
        self._written: dict[bytes, bytes] = {}
        self._executed: dict[bytes, tuple[int, int]] = {}
        self._keys: dict[tuple[int, bytes], PublicKey] = {}
        self._sequences: dict[tuple[int, int], int] = {}
        self._discarded: set[bytes] = set()
        self.full = False

    def put(self, batch: Batch) -> None:
        self._cache.pin(batch)

    def discard(self, digest: bytes) -> None:
        self._cache.remove(digest)
        self._discarded.add(digest)

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, bytes) and (
            self._cache.unwritten(digest)
            or (digest in self._written and digest not in self._discarded)
        )

    def get(self, digest: bytes) -> Batch | None:
        batch = self._cache.get(digest)
        if batch is None and digest in self:
            batch = decode_batch(self._written[digest])
            self._cache.add(batch)
        return batch

    def encoded(self, digest: bytes) -> bytes | None:
        batch = self._cache.get(digest)
        if batch is not None:
            return batch.encode()
        return self._written[digest] if digest in self else None

    def write(self, writes: Sequence[Any]) -> None:
        for write in writes:
            match write:
                case PutBatch(digest, data):
                    self._written[digest] = data
                    self._discarded.discard(digest)
                    header, _ = peek(data)
                    slot = (header.author, header.shard)
                    highest = self._sequences.get(slot, 0)
                    self._sequences[slot] = max(highest, header.sequence)
                    self._cache.written(digest)
                case PutKeys(keys):
                    self._keys.update({(key.scheme, key.public_key): key for key in keys})
                case Executed(digests, height, commit_index):
                    self._executed.update(dict.fromkeys(digests, (height, commit_index)))
                case DropBatches(digests):
                    for digest in digests:
                        if digest in self._discarded:
                            self._discarded.remove(digest)
                            self._written.pop(digest, None)
                            self._executed.pop(digest, None)
                case _:
                    raise QnetError(Code.INTERNAL, f"not a write of the batch store: {write!r}")

    def crash(self) -> None:
        """The process dies: what was not written is gone; `load` finds the rest."""
        self._cache = BatchCache(self.CACHE_BYTES)
        self._discarded.clear()

    def load(self) -> Recovered:
        batches = []
        for digest, data in self._written.items():
            header, _ = peek(data)
            executed = self._executed.get(digest)
            batches.append(RecoveredBatch(header, digest, len(data), executed))
        sequences = tuple((*slot, at) for slot, at in sorted(self._sequences.items()))
        return Recovered(tuple(batches), sequences, tuple(self._keys.values()))

    def close(self) -> None:
        self._cache = BatchCache(self.CACHE_BYTES)
