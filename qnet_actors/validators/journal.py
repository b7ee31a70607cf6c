"""The consensus journal: what this validator must not forget, in append-only segment files.

A segment begins with a snapshot and goes on with what was admitted since, so a new segment makes
the older ones superfluous.  It is written under a temporary name and renamed once it is durable.

A file is a sequence of frames, one a write call: magic, length and CRC-32 of the payload, CRC-32 of
these three, payload (the canonical MessagePack of a list of entries).  A frame that was never
completed can only be the last: it is cut and reported.  Damage that sound frames follow is refused,
since what the validator signed could stand in it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qnet_actors.durable import FULL_ERRNOS, sync
from qnet_actors.validators.journal_entries import (
    FRAME_SIZE_BYTES_MAX,
    BlockEntry,
    Entry,
    SnapshotEntry,
    decode_entries,
)
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError

FRAME_BLOCKS_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of blocks in one frame; what is more goes into the next."""

_MAGIC: Final = b"QJ01"
_HEADER: Final = struct.Struct("<4sII")
_HEADER_BYTES: Final = _HEADER.size + 4
_PREFIX: Final = "journal-"
_SUFFIX: Final = ".seg"


@dataclass(frozen=True, slots=True)
class Journalled:
    """What a journal holds: the newest snapshot (None: nothing yet) and the entries since."""

    snapshot: SnapshotEntry | None = None
    entries: tuple[Entry, ...] = ()
    torn_bytes: int = 0
    """Bytes of an incomplete last write that were cut."""


class FileJournal:
    """Segments in a directory that the caller holds exclusively.

    `sync`: fsync before `write` returns; False only where the network's durability is "process".
    """

    def __init__(self, directory: Path, *, sync: bool = True) -> None:
        """Reads what is there.

        Raises `QnetError`: DATA_CORRUPT, DATA_VERSION; OSError where the directory is not usable.
        """
        self._directory: Final = directory
        self._sync: Final = sync
        self._failed = False
        directory.mkdir(parents=True, exist_ok=True)
        for leftover in directory.glob(f"{_PREFIX}*.tmp"):
            leftover.unlink()
        segments = self._segments()
        self._number = segments[-1][0] if segments else 0
        self._file: Any = None
        self.journalled: Final = self._open(segments[-1][1]) if segments else Journalled()
        for _, old in segments[:-1]:
            old.unlink()

    def write(self, writes: Sequence[Any]) -> None:
        """Makes entries durable, in order; a snapshot begins a new segment.

        Raises OSError, or `QnetError(DISK_FULL)`; after that every write fails.
        """
        if self._failed:
            raise QnetError(Code.DATA_CORRUPT, "the journal failed before and is not written to")
        # Whether a write that failed is durable cannot be known; a second try might hide it.
        self._failed = True
        entries: list[Entry] = list(writes)
        last = max(
            (i for i, entry in enumerate(entries) if isinstance(entry, SnapshotEntry)), default=None
        )
        try:
            if last is not None:
                self._rotate(entries[last:])
            else:
                self._append(entries)
        except OSError as error:
            if error.errno in FULL_ERRNOS:
                raise QnetError(Code.DISK_FULL, "the journal cannot grow") from error
            raise
        self._failed = False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, entries: Sequence[Entry]) -> None:
        if self._file is None:
            raise QnetError(Code.DATA_CORRUPT, "a journal begins with a snapshot")
        for part in frames(entries):
            self._file.write(part)
        self._file.flush()
        if self._sync:
            os.fsync(self._file.fileno())

    def _rotate(self, entries: Sequence[Entry]) -> None:
        self._number += 1
        name = f"{_PREFIX}{self._number:010d}"
        temporary = self._directory / f"{name}.tmp"
        file = temporary.open("wb")
        for part in frames(entries):
            file.write(part)
        file.flush()
        if self._sync:
            os.fsync(file.fileno())
        temporary.rename(self._directory / f"{name}{_SUFFIX}")
        if self._sync:
            sync(self._directory)
        self.close()
        self._file = file
        for number, old in self._segments():
            if number < self._number:
                old.unlink()

    def _open(self, path: Path) -> Journalled:
        data = path.read_bytes()
        journalled, sound_bytes = read_frames(data)
        if journalled.snapshot is None:
            raise QnetError(Code.DATA_CORRUPT, f"{path.name} does not begin with a snapshot")
        if journalled.torn_bytes:
            with path.open("r+b") as file:
                file.truncate(sound_bytes)
                os.fsync(file.fileno())
        self._file = path.open("ab")
        return journalled

    def _segments(self) -> list[tuple[int, Path]]:
        found: list[tuple[int, Path]] = []
        for path in self._directory.glob(f"{_PREFIX}*{_SUFFIX}"):
            number = path.name[len(_PREFIX) : -len(_SUFFIX)]
            if number.isdecimal():
                found.append((int(number), path))
        return sorted(found)


class MemoryJournal:
    """A journal for the simulator and for tests: what was written is durable, nothing else is.

    The entries go through the same frames as in a file.
    """

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._closed = False

    def write(self, writes: Sequence[Any]) -> None:
        """Makes entries durable, in order."""
        if self._closed:
            raise QnetError(Code.DATA_CORRUPT, "the journal is closed")
        entries: list[Entry] = list(writes)
        for i in range(len(entries) - 1, -1, -1):
            if isinstance(entries[i], SnapshotEntry):
                self._frames, entries = [], entries[i:]
                break
        self._frames.append(b"".join(frames(entries)))

    def close(self) -> None:
        self._closed = True

    def crash(self, lost_writes: int = 0, torn_bytes: int = 0) -> MemoryJournal:
        """What a new life finds; the old one can write no more.

        `lost_writes` of the last ones are gone though they were durable, as with a disk that lies
        or an old backup; then `torn_bytes` are cut from the last frame left.
        """
        self.close()
        found = MemoryJournal()
        found._frames = self._frames[: len(self._frames) - lost_writes]
        if torn_bytes and len(found._frames) > 1:
            found._frames[-1] = found._frames[-1][:-torn_bytes]
        return found

    @property
    def journalled(self) -> Journalled:
        """What the journal holds.  Raises as `FileJournal` does."""
        return read_frames(b"".join(self._frames))[0]


def frames(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Frames with `entries`, in order; one that is cut off leaves a journal that ends before it."""
    part: list[Entry] = []
    size = 0
    for entry in entries:
        weight = len(entry.block) if isinstance(entry, BlockEntry) else 0
        if part and size + weight > FRAME_BLOCKS_BYTES_MAX:
            yield frame(part)
            part, size = [], 0
        part.append(entry)
        size += weight
    yield frame(part)


def frame(entries: Iterable[Entry]) -> bytes:
    """One frame with `entries`."""
    payload = encode(tuple(entries))
    if len(payload) > FRAME_SIZE_BYTES_MAX:
        raise QnetError(Code.TOO_LARGE, "a journal frame over 1 GiB")
    head = _HEADER.pack(_MAGIC, len(payload), zlib.crc32(payload))
    return head + struct.pack("<I", zlib.crc32(head)) + payload


def read_frames(data: bytes) -> tuple[Journalled, int]:
    """The entries of a segment, and how many bytes of it are sound.

    Raises `QnetError`: DATA_CORRUPT for damage that sound frames follow, DATA_VERSION.
    """
    snapshot: SnapshotEntry | None = None
    entries: list[Entry] = []
    at = 0
    while at < len(data):
        payload = _payload(data, at)
        if payload is None:
            if _sound_frame_follows(data, at):
                raise QnetError(Code.DATA_CORRUPT, f"the journal is damaged at byte {at}")
            break
        try:
            decoded = decode_entries(payload)
        except QnetError as error:
            if error.code == Code.DATA_VERSION:
                raise
            raise QnetError(Code.DATA_CORRUPT, f"journal frame at byte {at}: {error}") from None
        for entry in decoded:
            if isinstance(entry, SnapshotEntry):
                snapshot, entries = entry, []
            elif snapshot is None:
                raise QnetError(Code.DATA_CORRUPT, "the journal does not begin with a snapshot")
            else:
                entries.append(entry)
        at += _HEADER_BYTES + len(payload)
    return Journalled(snapshot, tuple(entries), len(data) - at), at


def _length(data: bytes, at: int) -> int | None:
    """The length of the payload that a sound frame header at a position names."""
    head = data[at : at + _HEADER_BYTES]
    if len(head) < _HEADER_BYTES:
        return None
    magic, length, _ = _HEADER.unpack_from(head)
    (head_crc,) = struct.unpack_from("<I", head, _HEADER.size)
    if magic != _MAGIC or head_crc != zlib.crc32(head[: _HEADER.size]):
        return None
    return int(length)


def _payload(data: bytes, at: int) -> bytes | None:
    """The payload of the frame at a position; None where no sound frame stands there."""
    length = _length(data, at)
    if length is None:
        return None
    payload = data[at + _HEADER_BYTES : at + _HEADER_BYTES + length]
    (_, _, crc) = _HEADER.unpack_from(data, at)
    return payload if len(payload) == length and zlib.crc32(payload) == crc else None


def _sound_frame_follows(data: bytes, at: int) -> bool:
    """Whether a sound frame stands behind the bad one at a position.

    A sound header says where the next frame begins.  Only without one are the bytes searched: what
    a payload holds comes from others, who could have put the likeness of a frame into it.
    """
    while at < len(data):
        length = _length(data, at)
        at = data.find(_MAGIC, at + 1) if length is None else at + _HEADER_BYTES + length
        if at < 0:
            return False
        if _payload(data, at) is not None:
            return True
    return False
