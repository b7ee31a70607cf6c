"""The two small logs beside the segments of a batch store: marks, and public keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec

from qnet_actors.mempool.frames import FrameFile, FrameReader, rewrite
from qnet_actors.mempool.settings import MIB
from qnet_actors.wire.codec import U8, U16, Codec, Digest, Struct, Unsigned, encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.messages import PublicKey

_MARK_BYTES_MAX: Final = MIB
_MARK_DIGESTS: Final = 16_384
_MARKS_REWRITE_BYTES: Final = 8 * MIB
_KEY_BYTES_MAX: Final = 16 * 1024


class _ExecutedMark(Struct, frozen=True, tag=1):
    digests: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=_MARK_DIGESTS)]
    height: Unsigned
    commit_index: Unsigned


class _SequenceMark(Struct, frozen=True, tag=2):
    author: U16
    shard: U8
    sequence: Unsigned


_MARK_CODEC: Final = Codec[_ExecutedMark | _SequenceMark](
    _ExecutedMark | _SequenceMark, _MARK_BYTES_MAX
)
_KEY_CODEC: Final = Codec[PublicKey](PublicKey, _KEY_BYTES_MAX)


class MarkLog:
    """Which batches are executed, and the highest sequence of each (author, shard).

    Sequences are written for segments that go: as long as a segment is there, it shows its own.
    """

    def __init__(self, path: Path) -> None:
        """Reads what is there; raises `QnetError(DATA_CORRUPT)` for a good frame of no mark."""
        self.executed: dict[bytes, tuple[int, int]] = {}
        """Digest -> (height, commit index)."""
        self.sequences: dict[tuple[int, int], int] = {}
        self._written: dict[tuple[int, int], int] = {}
        self._path = path
        self._file: FrameFile | None = None
        self.bytes_cut = 0
        if path.exists():
            self._read()

    def _read(self) -> None:
        reader = FrameReader(self._path, _MARK_BYTES_MAX)
        for _, payload in reader:
            try:
                mark = _MARK_CODEC.decode(payload)
            except QnetError as error:
                raise QnetError(Code.DATA_CORRUPT, f"{self._path.name}: {error.detail}") from error
            if isinstance(mark, _ExecutedMark):
                at = (mark.height, mark.commit_index)
                self.executed.update(dict.fromkeys(mark.digests, at))
            else:
                self.used(mark.author, mark.shard, mark.sequence)
        self.bytes_cut = self._path.stat().st_size - reader.end

    def used(self, author: int, shard: int, sequence: int) -> None:
        """A sequence that a batch has."""
        slot = (author, shard)
        self.sequences[slot] = max(sequence, self.sequences.get(slot, 0))

    def forget(self, digests: Iterable[bytes]) -> None:
        """Batches that are on no segment any more."""
        for digest in digests:
            self.executed.pop(digest, None)

    def execution_marks(
        self, digests: Sequence[bytes], height: int, commit_index: int
    ) -> list[bytes]:
        """Notes that batches are executed; what to write of it."""
        self.executed.update(dict.fromkeys(digests, (height, commit_index)))
        return _executed_marks(digests, height, commit_index)

    def sequence_marks(self) -> list[bytes]:
        """What to write before a segment goes."""
        news = {slot: at for slot, at in self.sequences.items() if self._written.get(slot) != at}
        self._written.update(news)
        return [encode(_SequenceMark(*slot, at)) for slot, at in news.items()]

    def write(self, marks: Sequence[bytes], *, sync: bool) -> None:
        """Appends marks, and begins the file anew where it has grown too long."""
        if not marks:
            return
        if self._file is None:
            raise QnetError(Code.INTERNAL, "marks are written before the store is loaded")
        self._file.append(marks)
        if self._file.size_bytes > _MARKS_REWRITE_BYTES:
            self.rewrite()
        elif sync:
            self._file.sync()

    def rewrite(self) -> None:
        """Replaces the file by one that holds no more than is known now, durably."""
        self.close()
        by_block: dict[tuple[int, int], list[bytes]] = {}
        for digest, block in self.executed.items():
            by_block.setdefault(block, []).append(digest)
        self._written = {}
        marks = [mark for at, group in by_block.items() for mark in _executed_marks(group, *at)]
        self._file = rewrite(self._path, [*marks, *self.sequence_marks()])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


class KeyLog:
    """Public keys in the order in which they were learned, the newest `keys_max` of them."""

    def __init__(self, path: Path, keys_max: int) -> None:
        """Reads what is there; raises `QnetError(DATA_CORRUPT)` for a good frame of no key."""
        self._path = path
        self._keys_max = keys_max
        self.keys: tuple[PublicKey, ...] = ()
        self.bytes_cut = 0
        end = 0
        newest: list[bytes] = []
        if path.exists():
            newest, reader = self._newest()
            end = reader.end
            self.bytes_cut = path.stat().st_size - end
            try:
                self.keys = tuple(_KEY_CODEC.decode(payload) for payload in newest)
            except QnetError as error:
                raise QnetError(Code.DATA_CORRUPT, f"{path.name}: {error.detail}") from error
        self._file = FrameFile(path, end)
        self._count = len(newest)

    def _newest(self) -> tuple[list[bytes], FrameReader]:
        """The encoded keys written last, without repetition, oldest first."""
        reader = FrameReader(self._path, _KEY_BYTES_MAX)
        found: dict[bytes, None] = {}
        for _, payload in reader:
            found.pop(payload, None)
            found[payload] = None
        return list(found)[-self._keys_max :], reader

    def write(self, keys: Sequence[PublicKey], *, sync: bool) -> None:
        """Appends keys; from twice the bound on, the file is cut down to the newest."""
        if not keys:
            return
        self._file.append([encode(key) for key in keys])
        self._count += len(keys)
        if self._count > 2 * self._keys_max:
            self._file.close()
            newest, _ = self._newest()
            self._file = rewrite(self._path, newest)
            self._count = len(newest)
        elif sync:
            self._file.sync()

    def close(self) -> None:
        self._file.close()


def _executed_marks(digests: Sequence[bytes], height: int, commit_index: int) -> list[bytes]:
    return [
        encode(_ExecutedMark(tuple(digests[at : at + _MARK_DIGESTS]), height, commit_index))
        for at in range(0, len(digests), _MARK_DIGESTS)
    ]
