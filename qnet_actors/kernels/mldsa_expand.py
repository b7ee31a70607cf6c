"""Expanding public keys of ML-DSA-65, many at once (FIPS 204 Algorithms 23, 30 and 32)."""

from __future__ import annotations

from typing import Any

import numpy as np

from qnet_actors.kernels import keccak, mldsa, ring
from qnet_actors.kernels.cache import kernel

Array = Any

_POLYS = mldsa.K * mldsa.L
_SQUEEZES = 5
_ROW_WORDS = keccak.SHAKE128_WORDS * _SQUEEZES + 11
"""Five blocks, and room behind them for what squeezing and decoding touch besides."""
_RHO_WORDS = 4
_KEY_WORDS = keccak.SHAKE256_WORDS * 15
"""A key of 1,952 bytes with its padding: 15 blocks of SHAKE256."""


@kernel()
def reject_ntt_poly(seed: Array, poly: Array) -> None:
    """Algorithm 30 in full, one polynomial at a time: int32[256] from uint8[34]."""
    size = keccak.SHAKE128_BYTES * (_SQUEEZES + 1)
    while True:
        squeezed = np.empty(size, dtype=np.uint8)
        keccak.shake(seed, keccak.SHAKE128_BYTES, squeezed)
        found = 0
        for at in range(0, size - 2, 3):
            candidate = (
                np.int32(squeezed[at])
                | np.int32(squeezed[at + 1]) << 8
                | np.int32(squeezed[at + 2] & 127) << 16
            )
            if candidate < ring.Q and found < ring.N:
                poly[found] = candidate
                found += 1
        if found == ring.N:
            return
        size *= 2


@kernel()
def _accept(candidates: Array, poly: Array) -> bool:
    """The first 256 of 280 candidates below q; False where there are fewer."""
    found = 0
    for i in range(mldsa.CANDIDATES):
        candidate = candidates[i]
        poly[found] = candidate
        found += candidate < ring.Q
    return found >= ring.N


@kernel()
def _expand_t1_tr(keys: Array, slots: Array, entries: Array, state: Array) -> None:
    """The last polynomial of each row, and tr = H(pk, 64)."""
    count = len(keys)
    flat = entries.reshape(-1)
    rows = np.zeros((keccak.LANES, _KEY_WORDS), dtype=np.uint64)
    octets = rows.view(np.uint8)
    digests = np.empty((keccak.LANES, keccak.SQUEEZED_WORDS), dtype=np.uint64)
    for lane in range(keccak.LANES):
        octets[lane, mldsa.PUBLIC_KEY_BYTES] = keccak.SUFFIX
        octets[lane, 8 * _KEY_WORDS - 1] = keccak.LAST_BIT
    for group in range(0, count, keccak.LANES):
        lanes = min(keccak.LANES, count - group)
        for lane in range(lanes):
            octets[lane, : mldsa.PUBLIC_KEY_BYTES] = keys[group + lane]
            for r in range(mldsa.K):
                mldsa.place_t1(
                    octets.reshape(-1),
                    8 * _KEY_WORDS * lane + 32 + mldsa.T1_POLY_BYTES * r,
                    flat,
                    slots[group + lane] * mldsa.ENTRY_BYTES
                    + r * ring.ROW_BYTES
                    + mldsa.L * ring.POLY_BYTES,
                )
        state[:] = 0
        for block in range(0, _KEY_WORDS, keccak.SHAKE256_WORDS):
            keccak.absorb8(state, rows.reshape(-1), block, _KEY_WORDS)
        keccak.squeeze8(state, digests.reshape(-1), 0, keccak.SQUEEZED_WORDS)
        for lane in range(lanes):
            tr = digests[lane].view(np.uint8)[: mldsa.TR_BYTES]
            entries[slots[group + lane], mldsa.TR_START :] = tr


@kernel("void(Array(uint8, 2, 'C', readonly=True), int64[::1], uint8[:, ::1])")
def expand_keys(keys: Array, slots: Array, entries: Array) -> None:
    """Expands `keys` uint8[m, 1952] into `entries[slots]`, uint8[..., ENTRY_BYTES]."""
    count = len(keys)
    flat = entries.reshape(-1)
    state = np.empty(keccak.STATE_WORDS, dtype=np.uint64)
    rows = np.zeros(keccak.LANES * _ROW_WORDS, dtype=np.uint64)
    squeezed = rows.view(np.uint8)
    candidates = np.empty(mldsa.CANDIDATES_DECODED, dtype=np.int32)
    poly = np.empty(mldsa.CANDIDATES_DECODED, dtype=np.int32)
    seed = np.empty(34, dtype=np.uint8)
    # ExpandA: the polynomials of all keys in one row, eight at a time.
    for group in range(0, count * _POLYS, keccak.LANES):
        state[:] = 0
        for lane in range(keccak.LANES):
            job = min(group + lane, count * _POLYS - 1)
            key, place = job // _POLYS, job % _POLYS
            rho = keys[key, :32].view(np.uint64)
            for word in range(_RHO_WORDS):
                state[word * keccak.LANES + lane] = rho[word]
            r, s = place // mldsa.L, place % mldsa.L
            state[_RHO_WORDS * keccak.LANES + lane] = s | r << 8 | keccak.SUFFIX << 16
            state[(keccak.SHAKE128_WORDS - 1) * keccak.LANES + lane] = np.uint64(1) << np.uint64(63)
        for block in range(_SQUEEZES):
            keccak.permute8(state)
            keccak.squeeze8(state, rows, keccak.SHAKE128_WORDS * block, _ROW_WORDS)
        for lane in range(min(keccak.LANES, count * _POLYS - group)):
            key, place = (group + lane) // _POLYS, (group + lane) % _POLYS
            r, s = place // mldsa.L, place % mldsa.L
            to = slots[key] * mldsa.ENTRY_BYTES + r * ring.ROW_BYTES + s * ring.POLY_BYTES
            if mldsa.decode_candidates(squeezed, 8 * _ROW_WORDS * lane, candidates):
                mldsa.place_poly(candidates, flat, to)
            else:
                if not _accept(candidates, poly):
                    seed[:32] = keys[key, :32]
                    seed[32], seed[33] = s, r
                    reject_ntt_poly(seed, poly)
                mldsa.place_poly(poly, flat, to)
    _expand_t1_tr(keys, slots, entries, state)


def warm() -> None:
    """Nothing to do: what has a signature is compiled where it is defined."""
