"""ML-DSA-65 verification in plain Python, as FIPS 204 writes it: the oracle of the kernels.

Each function is one algorithm of the standard, with its number.  Nothing here is fast, and nothing
is shared with the kernels, so that a mistake in one does not hide in the other.  It verifies only:
secrets never pass through it.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple, Protocol

Q: Final = 8380417
N: Final = 256
ZETA: Final = 1753
D: Final = 13

# FIPS 204 Table 1, column ML-DSA-65.
TAU: Final = 49
GAMMA1: Final = 2**19
GAMMA2: Final = (Q - 1) // 32
K: Final = 6
L: Final = 5
ETA: Final = 4
BETA: Final = TAU * ETA
OMEGA: Final = 55
CHALLENGE_BYTES: Final = 48  # lambda / 4

PUBLIC_KEY_BYTES: Final = 32 + 320 * K
SIGNATURE_BYTES: Final = CHALLENGE_BYTES + 640 * L + OMEGA + K
CONTEXT_BYTES_MAX: Final = 255

Poly = list[int]


class ExpandedKey(NamedTuple):
    """What verification derives from a public key alone."""

    a: list[list[Poly]]
    """The K x L matrix A-hat in the NTT domain, coefficients in [0, q)."""
    t1: list[Poly]
    """NTT(t1 * 2^d) for each of K rows."""
    tr: bytes
    """H(pk, 64)."""


class DecodedSignature(NamedTuple):
    """The parts of a signature."""

    challenge: bytes
    z: list[Poly]
    """L polynomials with coefficients in (-gamma1, gamma1]."""
    hint: list[Poly]
    """K polynomials of zeros and ones."""


def verify(public_key: bytes, message: bytes, signature: bytes, context: bytes) -> bool:
    """Algorithm 3, ML-DSA.Verify; a wrong length is False."""
    if len(context) > CONTEXT_BYTES_MAX:
        return False
    return verify_internal(public_key, bytes((0, len(context))) + context + message, signature)


def verify_internal(public_key: bytes, formatted: bytes, signature: bytes) -> bool:
    """Algorithm 8, ML-DSA.Verify_internal, over the formatted message M'."""
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    decoded = decode_signature(signature)
    if decoded is None:
        return False
    key = expand_key(public_key)
    mu = hashlib.shake_256(key.tr + formatted).digest(64)
    c = ntt(sample_in_ball(decoded.challenge))
    z = [ntt(poly) for poly in decoded.z]
    w1 = bytearray()
    for row in range(K):
        az = [sum(a[i] * zs[i] for a, zs in zip(key.a[row], z, strict=True)) for i in range(N)]
        w = inverse_ntt([(az[i] - c[i] * key.t1[row][i]) % Q for i in range(N)])
        w1 += encode_w1([use_hint(h, r) for h, r in zip(decoded.hint[row], w, strict=True)])
    within = all(-(GAMMA1 - BETA) < x < GAMMA1 - BETA for poly in decoded.z for x in poly)
    return within and hashlib.shake_256(mu + w1).digest(CHALLENGE_BYTES) == decoded.challenge


def expand_key(public_key: bytes) -> ExpandedKey:
    """pkDecode (Algorithm 23), ExpandA (Algorithm 32) and the NTT of t1 * 2^d."""
    rho = public_key[:32]
    rows = [public_key[32 + 320 * row :][:320] for row in range(K)]
    return ExpandedKey(
        a=[[reject_ntt_poly(rho + bytes((s, r))) for s in range(L)] for r in range(K)],
        t1=[ntt([x << D for x in simple_bit_unpack(row, 10)]) for row in rows],
        tr=hashlib.shake_256(public_key).digest(64),
    )


def decode_signature(signature: bytes) -> DecodedSignature | None:
    """Algorithm 27, sigDecode; None where the hint is malformed."""
    challenge = signature[:CHALLENGE_BYTES]
    z_end = CHALLENGE_BYTES + 640 * L
    parts = [signature[start : start + 640] for start in range(CHALLENGE_BYTES, z_end, 640)]
    z = [[GAMMA1 - x for x in simple_bit_unpack(part, 20)] for part in parts]
    hint = unpack_hint(signature[z_end:])
    return None if hint is None else DecodedSignature(challenge, z, hint)


def simple_bit_unpack(data: bytes, bits: int) -> Poly:
    """Algorithm 18, SimpleBitUnpack: 256 coefficients of `bits` bits, least significant first."""
    value = int.from_bytes(data, "little")
    return [(value >> (bits * i)) & ((1 << bits) - 1) for i in range(N)]


def unpack_hint(y: bytes) -> list[Poly] | None:
    """Algorithm 21, HintBitUnpack; None where `y` (omega + K bytes) is malformed."""
    hint = [[0] * N for _ in range(K)]
    index = 0
    for row in range(K):
        end = y[OMEGA + row]
        if end < index or end > OMEGA:
            return None
        first = index
        while index < end:
            if index > first and y[index - 1] >= y[index]:
                return None
            hint[row][y[index]] = 1
            index += 1
    return None if any(y[index:OMEGA]) else hint


def sample_in_ball(seed: bytes) -> Poly:
    """Algorithm 29, SampleInBall: tau coefficients of +-1."""
    c = [0] * N
    stream = _Stream(hashlib.shake_256(seed))
    signs = int.from_bytes(stream.take(8), "little")
    for i in range(N - TAU, N):
        j = stream.take(1)[0]
        while j > i:
            j = stream.take(1)[0]
        c[i] = c[j]
        c[j] = 1 - 2 * (signs >> (i + TAU - N) & 1)
    return c


def reject_ntt_poly(seed: bytes) -> Poly:
    """Algorithm 30, RejNTTPoly, with CoeffFromThreeBytes (Algorithm 14) inside."""
    stream = _Stream(hashlib.shake_128(seed))
    a: Poly = []
    while len(a) < N:
        b0, b1, b2 = stream.take(3)
        candidate = b0 | b1 << 8 | (b2 & 127) << 16
        if candidate < Q:
            a.append(candidate)
    return a


def decompose(r: int) -> tuple[int, int]:
    """Algorithm 36, Decompose: (r1, r0) of r in [0, q)."""
    r0 = r % (2 * GAMMA2)
    if r0 > GAMMA2:
        r0 -= 2 * GAMMA2
    if r - r0 == Q - 1:
        return 0, r0 - 1
    return (r - r0) // (2 * GAMMA2), r0


def use_hint(hint: int, r: int) -> int:
    """Algorithm 40, UseHint."""
    m = (Q - 1) // (2 * GAMMA2)
    r1, r0 = decompose(r)
    if not hint:
        return r1
    return (r1 + 1) % m if r0 > 0 else (r1 - 1) % m


def encode_w1(poly: Poly) -> bytes:
    """One polynomial of Algorithm 28, w1Encode: four bits a coefficient."""
    return bytes(poly[i] | poly[i + 1] << 4 for i in range(0, N, 2))


def _bit_reversed(i: int) -> int:
    """Algorithm 43, BitRev8."""
    return int(f"{i:08b}"[::-1], 2)


ZETAS: Final = [pow(ZETA, _bit_reversed(i), Q) for i in range(N)]


def ntt(w: Poly) -> Poly:
    """Algorithm 41, NTT; coefficients come out in [0, q)."""
    w = list(w)
    m, length = 0, 128
    while length >= 1:
        for start in range(0, N, 2 * length):
            m += 1
            for j in range(start, start + length):
                t = ZETAS[m] * w[j + length] % Q
                w[j + length] = (w[j] - t) % Q
                w[j] = (w[j] + t) % Q
        length //= 2
    return w


def inverse_ntt(w: Poly) -> Poly:
    """Algorithm 42, the inverse of NTT; coefficients come out in [0, q)."""
    w = list(w)
    m, length = N, 1
    while length < N:
        for start in range(0, N, 2 * length):
            m -= 1
            for j in range(start, start + length):
                t = w[j]
                w[j] = (t + w[j + length]) % Q
                w[j + length] = -ZETAS[m] * (t - w[j + length]) % Q
        length *= 2
    return [pow(N, -1, Q) * x % Q for x in w]


class _Shake(Protocol):
    def digest(self, length: int, /) -> bytes: ...


class _Stream:
    """The output of a SHAKE, in pieces as the algorithms ask for it."""

    def __init__(self, shake: _Shake) -> None:
        self._shake = shake
        self._data = shake.digest(1024)
        self._at = 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            self._data = self._shake.digest(2 * len(self._data))
        self._at += count
        return self._data[self._at - count : self._at]
