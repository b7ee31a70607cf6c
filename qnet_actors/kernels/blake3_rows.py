"""BLAKE3 of many short inputs, sixteen at a time, in derive-key mode.

Only inputs of one chunk (1,024 bytes) take part; longer ones go through the library.  Sections and
algorithms are those of the BLAKE3 paper, 2020-01-09.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qnet_actors.kernels.cache import kernel
from qnet_actors.kernels.vectors import I8, I32, I64, Emitter, Vector, transpose, vector_kernel
from qnet_actors.wire.hashing import DIGEST_BYTES, hash32

if TYPE_CHECKING:
    from qnet_actors.kernels.vectors import Pointer

Array = Any

LANES: Final = 16
BLOCK_BYTES: Final = 64
CHUNK_BYTES: Final = 1024
CONTEXT_BYTES_MAX: Final = BLOCK_BYTES

_CHUNK_START: Final = 1
_CHUNK_END: Final = 2
_ROOT: Final = 8
_DERIVE_KEY_CONTEXT: Final = 32
_DERIVE_KEY_MATERIAL: Final = 64

# Section 2.1: the initial value of SHA-256.
_IV: Final = (
    *(0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A),
    *(0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19),
)
# Section 2.2, Table 2.
_PERMUTATION: Final = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_COLUMNS: Final = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS: Final = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
_ROUNDS: Final = 7
_LANE_BYTES: Final = 4 * LANES


def _mix(v: list[Vector], places: tuple[int, int, int, int], x: Vector, y: Vector) -> None:
    """The quarter round of section 2.2."""
    a, b, c, d = places
    for word, (turn_d, turn_b) in ((x, (16, 12)), (y, (8, 7))):
        v[a] = v[a] + v[b] + word
        v[d] = (v[d] ^ v[a]).rotate_left(32 - turn_d)
        v[c] = v[c] + v[d]
        v[b] = (v[b] ^ v[c]).rotate_left(32 - turn_b)


@vector_kernel
def _compress(
    emitter: Emitter, values: Pointer, addresses: Pointer, sizes: Pointer, flags: Pointer
) -> None:
    """Section 2.2, counter 0, on sixteen lanes.

    `values` uint32[8, 16] chaining values, in place; `addresses` int64[16] of blocks of 64 bytes;
    `sizes` and `flags` uint32[16].
    """
    blocks = []
    for lane in range(LANES):
        address = emitter.load_scalar(emitter.at(addresses, lane, 8), I64)
        place = emitter.builder.inttoptr(address, I8.as_pointer())
        blocks.append(emitter.load(place, I32, LANES))
    words = transpose(blocks)
    v = [emitter.load(values, I32, LANES, _LANE_BYTES * word) for word in range(8)]
    v += [emitter.constant(I32, [_IV[word]] * LANES) for word in range(4)]
    v += [emitter.constant(I32, [0] * LANES)] * 2
    v += [emitter.load(pointer, I32, LANES) for pointer in (sizes, flags)]
    for _ in range(_ROUNDS):
        for pair, places in enumerate((*_COLUMNS, *_DIAGONALS)):
            _mix(v, places, words[2 * pair], words[2 * pair + 1])
        words = [words[place] for place in _PERMUTATION]
    for word in range(8):
        emitter.store(v[word] ^ v[word + 8], values, _LANE_BYTES * word)


@kernel("void(uint32[::1], Array(uint8, 1, 'C', readonly=True), int64[::1], int64, uint8[:, ::1])")
def _hash_rows(key: Array, data: Array, offsets: Array, mode: int, digests: Array) -> None:
    """Digests of the rows data[offsets[i]:offsets[i + 1]] of at most a chunk; others are left."""
    values = np.empty((8, LANES), dtype=np.uint32)
    addresses = np.empty(LANES, dtype=np.int64)
    sizes = np.zeros(LANES, dtype=np.uint32)
    flags = np.zeros(LANES, dtype=np.uint32)
    tails = np.zeros((LANES, BLOCK_BYTES), dtype=np.uint8)
    starts = np.zeros(LANES, dtype=np.int64)
    lengths = np.zeros(LANES, dtype=np.int64)
    rows = np.zeros(LANES, dtype=np.int64)
    base, tails_base = data.ctypes.data, tails.ctypes.data
    count = len(offsets) - 1
    row = 0
    while row < count:
        lanes, blocks = 0, 0
        while row < count and lanes < LANES:
            length = offsets[row + 1] - offsets[row]
            if length <= CHUNK_BYTES:
                starts[lanes], lengths[lanes], rows[lanes] = offsets[row], length, row
                # An empty input is one empty block.
                blocks = max(blocks, (max(length, 1) + BLOCK_BYTES - 1) // BLOCK_BYTES)
                lanes += 1
            row += 1
        for word in range(8):
            values[word, :] = key[word]
        addresses[:] = tails_base
        for block in range(blocks):
            at = BLOCK_BYTES * block
            for lane in range(lanes):
                left = lengths[lane] - at
                start = starts[lane] + at
                flags[lane] = mode | (_CHUNK_START if block == 0 else 0)
                if left > BLOCK_BYTES:
                    addresses[lane] = base + start
                    sizes[lane] = BLOCK_BYTES
                    continue
                # The last block, or a lane that is done, whose result nobody looks at.
                left = max(left, 0)
                tails[lane, :left] = data[start : start + left]
                tails[lane, left:] = 0
                addresses[lane] = tails_base + BLOCK_BYTES * lane
                sizes[lane] = left
                flags[lane] |= _CHUNK_END | _ROOT
            _compress(values, addresses, sizes, flags)
            for lane in range(lanes):
                last = max(lengths[lane] - 1, 0) // BLOCK_BYTES
                if last == block:
                    words = digests[rows[lane]].view(np.uint32)
                    for word in range(8):
                        words[word] = values[word, lane]


@kernel("void(uint32[::1], Array(uint8, 2, 'C', readonly=True), uint8[:, ::1])")
def _hash_blocks(key: Array, blocks: Array, digests: Array) -> None:
    """Digests of inputs of 64 bytes each."""
    values = np.empty((8, LANES), dtype=np.uint32)
    addresses = np.empty(LANES, dtype=np.int64)
    sizes = np.full(LANES, BLOCK_BYTES, dtype=np.uint32)
    flags = np.full(
        LANES, _CHUNK_START | _CHUNK_END | _ROOT | _DERIVE_KEY_MATERIAL, dtype=np.uint32
    )
    base = blocks.ctypes.data
    words = digests.view(np.uint32)
    for first in range(0, len(blocks), LANES):
        for lane in range(LANES):
            addresses[lane] = base + BLOCK_BYTES * min(first + lane, len(blocks) - 1)
        for word in range(8):
            values[word, :] = key[word]
        _compress(values, addresses, sizes, flags)
        for lane in range(min(LANES, len(blocks) - first)):
            for word in range(8):
                words[first + lane, word] = values[word, lane]


@cache
def _context_key(context: str) -> Array:
    """Section 2.3: the hash of the context string, as the words of a key."""
    octets = context.encode()
    if len(octets) > CONTEXT_BYTES_MAX:
        raise ValueError(f"a context has at most {CONTEXT_BYTES_MAX} bytes here")
    digest = np.zeros((1, DIGEST_BYTES), dtype=np.uint8)
    _hash_rows(
        np.array(_IV, dtype=np.uint32),
        np.frombuffer(octets, dtype=np.uint8),
        np.array([0, len(octets)], dtype=np.int64),
        _DERIVE_KEY_CONTEXT,
        digest,
    )
    return digest.reshape(-1).view(np.uint32)


def hash_rows(context: str, data: Array, offsets: Array) -> Array:
    """uint8[n, 32]: `wire.hashing.hash32(context, row)` of n rows.

    Row i is data[offsets[i]:offsets[i + 1]]: data uint8[...] contiguous, offsets int64[n + 1],
    not falling and within the data, or ValueError.
    """
    if len(offsets) == 0 or offsets[0] < 0 or offsets[-1] > len(data):
        raise ValueError("offsets outside of the data")
    lengths = np.diff(offsets)
    if len(lengths) and lengths.min() < 0:
        raise ValueError("offsets must not fall")
    digests = np.empty((len(lengths), DIGEST_BYTES), dtype=np.uint8)
    _hash_rows(_context_key(context), data, offsets, _DERIVE_KEY_MATERIAL, digests)
    for row in np.flatnonzero(lengths > CHUNK_BYTES).tolist():
        digest = hash32(context, data[offsets[row] : offsets[row + 1]].tobytes())
        digests[row] = np.frombuffer(digest, dtype=np.uint8)
    return digests


def hash_blocks(context: str, blocks: Array) -> Array:
    """uint8[n, 32]: `wire.hashing.hash32(context, block)` of n blocks, uint8[n, 64] contiguous."""
    if blocks.ndim != 2 or blocks.shape[1] != BLOCK_BYTES:
        raise ValueError(f"blocks have {BLOCK_BYTES} bytes")
    digests = np.empty((len(blocks), DIGEST_BYTES), dtype=np.uint8)
    _hash_blocks(_context_key(context), blocks, digests)
    return digests


def warm() -> None:
    """Nothing to do: what has a signature is compiled where it is defined."""
