"""The steps of ML-DSA-65 verification as vector kernels (FIPS 204).

An expanded key is ENTRY_BYTES: six rows of six polynomials, A[r, 0..4] and t1[r], in NTT order and
24 bits a coefficient, each times `ring.SCALE`; and tr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qnet_actors.kernels.cache import kernel
from qnet_actors.kernels.ring import (
    LANES,
    POLY_BYTES,
    ROW_BYTES,
    SCALE,
    TERMS,
    VECTORS,
    Q,
    canonical,
    centred,
    high_bits,
    inverse_ntt,
    multiply,
    ntt,
    pack24,
    sum_of_products,
    unpack24,
)
from qnet_actors.kernels.vectors import I8, I32, I64, Emitter, Vector, transpose, vector_kernel

if TYPE_CHECKING:
    from qnet_actors.kernels.vectors import Pointer, Scalar

Array = Any

# FIPS 204 Table 1, column ML-DSA-65.
K: Final = 6
L: Final = 5
D: Final = 13
TAU: Final = 49
GAMMA1: Final = 1 << 19
BETA: Final = 196
OMEGA: Final = 55
CHALLENGE_BYTES: Final = 48
Z_POLY_BYTES: Final = 640
Z_BITS: Final = 20
T1_POLY_BYTES: Final = 320
T1_BITS: Final = 10
W1_POLY_BYTES: Final = 128
PUBLIC_KEY_BYTES: Final = 32 + K * T1_POLY_BYTES
HINT_START: Final = CHALLENGE_BYTES + L * Z_POLY_BYTES
SIGNATURE_BYTES: Final = HINT_START + OMEGA + K

TR_BYTES: Final = 64
TR_START: Final = K * ROW_BYTES
ENTRY_BYTES: Final = TR_START + TR_BYTES
CACHE_LINE_BYTES: Final = 64
# While one signature is verified, the expanded key of the next one and the signature of a later one
# come from main memory.  A few lines at a time: the processor waits where more loads are under way
# than it can keep track of.
RESPONSE_LINES: Final = 29
SIGNATURE_LINES: Final = 11
ROW_LINES: Final = 48
RESPONSE_FETCH_BYTES: Final = RESPONSE_LINES * CACHE_LINE_BYTES
ROW_FETCH_BYTES: Final = ROW_LINES * CACHE_LINE_BYTES
# Of the 280 candidates in five blocks of SHAKE128, and those read besides.
CANDIDATES: Final = 280
CANDIDATES_DECODED: Final = 288

_VECTOR_BYTES: Final = 4 * LANES
_PACKED_VECTOR_BYTES: Final = POLY_BYTES // VECTORS


def _unpack_bits(octets: Vector, bits: int) -> Vector:
    """16 numbers of `bits` bits, least significant first, from the front of a vector of bytes."""
    starts = [bits * k for k in range(LANES)]
    places = [min(start // 8 + b, octets.lanes - 1) for start in starts for b in range(4)]
    words = octets.pick(places).as_lanes(I32, LANES)
    return words.shift_right([start % 8 for start in starts]) & ((1 << bits) - 1)


def _store_poly(emitter: Emitter, vectors: list[Vector], pointer: Pointer) -> None:
    for v, vector in enumerate(vectors):
        emitter.store(vector, pointer, _VECTOR_BYTES * v)


def _store_packed(emitter: Emitter, vectors: list[Vector], pointer: Pointer) -> None:
    for v, vector in enumerate(vectors):
        front, back = pack24(vector)
        emitter.store(front, pointer, _PACKED_VECTOR_BYTES * v)
        emitter.store(back, pointer, _PACKED_VECTOR_BYTES * v + front.lanes)


def _fetch(emitter: Emitter, pointer: Pointer, lines: int, step: int) -> None:
    """One of 32 steps that together fetch `lines` cache lines."""
    for line in range(lines * step // (2 * VECTORS), lines * (step + 1) // (2 * VECTORS)):
        emitter.prefetch(emitter.at(pointer, line, CACHE_LINE_BYTES))


@vector_kernel
def _response(
    emitter: Emitter,
    signature: Pointer,
    start: Scalar,
    out: Pointer,
    to: Scalar,
    entries: Pointer,
    upcoming: Scalar,
    later: Scalar,
) -> Scalar:
    source, target = emitter.at(signature, start), emitter.at(out, to, 4)
    soon, further = emitter.at(entries, upcoming), emitter.at(signature, later)
    largest = emitter.constant(I32, [0] * LANES)
    z = []
    for v in range(VECTORS):
        _fetch(emitter, soon, RESPONSE_LINES, v)
        _fetch(emitter, further, SIGNATURE_LINES, v)
        octets = emitter.load(source, I8, 64, Z_BITS * LANES // 8 * v)
        packed = _unpack_bits(octets, Z_BITS)
        # Below the norm's bound when BETA < packed < 2 GAMMA1 - BETA; one comparison, unsigned.
        largest = largest.maximum_unsigned(packed - (BETA + 1))
        z.append(GAMMA1 - packed)
    for v, vector in enumerate(ntt(z)):
        _fetch(emitter, soon, RESPONSE_LINES, VECTORS + v)
        _fetch(emitter, further, SIGNATURE_LINES, VECTORS + v)
        emitter.store(vector, target, _VECTOR_BYTES * v)
    return emitter.at_most(largest.largest_unsigned(), 2 * (GAMMA1 - BETA - 1))


@vector_kernel
def _challenge(emitter: Emitter, c: Pointer, out: Pointer, to: Scalar) -> None:
    coefficients = [
        emitter.load(c, I8, LANES, LANES * v).extend_signed(I32) for v in range(VECTORS)
    ]
    _store_poly(emitter, ntt(coefficients), emitter.at(out, to, 4))


@vector_kernel
def _row(
    emitter: Emitter,
    entries: Pointer,
    start: Scalar,
    hats: Pointer,
    w: Pointer,
    w1: Pointer,
    to: Scalar,
    upcoming: Scalar,
) -> None:
    row, soon = emitter.at(entries, start), emitter.at(entries, upcoming)
    sums = []
    for v in range(VECTORS):
        _fetch(emitter, soon, ROW_LINES, v)
        terms = []
        for term in range(TERMS):
            packed = emitter.load(row, I8, 64, POLY_BYTES * term + _PACKED_VECTOR_BYTES * v)
            hat = emitter.load(hats, I32, LANES, _VECTOR_BYTES * (VECTORS * term + v))
            terms.append((unpack24(packed, emitter), hat))
        sums.append(sum_of_products(terms))
    target = emitter.at(w1, to)
    for v, vector in enumerate(inverse_ntt(sums)):
        _fetch(emitter, soon, ROW_LINES, VECTORS + v)
        residue = canonical(vector)
        emitter.store(residue, w, _VECTOR_BYTES * v)
        # Two nibbles a byte (FIPS 204 Algorithm 28).
        pairs = high_bits(residue).as_lanes(I64, LANES // 2)
        emitter.store((pairs | pairs.shift_right(28)).truncate(I8), target, LANES // 2 * v)


@vector_kernel
def _t1(emitter: Emitter, key: Pointer, start: Scalar, entry: Pointer, to: Scalar) -> None:
    source = emitter.at(key, start)
    t1 = [
        _unpack_bits(emitter.load(source, I8, 32, T1_BITS * LANES // 8 * v), T1_BITS) << D
        for v in range(VECTORS)
    ]
    scaled = [canonical(multiply(vector, centred(SCALE))) for vector in ntt(t1)]
    _store_packed(emitter, scaled, emitter.at(entry, to))


@vector_kernel
def _candidates(emitter: Emitter, squeezed: Pointer, start: Scalar, out: Pointer) -> Scalar:
    source = emitter.at(squeezed, start)
    largest = emitter.constant(I32, [0] * LANES)
    for v in range(CANDIDATES_DECODED // LANES):
        octets = emitter.load(source, I8, 64, _PACKED_VECTOR_BYTES * v)
        candidates = unpack24(octets, emitter) & 0x7FFFFF
        emitter.store(candidates, out, _VECTOR_BYTES * v)
        if v < VECTORS:
            largest = largest.maximum_unsigned(candidates)
    return emitter.at_most(largest.largest_unsigned(), Q - 1)


@vector_kernel
def _place(emitter: Emitter, poly: Pointer, entry: Pointer, to: Scalar) -> None:
    natural = [emitter.load(poly, I32, LANES, _VECTOR_BYTES * v) for v in range(VECTORS)]
    scaled = [canonical(multiply(vector, centred(SCALE))) for vector in transpose(natural)]
    _store_packed(emitter, scaled, emitter.at(entry, to))


@kernel()
def ntt_response(
    signatures: Array,
    start: int,
    out: Array,
    to: int,
    entries: Array,
    upcoming: int,
    later: int,
) -> Any:
    """Unpacks a polynomial of z (Algorithm 27), checks its norm, and stores its NTT.

    From `signatures[start:]`, uint8 with 64 readable bytes behind the last vector's first; to
    `out[to:]`, int32, in NTT order.  False where the norm is not below gamma1 - beta.
    Meanwhile fetches RESPONSE_FETCH_BYTES at byte `upcoming` of `entries`, and a polynomial at byte
    `later` of `signatures`, into the processor's cache.
    """
    return _response(signatures, start, out, to, entries, upcoming, later)


@kernel()
def ntt_challenge(c: Array, out: Array, to: int) -> None:
    """Stores the NTT of c, int8[256], to `out[to:]`, int32, in NTT order."""
    _challenge(c, out, to)


@kernel()
def row_w1(
    entries: Array,
    start: int,
    hats: Array,
    w: Array,
    w1: Array,
    to: int,
    upcoming: int,
) -> None:
    """One row of w' = A z - c t1 2^d (Algorithm 8 line 9), and its high bits without hints.

    The row of an expanded key at byte `start` of `entries`; `hats` int32[6 * 256] are the NTTs of z
    and of -c.  Stores w' to `w`, int32[256] in [0, q), and w1Encode of its high bits to `w1[to:]`.
    Meanwhile fetches ROW_FETCH_BYTES at byte `upcoming` of `entries` into the processor's cache.
    """
    _row(entries, start, hats, w, w1, to, upcoming)


@kernel()
def place_t1(keys: Array, start: int, entries: Array, to: int) -> None:
    """Stores NTT(t1 2^d) of 320 bytes at `keys[start:]`, 12 more being readable, to an entry."""
    _t1(keys, start, entries, to)


@kernel()
def decode_candidates(squeezed: Array, start: int, out: Array) -> Any:
    """The 23-bit candidates of Algorithm 30 in 840 bytes at `squeezed[start:]`.

    Stores int32[288], of which 280 count; True where the first 256 are below q.
    """
    return _candidates(squeezed, start, out)


@kernel()
def place_poly(poly: Array, entries: Array, to: int) -> None:
    """Stores a polynomial of A, int32[256] in [0, q) in natural order, to an entry."""
    _place(poly, entries, to)


def warm() -> None:
    """Nothing to do: these steps are compiled into the kernels that call them."""
