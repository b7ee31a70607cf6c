"""Keccak-f[1600] on eight states at once (FIPS 202).

Word i of lane l of eight states stands at place 8 * i + l of a uint64[200].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qnet_actors.kernels.cache import kernel
from qnet_actors.kernels.vectors import I64, Emitter, Vector, transpose, vector_kernel

if TYPE_CHECKING:
    from qnet_actors.kernels.vectors import Pointer, Scalar

Array = Any

LANES: Final = 8
ROUNDS: Final = 24
STATE_WORDS: Final = 25 * LANES
SHAKE128_BYTES: Final = 168
SHAKE256_BYTES: Final = 136
SHAKE128_WORDS: Final = SHAKE128_BYTES // 8
SHAKE256_WORDS: Final = SHAKE256_BYTES // 8
SQUEEZED_WORDS: Final = 24
"""What `squeeze8` writes for each lane: the output and, behind it, words to be overwritten."""
SUFFIX: Final = 0x1F
"""What SHAKE appends to a message: 1111, and the first bit of the padding."""
LAST_BIT: Final = 0x80

_WORD_BYTES: Final = 8


def _round_constants() -> list[int]:
    """FIPS 202 Algorithms 5 and 6: the bits of an LFSR at places 2^j - 1."""
    constants = []
    register = 1
    for _ in range(ROUNDS):
        constant = 0
        for j in range(7):
            if register & 1:
                constant |= 1 << ((1 << j) - 1)
            register = register << 1 ^ (0x171 if register & 0x80 else 0)
        constants.append(constant)
    return constants


def _rotations() -> list[int]:
    """FIPS 202 Algorithm 2: how far rho rotates word x + 5 y."""
    rotations = [0] * 25
    x, y = 1, 0
    for t in range(24):
        rotations[x + 5 * y] = (t + 1) * (t + 2) // 2 % 64
        x, y = y, (2 * x + 3 * y) % 5
    return rotations


_ROUND_CONSTANTS = np.array(_round_constants(), dtype=np.uint64)
_ROTATIONS: Final = _rotations()
# FIPS 202 Algorithm 3: where pi moves word x + 5 y.
_PI: Final = [y + 5 * ((2 * x + 3 * y) % 5) for y in range(5) for x in range(5)]


def _round(a: list[Vector]) -> list[Vector]:
    """Theta, rho, pi and chi (FIPS 202 Algorithms 1 to 4)."""
    parity = [a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20] for x in range(5)]
    moved = list(a)
    for x in range(5):
        before, after = parity[(x + 4) % 5], parity[(x + 1) % 5].rotate_left(1)
        for word in range(x, 25, 5):
            moved[_PI[word]] = (a[word] ^ before ^ after).rotate_left(_ROTATIONS[word])
    return [
        moved[y + x] ^ (~moved[y + (x + 1) % 5] & moved[y + (x + 2) % 5])
        for y in range(0, 25, 5)
        for x in range(5)
    ]


def _permutation(emitter: Emitter, state: list[Vector], constants: Pointer) -> list[Vector]:
    def two_rounds(index: Scalar, a: list[Vector]) -> list[Vector]:
        place = emitter.at(constants, index, 2 * _WORD_BYTES)
        for k in range(2):
            a = _round(a)
            constant = emitter.load_scalar(emitter.at(place, k, _WORD_BYTES), I64)
            a[0] = a[0] ^ emitter.broadcast(constant, LANES)
        return a

    return emitter.repeat(ROUNDS // 2, state, two_rounds)


def _load_state(emitter: Emitter, state: Pointer) -> list[Vector]:
    return [emitter.load(state, I64, LANES, LANES * _WORD_BYTES * word) for word in range(25)]


def _store_state(emitter: Emitter, vectors: list[Vector], state: Pointer) -> None:
    for word, vector in enumerate(vectors):
        emitter.store(vector, state, LANES * _WORD_BYTES * word)


def _lane_rows(emitter: Emitter, rows: Pointer, start: Scalar, stride: Scalar) -> list[Pointer]:
    first = emitter.at(rows, start, _WORD_BYTES)
    pitch = emitter.builder.mul(stride, emitter.integer(_WORD_BYTES))
    return [
        emitter.at(first, emitter.builder.mul(pitch, emitter.integer(lane)))
        for lane in range(LANES)
    ]


@vector_kernel
def _permute(emitter: Emitter, state: Pointer, constants: Pointer) -> None:
    _store_state(emitter, _permutation(emitter, _load_state(emitter, state), constants), state)


@vector_kernel
def _absorb(
    emitter: Emitter,
    state: Pointer,
    rows: Pointer,
    start: Scalar,
    stride: Scalar,
    constants: Pointer,
) -> None:
    vectors = _load_state(emitter, state)
    lanes = _lane_rows(emitter, rows, start, stride)
    block: list[Vector] = []
    # 17 words: two squares of eight, and the last one lane by lane, as nothing behind it may be
    # read.
    for word in range(0, SHAKE256_WORDS - 1, LANES):
        block += transpose([emitter.load(lane, I64, LANES, _WORD_BYTES * word) for lane in lanes])
    last = emitter.constant(I64, [0] * LANES)
    for index, lane in enumerate(lanes):
        place = emitter.at(lane, SHAKE256_WORDS - 1, _WORD_BYTES)
        last = emitter.insert(last, emitter.load_scalar(place, I64), index)
    for word, vector in enumerate([*block, last]):
        vectors[word] = vectors[word] ^ vector
    _store_state(emitter, _permutation(emitter, vectors, constants), state)


@vector_kernel
def _squeeze(
    emitter: Emitter, state: Pointer, rows: Pointer, start: Scalar, stride: Scalar
) -> None:
    vectors = _load_state(emitter, state)
    lanes = _lane_rows(emitter, rows, start, stride)
    for word in range(0, SQUEEZED_WORDS, LANES):
        for lane, vector in zip(lanes, transpose(vectors[word : word + LANES]), strict=True):
            emitter.store(vector, lane, _WORD_BYTES * word)


@kernel()
def permute8(state: Array) -> None:
    """Keccak-f[1600] on eight states, uint64[200]."""
    _permute(state, _ROUND_CONSTANTS)


@kernel()
def absorb8(state: Array, rows: Array, start: int, stride: int) -> None:
    """Takes 136 bytes into each of eight states: one block of SHAKE256.

    `rows` is uint64[...]; the block of lane l stands at word `l * stride + start`.
    """
    _absorb(state, rows, start, stride, _ROUND_CONSTANTS)


@kernel()
def squeeze8(state: Array, rows: Array, start: int, stride: int) -> None:
    """Writes words 0 to 23 of each state to word `l * stride + start` of `rows`."""
    _squeeze(state, rows, start, stride)


@kernel()
def shake(seed: Array, rate_bytes: int, out: Array) -> None:
    """SHAKE128 (rate 168) or SHAKE256 (rate 136) of a uint8[n] below the rate, into uint8[m].

    One at a time, in the first of eight lanes: for the rare cases that batches leave over.
    """
    block = np.zeros(rate_bytes, dtype=np.uint8)
    block[: len(seed)] = seed
    block[len(seed)] ^= np.uint8(SUFFIX)
    block[rate_bytes - 1] ^= np.uint8(LAST_BIT)
    state = np.zeros(STATE_WORDS, dtype=np.uint64)
    for i in range(rate_bytes):
        state[(i >> 3) * LANES] |= np.uint64(block[i]) << np.uint64(8 * (i & 7))
    place = rate_bytes
    for i in range(len(out)):
        if place == rate_bytes:
            permute8(state)
            place = 0
        out[i] = state[(place >> 3) * LANES] >> np.uint64(8 * (place & 7)) & np.uint64(255)
        place += 1


def warm() -> None:
    """Nothing to do: these functions are compiled into the kernels that call them."""
