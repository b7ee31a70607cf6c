"""What is left of a segment of the block log once its blocks are pruned: a file of headers.

File: magic, CRC-32 of what follows, canonical MessagePack of `_Contents`.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Final

from qnet_actors.durable import write_whole
from qnet_actors.ledger.databases import guarded
from qnet_actors.ledger.segment import Segment
from qnet_actors.wire.blocks import Certificate
from qnet_actors.wire.codec import Codec, Digest, Struct, Unsigned, encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import BLOCK, hash32

SUFFIX: Final = ".headers"
_MAGIC: Final = b"qnethdr1"
_HEAD_BYTES: Final = 12
_SIZE_BYTES_MAX: Final = 256 * 1024 * 1024
_HEADERS_READ_MAX: Final = 1_024


class _Contents(Struct, frozen=True):
    chain_id: Digest
    first_height: Unsigned
    headers: tuple[bytes, ...]
    """Canonical, of consecutive heights."""
    certificate: Certificate | None
    """That of the highest checkpoint which the segment held one of: by the parents in the headers
    it proves all of them."""


_CONTENTS: Final = Codec[_Contents](_Contents, _SIZE_BYTES_MAX)


def write_pruned(segment: Segment, path: Path, chain_id: bytes, *, fsync: bool) -> None:
    """Writes what is kept of a segment, whole or not at all.

    Raises `QnetError(DATA_CORRUPT)` for a segment without blocks.
    """
    first, last = segment.first_height, segment.last_height
    if first is None or last is None:
        raise QnetError(Code.DATA_CORRUPT, f"{segment.path} has no blocks")
    headers: list[bytes] = []
    while len(headers) < last - first + 1:
        more = segment.headers(first + len(headers), _HEADERS_READ_MAX)
        if not more:
            raise QnetError(Code.DATA_CORRUPT, f"{segment.path} lacks some of its blocks")
        headers += more
    certificate = segment.certificate_within(0, last)
    payload = encode(_Contents(chain_id, first, tuple(headers), certificate))
    head = _MAGIC + zlib.crc32(payload).to_bytes(4, "little")
    with guarded("a file of headers could not be written"):
        write_whole(path, (head, payload), fsync=fsync)


class PrunedSegment:
    """Reads a file of `write_pruned`, like the segment that it was, but for the blocks themselves.

    Raises `QnetError`: DATA_CORRUPT, or WRONG_CHAIN.
    """

    def __init__(self, path: Path, chain_id: bytes) -> None:
        with guarded(f"{path} could not be read", Code.DATA_CORRUPT):
            data = path.read_bytes()
        payload = data[_HEAD_BYTES:]
        checksum = int.from_bytes(data[len(_MAGIC) : _HEAD_BYTES], "little")
        if data[: len(_MAGIC)] != _MAGIC or checksum != zlib.crc32(payload):
            raise QnetError(Code.DATA_CORRUPT, f"{path} is damaged; resync this validator")
        contents = _CONTENTS.decode(payload)
        if contents.chain_id != chain_id:
            raise QnetError(Code.WRONG_CHAIN, f"{path} belongs to another network")
        self.path: Final = path
        self._headers = contents.headers
        self._certificate = contents.certificate
        self.first_height: Final = contents.first_height
        self.last_height: Final = contents.first_height + len(contents.headers) - 1

    def sizes(self, first_height: int, count_max: int) -> list[int]:
        """None: the blocks are gone."""
        return []

    def records(self, first_height: int, count_max: int) -> list[bytes]:
        """None: the blocks are gone."""
        return []

    def headers(self, first_height: int, count_max: int) -> list[bytes]:
        start = max(0, first_height - self.first_height)
        return list(self._headers[start : start + count_max])

    def height_of(self, block_hash: bytes) -> int | None:
        for height, hash_ in self.hashes():
            if hash_ == block_hash:
                return height
        return None

    def hashes(self) -> list[tuple[int, bytes]]:
        """(height, hash) of all blocks in order."""
        hashes = (hash32(BLOCK, header) for header in self._headers)
        return list(enumerate(hashes, self.first_height))

    def certificate_within(self, first_height: int, last_height: int) -> Certificate | None:
        """The certificate that is kept, if its height is in the range."""
        certificate = self._certificate
        if certificate is None or not first_height <= certificate.checkpoint.height <= last_height:
            return None
        return certificate

    def certificate_from(self, height: int) -> Certificate | None:
        """The certificate that is kept, if it is at or above `height`."""
        return self.certificate_within(height, 2**63)

    def close(self) -> None:
        """Nothing is held open."""
