"""Verifying many ML-DSA-65 signatures over expanded keys (FIPS 204 Algorithms 3 and 8)."""

from __future__ import annotations

from typing import Any

import numpy as np

from qnet_actors.kernels import keccak, mldsa, ring
from qnet_actors.kernels.cache import kernel

Array = Any

_MU_BYTES = 64
_W1_BLOCKS = 7
"""mu and w1 are 832 bytes: with their padding, seven blocks of SHAKE256."""
_W1_WORDS = _W1_BLOCKS * keccak.SHAKE256_WORDS
_HALF_Q = (ring.Q - 1) // 2
_SIGN_BYTES = 8


@kernel()
def sample_in_ball(stream: Array, c: Array) -> bool:
    """Algorithm 29 on a stream squeezed before, uint8[n]; False where it does not last."""
    c[:] = 0
    signs = np.uint64(0)
    for i in range(_SIGN_BYTES):
        signs |= np.uint64(stream[i]) << np.uint64(8 * i)
    at = _SIGN_BYTES
    for i in range(ring.N - mldsa.TAU, ring.N):
        while at < len(stream) and stream[at] > i:
            at += 1
        if at == len(stream):
            return False
        j = stream[at]
        at += 1
        c[i] = c[j]
        c[j] = 1 - 2 * np.int8(signs & np.uint64(1))
        signs >>= np.uint64(1)
    return True


@kernel()
def sample_in_ball_long(seed: Array, c: Array) -> None:
    """Algorithm 29 for the seeds that need more than one block, one at a time."""
    size = 2 * keccak.SHAKE256_BYTES
    stream = np.empty(size, dtype=np.uint8)
    keccak.shake(seed, keccak.SHAKE256_BYTES, stream)
    while not sample_in_ball(stream, c):
        size *= 2
        stream = np.empty(size, dtype=np.uint8)
        keccak.shake(seed, keccak.SHAKE256_BYTES, stream)


@kernel()
def decode_hint(y: Array, ends: Array) -> bool:
    """Algorithm 21 on uint8[61]: row r has the places y[ends[r]:ends[r + 1]]; False: malformed."""
    index = 0
    ends[0] = 0
    for r in range(mldsa.K):
        end = int(y[mldsa.OMEGA + r])
        if end < index or end > mldsa.OMEGA:
            return False
        for i in range(index + 1, end):
            if y[i - 1] >= y[i]:
                return False
        index = end
        ends[r + 1] = end
    for i in range(index, mldsa.OMEGA):  # noqa: SIM110 -- compiled
        if y[i] != 0:
            return False
    return True


@kernel()
def use_hint(y: Array, first: int, last: int, w: Array, w1: Array) -> None:
    """Algorithm 40 at the places y[first:last] of a row: corrects nibbles of `w1`, uint8[128]."""
    for i in range(first, last):
        place = y[i]
        shift = 4 * (place & 1)
        r1 = np.int64(w1[place >> 1] >> shift) & 15
        r0 = np.int64(w[place]) - r1 * (2 * ring.GAMMA2)
        # Residues just below q have r1 = 0 (Algorithm 36), and their r0 is negative.
        if r0 > _HALF_Q:
            r0 -= ring.Q
        changed = (r1 + 1) & 15 if r0 > 0 else (r1 - 1) & 15
        w1[place >> 1] ^= np.uint8((r1 ^ changed) << shift)


@kernel(
    "void(uint8[:, ::1], int64[::1], int64[::1], Array(uint8, 2, 'C', readonly=True), "
    "Array(uint8, 2, 'C', readonly=True), Array(uint8, 1, 'C', readonly=True), boolean[::1])"
)
def verify_rows(
    entries: Array,
    slots: Array,
    order: Array,
    messages: Array,
    signatures: Array,
    context: Array,
    verdicts: Array,
) -> None:
    """Verifies the rows that `order` lists, eight hashes at a time.

    Row i: is `signatures[i]`, uint8[n, 3309], valid over `messages[i]`, uint8[n, m], with the
    expanded key `entries[slots[i]]`, under `context`, uint8[at most 255]?  Sets `verdicts[i]`.
    """
    count = len(order)
    size = messages.shape[1]
    flat_entries, flat_signatures = entries.reshape(-1), signatures.reshape(-1)
    # M' = 0 || |context| || context || M behind tr, with the padding of SHAKE256.
    message_start = _MU_BYTES + 2 + len(context)
    blocks = (message_start + size) // keccak.SHAKE256_BYTES + 1
    formatted = np.zeros((keccak.LANES, blocks * keccak.SHAKE256_WORDS), dtype=np.uint64)
    formatted_octets = formatted.view(np.uint8)
    challenges = np.zeros((keccak.LANES, keccak.SQUEEZED_WORDS), dtype=np.uint64)
    challenge_octets = challenges.view(np.uint8)
    hashed = np.zeros((keccak.LANES, _W1_WORDS), dtype=np.uint64)
    hashed_octets = hashed.view(np.uint8)
    for lane in range(keccak.LANES):
        formatted_octets[lane, _MU_BYTES + 1] = len(context)
        formatted_octets[lane, _MU_BYTES + 2 : message_start] = context
        formatted_octets[lane, message_start + size] = keccak.SUFFIX
        formatted_octets[lane, 8 * formatted.shape[1] - 1] |= keccak.LAST_BIT
        hashed_octets[lane, _MU_BYTES + mldsa.K * mldsa.W1_POLY_BYTES] = keccak.SUFFIX
        hashed_octets[lane, 8 * _W1_WORDS - 1] = keccak.LAST_BIT
    state = np.empty(keccak.STATE_WORDS, dtype=np.uint64)
    hats = np.empty(ring.TERMS * ring.N, dtype=np.int32)
    c = np.empty(ring.N, dtype=np.int8)
    w = np.empty(ring.N, dtype=np.int32)
    ends = np.empty(mldsa.K + 1, dtype=np.int64)
    plausible = np.empty(keccak.LANES, dtype=np.bool_)
    for group in range(0, count, keccak.LANES):
        lanes = min(keccak.LANES, count - group)
        for lane in range(lanes):
            i = order[group + lane]
            formatted_octets[lane, :_MU_BYTES] = entries[slots[i], mldsa.TR_START :]
            formatted_octets[lane, message_start : message_start + size] = messages[i]
            challenge_octets[lane, : mldsa.CHALLENGE_BYTES] = signatures[i, : mldsa.CHALLENGE_BYTES]
            challenge_octets[lane, mldsa.CHALLENGE_BYTES :] = 0
            challenge_octets[lane, mldsa.CHALLENGE_BYTES] = keccak.SUFFIX
            challenge_octets[lane, keccak.SHAKE256_BYTES - 1] = keccak.LAST_BIT
        # Line 6: mu.
        state[:] = 0
        for block in range(blocks):
            start = block * keccak.SHAKE256_WORDS
            keccak.absorb8(state, formatted.reshape(-1), start, formatted.shape[1])
        for lane in range(lanes):
            for word in range(_MU_BYTES // 8):
                hashed[lane, word] = state[word * keccak.LANES + lane]
        # Line 8: the stream that c is sampled from.
        state[:] = 0
        keccak.absorb8(state, challenges.reshape(-1), 0, keccak.SQUEEZED_WORDS)
        keccak.squeeze8(state, challenges.reshape(-1), 0, keccak.SQUEEZED_WORDS)
        for lane in range(lanes):
            i = order[group + lane]
            signature = i * mldsa.SIGNATURE_BYTES
            hint = signatures[i, mldsa.HINT_START :]
            upcoming = slots[order[min(group + lane + 1, count - 1)]] * mldsa.ENTRY_BYTES
            # A group ahead, as a group begins with the challenges of all its signatures.
            later = order[min(group + lane + keccak.LANES, count - 1)] * mldsa.SIGNATURE_BYTES
            good = decode_hint(hint, ends)
            for s in range(mldsa.L):
                if good:
                    start = signature + mldsa.CHALLENGE_BYTES + mldsa.Z_POLY_BYTES * s
                    good = mldsa.ntt_response(
                        flat_signatures, start, hats, ring.N * s, flat_entries, upcoming, later
                    )
                    upcoming += mldsa.RESPONSE_FETCH_BYTES
                    later += mldsa.Z_POLY_BYTES
            plausible[lane] = good
            if not good:
                continue
            if not sample_in_ball(challenge_octets[lane, : keccak.SHAKE256_BYTES], c):
                sample_in_ball_long(signatures[i, : mldsa.CHALLENGE_BYTES], c)
            # t1 is subtracted, A added.
            for k in range(ring.N):
                c[k] = -c[k]
            mldsa.ntt_challenge(c, hats, ring.N * mldsa.L)
            for r in range(mldsa.K):
                to = 8 * _W1_WORDS * lane + _MU_BYTES + mldsa.W1_POLY_BYTES * r
                mldsa.row_w1(
                    flat_entries,
                    slots[i] * mldsa.ENTRY_BYTES + r * ring.ROW_BYTES,
                    hats,
                    w,
                    hashed_octets.reshape(-1),
                    to,
                    upcoming,
                )
                upcoming += mldsa.ROW_FETCH_BYTES
                w1 = hashed_octets.reshape(-1)[to : to + mldsa.W1_POLY_BYTES]
                use_hint(hint, ends[r], ends[r + 1], w, w1)
        # Lines 12 and 13.
        state[:] = 0
        for block in range(_W1_BLOCKS):
            keccak.absorb8(state, hashed.reshape(-1), block * keccak.SHAKE256_WORDS, _W1_WORDS)
        keccak.squeeze8(state, challenges.reshape(-1), 0, keccak.SQUEEZED_WORDS)
        for lane in range(lanes):
            i = order[group + lane]
            good = plausible[lane]
            for k in range(mldsa.CHALLENGE_BYTES):
                good &= challenge_octets[lane, k] == signatures[i, k]
            verdicts[i] = good


def warm() -> None:
    """Nothing to do: what has a signature is compiled where it is defined."""
