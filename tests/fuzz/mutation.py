"""Seeded mutations of good inputs: what a coverage-guided fuzzer does, without the coverage."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

# Markers of MessagePack and bytes at which lengths, signs and text change their meaning.
_BYTES = bytes.fromhex("00017f80818f90929fa0a1bfc0c1c2c3c4c5c6cacbcccdcecfd0d3d9dadcdddedfe0ff")
# Arrays in arrays and maps in maps, of MessagePack and JSON, at which recursion ends.
_NESTED = (b"\x91", b"\x81\x01", b"[", b'{"a":')
_LENGTHS = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)


def mutations(seeds: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` variants of `seeds`, the same for the same arguments."""
    source = random.Random(seed)
    for _ in range(count):
        data = bytearray(source.choice(seeds))
        for _ in range(source.choice((1, 1, 2, 4))):
            _mutate(data, seeds, source)
        yield bytes(data)


def _mutate(data: bytearray, seeds: Sequence[bytes], source: random.Random) -> None:
    at = source.randrange(len(data) + 1)
    end = min(len(data), at + source.choice((1, 2, 4, 32, 500)))
    match source.randrange(9):
        case 0 if at < len(data):
            data[at] ^= 1 << source.randrange(8)
        case 1 if at < len(data):
            data[at] = source.choice(_BYTES)
        case 2:
            data[at:at] = source.choice(_BYTES).to_bytes(1, "big")
        case 3:
            del data[at:end]
        case 4:
            data[at:at] = data[at:end] * source.choice((1, 2, 16))
        case 5:
            del data[at:]
        case 6:
            length = source.choice(_LENGTHS).to_bytes(4, "big")
            data[at : at + 4] = source.choice((length, length[::-1]))
        case 7 if source.random() < 0.1:
            data[at:end] = source.choice(_NESTED) * 20_000
        case _:
            other = source.choice(seeds)
            data[at:end] = other[at:end] if source.random() < 0.5 else other
