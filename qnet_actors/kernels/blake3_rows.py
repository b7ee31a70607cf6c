"""BLAKE3 of many short inputs, sixteen at a time, in derive-key mode.

Only inputs of one chunk (1,024 bytes) take part; longer ones go through the library.  Sections and
algorithms are those of the BLAKE3 paper, 2020-01-09.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qnet_actors.kernels.blake3 import (
    BLOCK_BYTES,
    CHUNK_END,
    CHUNK_START,
    DERIVE_KEY_MATERIAL,
    IV,
    LANES,
    PERMUTATION,
    ROOT,
    ROUNDS,
    context_key,
    mix_round,
)
from qnet_actors.kernels.cache import kernel
from qnet_actors.kernels.vectors import I8, I32, I64, Emitter, transpose, vector_kernel
from qnet_actors.wire.hashing import DIGEST_BYTES, hash32

if TYPE_CHECKING:
    from qnet_actors.kernels.vectors import Pointer

Array = Any

CHUNK_BYTES: Final = 1024
_LANE_BYTES: Final = 4 * LANES


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
    v += [emitter.constant(I32, [IV[word]] * LANES) for word in range(4)]
    v += [emitter.constant(I32, [0] * LANES)] * 2
    v += [emitter.load(pointer, I32, LANES) for pointer in (sizes, flags)]
    for _ in range(ROUNDS):
        mix_round(v, words)
        words = [words[place] for place in PERMUTATION]
    for word in range(8):
        emitter.store(v[word] ^ v[word + 8], values, _LANE_BYTES * word)


@kernel(
    "void(Array(uint32, 1, 'C', readonly=True), Array(uint8, 1, 'C', readonly=True), int64[::1],"
    " int64, uint8[:, ::1])"
)
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
                flags[lane] = mode | (CHUNK_START if block == 0 else 0)
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
                flags[lane] |= CHUNK_END | ROOT
            _compress(values, addresses, sizes, flags)
            for lane in range(lanes):
                last = max(lengths[lane] - 1, 0) // BLOCK_BYTES
                if last == block:
                    words = digests[rows[lane]].view(np.uint32)
                    for word in range(8):
                        words[word] = values[word, lane]


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
    _hash_rows(context_key(context), data, offsets, DERIVE_KEY_MATERIAL, digests)
    for row in np.flatnonzero(lengths > CHUNK_BYTES).tolist():
        digest = hash32(context, data[offsets[row] : offsets[row + 1]].tobytes())
        digests[row] = np.frombuffer(digest, dtype=np.uint8)
    return digests


def warm() -> None:
    """Nothing to do: what has a signature is compiled where it is defined."""
