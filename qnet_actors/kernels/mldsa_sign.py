"""Signing many messages with ML-DSA-65 (FIPS 204 Algorithm 7), for benchmarks alone.

Not constant-time, and so never for a key that matters: `crypto.mldsa.signer` gives it none but the
published development keys.  A signing entry is SIGNING_BYTES: rows of `ring.ROW_BYTES` in the
format of `mldsa`, namely A[r, 0..4] and s2[r]; then nothing but s1[s]; then nothing but t0[r].
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from qnet_actors.kernels import keccak, mldsa, ring
from qnet_actors.kernels.cache import kernel
from qnet_actors.kernels.mldsa_verify import sample_in_ball, sample_in_ball_long

Array = Any

S1_ROW: Final = mldsa.K
T0_ROW: Final = S1_ROW + mldsa.L
SIGNING_ROWS: Final = T0_ROW + mldsa.K
SIGNING_BYTES: Final = SIGNING_ROWS * ring.ROW_BYTES + mldsa.TR_BYTES
"""With room behind the last row, which reading touches."""

_MU_BYTES = 64
_W1_WORDS = 7 * keccak.SHAKE256_WORDS
_MASK_BLOCKS = 5
_MASK_WORDS = _MASK_BLOCKS * keccak.SHAKE256_WORDS + 11
"""Five blocks of SHAKE256 for a polynomial of y, and what is written or read behind them."""
_GAMMA2 = ring.GAMMA2
_IDLE = -1


@kernel()
def _centred(x: int) -> int:
    """The representative of x in [0, q) of least magnitude."""
    return x - ring.Q if x > ring.Q // 2 else x


@kernel()
def _high(r: int) -> int:
    """HighBits (Algorithm 37) of r in [0, q)."""
    return ((((r + 127) >> 7) * 1025 + (1 << 21)) >> 22) & 15


@kernel()
def _expand_masks(seeds: Array, counters: Array, state: Array, masks: Array) -> None:
    """Algorithm 34 for eight seeds: the packed polynomials of y, lane by lane, s by s."""
    for s in range(mldsa.L):
        state[:] = 0
        for lane in range(keccak.LANES):
            for word in range(8):
                state[word * keccak.LANES + lane] = seeds[lane, word]
            suffix = (counters[lane] + s) | keccak.SUFFIX << 16
            state[8 * keccak.LANES + lane] = suffix
            last = (keccak.SHAKE256_WORDS - 1) * keccak.LANES + lane
            state[last] = np.uint64(1) << np.uint64(63)
        for block in range(_MASK_BLOCKS):
            keccak.permute8(state)
            start = s * _MASK_WORDS + block * keccak.SHAKE256_WORDS
            keccak.squeeze8(state, masks, start, mldsa.L * _MASK_WORDS)


@kernel()
def _respond(
    flat: Array, start: int, hats: Array, masks: Array, product: Array, w1: Array, z: Array
) -> bool:
    """Lines 20 to 23, first half: z = y + c s1; False where its norm is too large."""
    for s in range(mldsa.L):
        row = start + (S1_ROW + s) * ring.ROW_BYTES
        mldsa.row_w1(flat, row, hats, product, w1, 0, row)
        mask = masks[8 * s * _MASK_WORDS :]
        for i in range(0, ring.N, 2):
            at = 5 * (i // 2)
            low = np.int64(mask[at]) | np.int64(mask[at + 1]) << 8 | np.int64(mask[at + 2]) << 16
            high = np.int64(mask[at + 2]) >> 4 | np.int64(mask[at + 3]) << 4
            high |= np.int64(mask[at + 4]) << 12
            # hats hold -c.
            z[s, i] = mldsa.GAMMA1 - (low & 0xFFFFF) - _centred(product[i])
            z[s, i + 1] = mldsa.GAMMA1 - high - _centred(product[i + 1])
        largest = 0
        for i in range(ring.N):
            largest = max(largest, abs(z[s, i]))
        if largest >= mldsa.GAMMA1 - mldsa.BETA:
            return False
    return True


@kernel()
def _low_bits_fit(flat: Array, start: int, hats: Array, w1: Array, r: Array) -> bool:
    """Line 23, second half: r = w - c s2, and whether its low bits are small enough."""
    for row in range(mldsa.K):
        place = start + row * ring.ROW_BYTES
        mldsa.row_w1(flat, place, hats, r[row], w1, 0, place)
        largest = 0
        for i in range(ring.N):
            low = _centred(r[row, i] - _high(r[row, i]) * 2 * _GAMMA2)
            largest = max(largest, abs(low))
        if largest >= _GAMMA2 - mldsa.BETA:
            return False
    return True


@kernel()
def _hint(
    flat: Array, start: int, hats: Array, w1: Array, r: Array, product: Array, y: Array
) -> bool:
    """Lines 25 to 28 and Algorithm 20: the packed hint, uint8[61]; False where it does not fit."""
    y[:] = 0
    count = 0
    for row in range(mldsa.K):
        place = start + (T0_ROW + row) * ring.ROW_BYTES
        mldsa.row_w1(flat, place, hats, product, w1, 0, place)
        for i in range(ring.N):
            t0 = -_centred(product[i])
            if abs(t0) >= _GAMMA2:
                return False
            if _high((r[row, i] + t0) % ring.Q) != _high(r[row, i]):
                if count == mldsa.OMEGA:
                    return False
                y[count] = i
                count += 1
        y[mldsa.OMEGA + row] = count
    return True


@kernel()
def _pack_z(z: Array, out: Array) -> None:
    """Algorithm 17, 20 bits a coefficient."""
    for s in range(mldsa.L):
        for i in range(0, ring.N, 2):
            pair = (mldsa.GAMMA1 - z[s, i]) | (mldsa.GAMMA1 - z[s, i + 1]) << 20
            at = s * mldsa.Z_POLY_BYTES + 5 * (i // 2)
            for k in range(5):
                out[at + k] = pair >> (8 * k) & 255


@kernel()
def sign_rows(entries: Array, slots: Array, mus: Array, seeds: Array, signatures: Array) -> None:
    """Signs n rows: `signatures[i]`, uint8[n, 3309], over mu `mus[i]` with `entries[slots[i]]`.

    `mus` and `seeds` (rho'') are uint64[n, 8].  Eight rows are under way at a time, each in a lane
    of its own until one of its attempts succeeds.
    """
    count = len(slots)
    flat = entries.reshape(-1)
    rows = np.full(keccak.LANES, _IDLE, dtype=np.int64)
    counters = np.zeros(keccak.LANES, dtype=np.int64)
    lane_seeds = np.zeros((keccak.LANES, 8), dtype=np.uint64)
    state = np.empty(keccak.STATE_WORDS, dtype=np.uint64)
    masks = np.zeros(keccak.LANES * mldsa.L * _MASK_WORDS, dtype=np.uint64)
    mask_octets = masks.view(np.uint8).reshape(keccak.LANES, -1)
    hashed = np.zeros((keccak.LANES, _W1_WORDS), dtype=np.uint64)
    hashed_octets = hashed.view(np.uint8)
    challenges = np.zeros((keccak.LANES, keccak.SQUEEZED_WORDS), dtype=np.uint64)
    challenge_octets = challenges.view(np.uint8)
    found = np.empty((keccak.LANES, mldsa.CHALLENGE_BYTES), dtype=np.uint8)
    hats = np.zeros((keccak.LANES, ring.TERMS * ring.N), dtype=np.int32)
    c = np.empty(ring.N, dtype=np.int8)
    product = np.empty(ring.N, dtype=np.int32)
    r = np.empty((mldsa.K, ring.N), dtype=np.int32)
    z = np.empty((mldsa.L, ring.N), dtype=np.int64)
    w1 = np.empty(mldsa.W1_POLY_BYTES, dtype=np.uint8)
    y = np.empty(mldsa.OMEGA + mldsa.K, dtype=np.uint8)
    for lane in range(keccak.LANES):
        hashed_octets[lane, _MU_BYTES + mldsa.K * mldsa.W1_POLY_BYTES] = keccak.SUFFIX
        hashed_octets[lane, 8 * _W1_WORDS - 1] = keccak.LAST_BIT
    following, done = 0, 0
    while done < count:
        for lane in range(keccak.LANES):
            if rows[lane] == _IDLE and following < count:
                rows[lane], counters[lane] = following, 0
                lane_seeds[lane] = seeds[following]
                hashed[lane, :8] = mus[following]
                following += 1
        _expand_masks(lane_seeds, counters, state, masks)
        # Lines 12 and 13: w1 of A y; the sixth term, s2, is multiplied by zero.
        for lane in range(keccak.LANES):
            if rows[lane] == _IDLE:
                continue
            hats[lane, mldsa.L * ring.N :] = 0
            start = slots[rows[lane]] * SIGNING_BYTES
            for s in range(mldsa.L):
                mask = 8 * s * _MASK_WORDS
                mldsa.ntt_response(
                    mask_octets[lane], mask, hats[lane], ring.N * s, flat, start, mask
                )
            for row in range(mldsa.K):
                place = start + row * ring.ROW_BYTES
                to = _MU_BYTES + mldsa.W1_POLY_BYTES * row
                mldsa.row_w1(flat, place, hats[lane], product, hashed_octets[lane], to, place)
        # Lines 15 and 16.
        state[:] = 0
        for block in range(0, _W1_WORDS, keccak.SHAKE256_WORDS):
            keccak.absorb8(state, hashed.reshape(-1), block, _W1_WORDS)
        keccak.squeeze8(state, challenges.reshape(-1), 0, keccak.SQUEEZED_WORDS)
        for lane in range(keccak.LANES):
            found[lane] = challenge_octets[lane, : mldsa.CHALLENGE_BYTES]
            challenge_octets[lane, mldsa.CHALLENGE_BYTES :] = 0
            challenge_octets[lane, mldsa.CHALLENGE_BYTES] = keccak.SUFFIX
            challenge_octets[lane, keccak.SHAKE256_BYTES - 1] = keccak.LAST_BIT
        state[:] = 0
        keccak.absorb8(state, challenges.reshape(-1), 0, keccak.SQUEEZED_WORDS)
        keccak.squeeze8(state, challenges.reshape(-1), 0, keccak.SQUEEZED_WORDS)
        for lane in range(keccak.LANES):
            if rows[lane] == _IDLE:
                continue
            counters[lane] += mldsa.L
            if not sample_in_ball(challenge_octets[lane, : keccak.SHAKE256_BYTES], c):
                sample_in_ball_long(found[lane], c)
            for k in range(ring.N):
                c[k] = -c[k]
            mldsa.ntt_challenge(c, hats[lane], ring.N * mldsa.L)
            start = slots[rows[lane]] * SIGNING_BYTES
            if (
                _respond(flat, start, hats[lane], mask_octets[lane], product, w1, z)
                and _low_bits_fit(flat, start, hats[lane], w1, r)
                and _hint(flat, start, hats[lane], w1, r, product, y)
            ):
                signature = signatures[rows[lane]]
                signature[: mldsa.CHALLENGE_BYTES] = found[lane]
                _pack_z(z, signature[mldsa.CHALLENGE_BYTES : mldsa.HINT_START])
                signature[mldsa.HINT_START :] = y
                rows[lane] = _IDLE
                done += 1


def warm() -> None:
    """Nothing to do: no node signs with this, so it is compiled when a benchmark first calls it."""
