"""Append-only files of frames: length, CRC-32 of the payload, payload.  A torn tail is cut."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from qnet_actors.durable import FULL_ERRNOS, sync
from qnet_actors.wire.codes import Code, QnetError

_HEAD: Final = struct.Struct("<II")
HEAD_BYTES: Final = _HEAD.size
_BUFFERS_PER_CALL: Final = 512
_sync = getattr(os, "fdatasync", os.fsync)


class FrameReader:
    """Iterates over the payloads of a file from its start to the first frame that is not whole.

    Afterwards `end` is the offset up to which all frames are good, and `torn` whether more follows.
    """

    def __init__(self, path: Path, payload_bytes_max: int) -> None:
        self._path = path
        self._payload_bytes_max = payload_bytes_max
        self.end = 0
        self.torn = False

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """(offset of the frame, payload)."""
        with self._path.open("rb") as file:
            while head := file.read(HEAD_BYTES):
                payload = self._payload(head, file)
                if payload is None:
                    self.torn = True
                    return
                start = self.end
                self.end = start + HEAD_BYTES + len(payload)
                yield start, payload

    def _payload(self, head: bytes, file: BinaryIO) -> bytes | None:
        if len(head) < HEAD_BYTES:
            return None
        length, checksum = _HEAD.unpack(head)
        if not 0 < length <= self._payload_bytes_max:
            return None
        payload = file.read(length)
        if len(payload) != length or zlib.crc32(payload) != checksum:
            return None
        return payload


class FrameFile:
    """A file open for appending."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Opens `path`, cutting it to `size_bytes`; makes it, for its owner only, if need be."""
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, size_bytes)
        os.lseek(self._fd, size_bytes, os.SEEK_SET)
        self.size_bytes = size_bytes

    def append(self, payloads: Sequence[bytes]) -> list[int]:
        """Writes frames and returns their offsets.  Raises `QnetError(DISK_FULL)`, OSError."""
        buffers: list[bytes | memoryview] = []
        offsets = []
        end = self.size_bytes
        for payload in payloads:
            buffers += (_HEAD.pack(len(payload), zlib.crc32(payload)), payload)
            offsets.append(end)
            end += HEAD_BYTES + len(payload)
        try:
            self._write_all(buffers)
        except OSError as error:
            if error.errno in FULL_ERRNOS:
                raise QnetError(Code.DISK_FULL, f"no room to append to {self.path.name}") from error
            raise
        self.size_bytes = end
        return offsets

    def _write_all(self, buffers: list[bytes | memoryview]) -> None:
        for first in range(0, len(buffers), _BUFFERS_PER_CALL):
            rest = buffers[first : first + _BUFFERS_PER_CALL]
            while rest:
                written = os.writev(self._fd, rest)
                while rest and written >= len(rest[0]):
                    written -= len(rest.pop(0))
                if written:
                    rest[0] = memoryview(rest[0])[written:]

    def sync(self) -> None:
        _sync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def read_frame(path: Path, offset: int, length: int) -> bytes:
    """The payload, `length` bytes long, of the frame at `offset`.

    Raises `QnetError(DATA_CORRUPT)` where it is not there or not what was written.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(HEAD_BYTES + length)
    except FileNotFoundError:
        data = b""
    if len(data) == HEAD_BYTES + length:
        stored_length, checksum = _HEAD.unpack_from(data)
        payload = data[HEAD_BYTES:]
        if stored_length == length and zlib.crc32(payload) == checksum:
            return payload
    raise QnetError(Code.DATA_CORRUPT, f"{path.name} at {offset}: resync this validator")


def rewrite(path: Path, payloads: Sequence[bytes]) -> FrameFile:
    """Replaces `path` by a file of `payloads`, durably and in one step, and opens it."""
    new = path.with_suffix(".new")
    file = FrameFile(new, 0)
    try:
        file.append(payloads)
        file.sync()
    finally:
        file.close()
    new.replace(path)
    sync(path.parent)
    return FrameFile(path, path.stat().st_size)
