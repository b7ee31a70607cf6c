"""Arithmetic of Z_q[X]/(X^256 + 1) on vectors: NTT, its inverse, products, rounding (FIPS 204).

A polynomial is 16 vectors of 16 int32.  In natural order lane l of vector v is coefficient
16 v + l; in NTT order, which the NTT leaves and its inverse takes, it is coefficient v + 16 l.

Numbers are signed and kept below 2^31, not below q: `multiply` gives back little more than q/2, and
sums grow until the next one.  `qnet_actors.crypto.mldsa.bounds` derives the worst case of every
step from the tables here, and docs/concepts/verification.md explains it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from qnet_actors.kernels.vectors import F32, I8, I32, I64, Emitter, Vector, transpose

Q: Final = 8380417
N: Final = 256
VECTORS: Final = 16
LANES: Final = 16
GAMMA2: Final = (Q - 1) // 32

MONTGOMERY_BITS: Final = 32
Q_INVERSE: Final[int] = pow(Q, -1, 2**MONTGOMERY_BITS)
# The Montgomery reduction of a product divides by 2^32, and the inverse NTT lacks its division by
# 256.  The cached half of each product makes up for both, so that nothing is left to do later.
SCALE: Final[int] = 2**MONTGOMERY_BITS * pow(N, -1, Q) % Q

PACKED_BYTES: Final = 3
"""A coefficient below q at rest: 24 bits."""
POLY_BYTES: Final = PACKED_BYTES * N
TERMS: Final = 6
"""Products that a row adds up: five of A, and one of t1."""
ROW_BYTES: Final = TERMS * POLY_BYTES


def centred(value: int) -> int:
    """The representative of `value` modulo q of least magnitude."""
    value %= Q
    return value - Q if value > Q // 2 else value


def _bit_reversed(i: int) -> int:
    """FIPS 204 Algorithm 43."""
    return int(f"{i:08b}"[::-1], 2)


ZETAS: Final = [centred(pow(1753, _bit_reversed(i), Q)) for i in range(N)]
"""FIPS 204 Appendix B."""
ZETAS_INVERSE: Final = [centred(pow(zeta, -1, Q)) for zeta in ZETAS]


def quotient(factor: int) -> float:
    """factor / q as the float32 that `multiply` works with."""
    return float(np.float32(factor / Q))


def multiply(b: Vector, factors: Sequence[int] | int) -> Vector:
    """b * factor modulo q, factors centred: one for all lanes, or one a lane.

    The quotient is rounded from a float32 product, so it may be off by more than one half; the
    remainder is exact, as all of it happens modulo 2^32 and the result is below 2^31.
    """
    if isinstance(factors, int):
        product, ratio = b * factors, b.to_float() * quotient(factors)
    else:
        emitter = b.emitter()
        product = b * emitter.constant(I32, factors)
        ratio = b.to_float() * emitter.constant(F32, [quotient(factor) for factor in factors])
    return product - ratio.nearest() * Q


def canonical(x: Vector) -> Vector:
    """x modulo q in [0, q)."""
    remainder = x - (x.to_float() * quotient(1)).nearest() * Q
    # A negative remainder is a huge unsigned number, and then the other one is smaller.
    return remainder.minimum_unsigned(remainder + Q)


def _halves(lengths: Sequence[int]) -> Iterator[tuple[int, int, int, range]]:
    """(distance, blocks, block, first vectors) for each block of each layer over 16 vectors."""
    for length in lengths:
        blocks = VECTORS // (2 * length)
        for block in range(blocks):
            start = 2 * length * block
            yield length, blocks, block, range(start, start + length)


def _lane_factors(table: Sequence[int], blocks: int, block: int) -> list[int]:
    """Once transposed, lane l holds coefficients 16 l to 16 l + 15: each has its own zeta."""
    return [table[VECTORS * blocks + blocks * lane + block] for lane in range(LANES)]


def ntt(coefficients: Sequence[Vector]) -> list[Vector]:
    """FIPS 204 Algorithm 41: natural order in, NTT order out."""
    a = list(coefficients)

    def layers(factors: Callable[[int, int], Sequence[int] | int]) -> None:
        for length, blocks, block, places in _halves((8, 4, 2, 1)):
            factor = factors(blocks, block)
            for j in places:
                t = multiply(a[j + length], factor)
                a[j], a[j + length] = a[j] + t, a[j] - t

    layers(lambda blocks, block: ZETAS[blocks + block])
    a = transpose(a)
    layers(lambda blocks, block: _lane_factors(ZETAS, blocks, block))
    return a


def inverse_ntt(hats: Sequence[Vector]) -> list[Vector]:
    """FIPS 204 Algorithm 42 without its last line: NTT order in, natural order out, times 256."""
    a = list(hats)

    def layers(factors: Callable[[int, int], Sequence[int] | int]) -> None:
        for length, blocks, block, places in _halves((1, 2, 4, 8)):
            factor = factors(blocks, block)
            for j in places:
                difference = a[j] - a[j + length]
                a[j] = a[j] + a[j + length]
                a[j + length] = multiply(difference, factor)

    layers(lambda blocks, block: _lane_factors(ZETAS_INVERSE, blocks, block))
    a = transpose(a)
    layers(lambda blocks, block: ZETAS_INVERSE[blocks + block])
    return a


def high_bits(r: Vector) -> Vector:
    """r1 of Decompose (FIPS 204 Algorithm 36) for r in [0, q), gamma2 = (q - 1) / 32.

    ceil(r / 128) * 1025 / 2^22 is close enough to r / (2 gamma2) to round alike for every r, and
    16, which stands for the residues just below q, becomes 0.
    """
    steps = (r + 127).shift_right(7)
    return (steps * 1025 + (1 << 21)).shift_right(22) & 15


def even_lanes(x: Vector) -> Vector:
    """int64 of lanes 0, 2, ..."""
    return (x.as_lanes(I64, x.lanes // 2) << 32).shift_right_signed(32)


def odd_lanes(x: Vector) -> Vector:
    """int64 of lanes 1, 3, ..."""
    return x.as_lanes(I64, x.lanes // 2).shift_right_signed(32)


def montgomery(even: Vector, odd: Vector) -> Vector:
    """FIPS 204 Algorithm 49 on int64 sums: x / 2^32 modulo q, lanes in their places again."""

    def reduced(x: Vector) -> Vector:
        t = ((x * Q_INVERSE) << 32).shift_right_signed(32)
        return (x - t * Q).as_lanes(I32, LANES)

    lanes = [lane for i in range(1, LANES, 2) for lane in (i, LANES + i)]
    return reduced(even).pick(lanes, reduced(odd))


def sum_of_products(pairs: Sequence[tuple[Vector, Vector]]) -> Vector:
    """The sum of a * b / 2^32 modulo q (FIPS 204 Algorithms 45 to 48), reduced once."""
    products = [(even_lanes(a) * even_lanes(b), odd_lanes(a) * odd_lanes(b)) for a, b in pairs]
    even, odd = products[0]
    for further_even, further_odd in products[1:]:
        even, odd = even + further_even, odd + further_odd
    return montgomery(even, odd)


_UNPACK: Final = [
    PACKED_BYTES * k + b if b < PACKED_BYTES else 64 for k in range(LANES) for b in range(4)
]
_PACK: Final = [4 * (i // PACKED_BYTES) + i % PACKED_BYTES for i in range(PACKED_BYTES * LANES)]


def unpack24(octets: Vector, emitter: Emitter) -> Vector:
    """16 int32 from the first 48 of 64 bytes."""
    return octets.pick(_UNPACK, emitter.constant(I8, [0] * 64)).as_lanes(I32, LANES)


def pack24(values: Vector) -> tuple[Vector, Vector]:
    """48 bytes, as 32 and 16, from 16 int32 in [0, 2^24)."""
    octets = values.as_lanes(I8, 64)
    return octets.pick(_PACK[:32]), octets.pick(_PACK[32:])


def warm() -> None:
    """Nothing to do: this is compiled into the kernels that use it."""
