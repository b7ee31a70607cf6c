"""Each step of the compiled verifier against the same step of the reference."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qnet_actors.crypto.mldsa import reference
from qnet_actors.kernels import mldsa, mldsa_expand, mldsa_verify, ring
from tests.crypto.mldsa.material import MALFORMED_HINTS, column, unpack_entry

Bytes = NDArray[np.uint8]

SCALE_INVERSE = pow(ring.SCALE, -1, ring.Q)


def expanded(keys: list[bytes]) -> Bytes:
    entries = np.zeros((len(keys), mldsa.ENTRY_BYTES), dtype=np.uint8)
    mldsa_expand.expand_keys(column(keys), np.arange(len(keys)), entries)
    return entries


def verify_one(entry: Bytes, message: bytes, signature: bytes, context: bytes) -> bool:
    verdicts = np.zeros(1, dtype=np.bool_)
    mldsa_verify.verify_rows(
        entry.reshape(1, -1),
        np.zeros(1, dtype=np.int64),
        np.zeros(1, dtype=np.int64),
        column([message]) if message else np.zeros((1, 0), dtype=np.uint8),
        column([signature]),
        np.frombuffer(context, dtype=np.uint8),
        verdicts,
    )
    return bool(verdicts[0])


def pack(values: Sequence[int], bits: int) -> bytes:
    """SimpleBitPack (FIPS 204 Algorithm 16)."""
    number = sum(int(value) << bits * i for i, value in enumerate(values))
    return number.to_bytes(bits * 32, "little")


def natural(hats: Any) -> Any:
    return np.asarray(hats, dtype=np.int64).reshape(ring.LANES, ring.VECTORS).T.reshape(-1)


def test_constants_are_those_of_the_reference():
    for name in ("K", "L", "D", "TAU", "GAMMA1", "BETA", "OMEGA", "CHALLENGE_BYTES"):
        assert getattr(mldsa, name) == getattr(reference, name)
    assert (mldsa.PUBLIC_KEY_BYTES, mldsa.SIGNATURE_BYTES) == (1952, 3309)
    assert [zeta % ring.Q for zeta in ring.ZETAS] == reference.ZETAS
    assert ring.GAMMA2 == reference.GAMMA2


def test_expanded_keys(published):
    keys = [record.public_key for record in published[:11]]
    entries = expanded(keys)
    for key, entry in zip(keys, entries, strict=True):
        expected = reference.expand_key(key)
        for row in range(mldsa.K):
            polys = [*expected.a[row], expected.t1[row]]
            for term, poly in enumerate(polys):
                stored = unpack_entry(entry, row, term)
                assert (stored == np.array(poly) * ring.SCALE % ring.Q).all()
        assert entry[mldsa.TR_START :].tobytes() == expected.tr


def test_expanding_writes_its_slots_only(published):
    entries = np.full((5, mldsa.ENTRY_BYTES), 0xA5, dtype=np.uint8)
    keys = [record.public_key for record in published[:2]]
    mldsa_expand.expand_keys(column(keys), np.array([3, 1]), entries)
    assert (entries[[0, 2, 4]] == 0xA5).all()
    assert (entries[[3, 1]] == expanded(keys)).all()


def test_extreme_t1():
    for byte in (0x00, 0xFF):
        key = bytes(32) + bytes([byte]) * 1920
        entry = expanded([key])[0]
        for row in range(mldsa.K):
            expected = np.array(reference.expand_key(key).t1[row]) * ring.SCALE % ring.Q
            assert (unpack_entry(entry, row, mldsa.L) == expected).all()


def test_rejected_candidates():
    # Candidates at and above q among the first 256, and too many of them.
    random = np.random.default_rng(1)
    for rejected in (0, 1, 2, 23, 24, 25, 100, 280):
        values = random.integers(0, ring.Q, 280)
        values[random.choice(280, rejected, replace=False)] = ring.Q + np.arange(rejected)
        octets = np.zeros(1024, dtype=np.uint8)
        octets[:840] = values.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].reshape(-1)
        # The top bit of each candidate does not count (FIPS 204 Algorithm 14).
        octets[2:840:3] |= 0x80
        decoded = np.zeros(mldsa.CANDIDATES_DECODED, dtype=np.int32)
        fast = mldsa.decode_candidates(octets, 0, decoded)
        accepted = values[values < ring.Q]
        assert (decoded[:280] == values).all()
        assert fast == (values[:256] < ring.Q).all()
        poly = np.zeros(mldsa.CANDIDATES_DECODED, dtype=np.int32)
        enough = mldsa_expand._accept(decoded, poly)
        assert enough == (len(accepted) >= 256)
        if enough:
            assert (poly[:256] == accepted[:256]).all()


@settings(max_examples=10)
@given(st.binary(min_size=34, max_size=34))
def test_rejection_sampling_one_at_a_time(seed):
    poly = np.zeros(256, dtype=np.int32)
    mldsa_expand.reject_ntt_poly(np.frombuffer(seed, dtype=np.uint8), poly)
    assert poly.tolist() == reference.reject_ntt_poly(seed)


def response(values: Sequence[int]) -> tuple[bool, Any]:
    """(norm is within, NTT in natural order) of 256 packed numbers of 20 bits."""
    octets = np.zeros(640 + 64, dtype=np.uint8)
    octets[:640] = np.frombuffer(pack(values, 20), dtype=np.uint8)
    hats = np.zeros(256, dtype=np.int32)
    within = mldsa.ntt_response(octets, 0, hats, 0, octets, 0, 0)
    return within, natural(hats)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 2**20 - 1), min_size=256, max_size=256))
def test_response(values):
    z = [mldsa.GAMMA1 - value for value in values]
    within, hats = response(values)
    assert within == (max(map(abs, z)) < mldsa.GAMMA1 - mldsa.BETA)
    assert (hats % ring.Q).tolist() == reference.ntt(z)


def test_norm_at_its_bound():
    bound = mldsa.GAMMA1 - mldsa.BETA
    for place in (0, 1, 15, 16, 254, 255):
        for z in (bound - 1, -(bound - 1), bound, -bound, mldsa.GAMMA1, 1 - mldsa.GAMMA1):
            values = [mldsa.GAMMA1] * 256
            values[place] = mldsa.GAMMA1 - z
            assert response(values)[0] == (abs(z) < bound)


def test_largest_responses():
    # The inputs that come nearest to the bounds: all of one sign, and signs as the zetas have them.
    top = mldsa.GAMMA1 - mldsa.BETA - 1
    patterns = [[top] * 256, [-top] * 256]
    patterns += [[top if zeta > 0 else -top for zeta in ring.ZETAS]]
    patterns += [[top if i & (1 << bit) else -top for i in range(256)] for bit in range(8)]
    for z in patterns:
        within, hats = response([mldsa.GAMMA1 - x for x in z])
        assert within
        assert (hats % ring.Q).tolist() == reference.ntt(z)


@settings(max_examples=30)
@given(st.binary(min_size=48, max_size=48))
def test_challenge(seed):
    stream = np.frombuffer(hashlib.shake_256(seed).digest(136), dtype=np.uint8)
    c = np.zeros(256, dtype=np.int8)
    assert mldsa_verify.sample_in_ball(stream, c)
    expected = reference.sample_in_ball(seed)
    assert c.tolist() == expected
    hats = np.zeros(256, dtype=np.int32)
    mldsa.ntt_challenge(c, hats, 0)
    assert (natural(hats) % ring.Q).tolist() == reference.ntt(expected)


def test_challenge_from_a_stream_that_ends_early():
    seed = bytes(range(48))
    stream = np.frombuffer(hashlib.shake_256(seed).digest(136), dtype=np.uint8)
    c = np.zeros(256, dtype=np.int8)
    assert not mldsa_verify.sample_in_ball(stream[:40], c)
    mldsa_verify.sample_in_ball_long(np.frombuffer(seed, dtype=np.uint8), c)
    assert c.tolist() == reference.sample_in_ball(seed)


def hints() -> st.SearchStrategy[bytes]:
    """Hint encodings, mostly nearly right."""
    place = st.integers(0, 255) | st.just(0)
    near = st.tuples(st.lists(place, max_size=55), st.lists(st.integers(0, 57), max_size=6))

    def encode(parts: tuple[list[int], list[int]]) -> bytes:
        places, counts = parts
        body = sorted(places) + [0] * (55 - len(places))
        tail = sorted(counts) + [len(places)] * (6 - len(counts))
        return bytes(body + tail)

    return near.map(encode) | st.binary(min_size=61, max_size=61)


@settings(max_examples=300)
@given(hints())
def test_hint(y):
    ends = np.zeros(7, dtype=np.int64)
    well_formed = mldsa_verify.decode_hint(np.frombuffer(y, dtype=np.uint8), ends)
    expected = reference.unpack_hint(y)
    assert well_formed == (expected is not None)
    if expected is not None:
        rows = [sorted(y[a:b]) for a, b in pairwise(ends)]
        assert rows == [[i for i in range(256) if row[i]] for row in expected]


def row_of(products: list[int]) -> tuple[Any, Any]:
    """(w, w1) of a row whose only product is `products` in the NTT domain times one."""
    entry = np.zeros((1, mldsa.ENTRY_BYTES), dtype=np.uint8)
    # A row of ones, scaled; z's other polynomials are zero.
    one = (ring.SCALE % ring.Q).to_bytes(3, "little") * 256
    entry[0, : ring.POLY_BYTES] = np.frombuffer(one, dtype=np.uint8)
    hats = np.zeros(6 * 256, dtype=np.int32)
    hats[:256] = np.asarray(products).reshape(16, 16).T.reshape(-1)
    w, w1 = np.zeros(256, dtype=np.int32), np.zeros(200, dtype=np.uint8)
    mldsa.row_w1(entry.reshape(-1), 0, hats, w, w1, 7, 0)
    assert not w1[:7].any()
    assert not w1[135:].any()
    return w, w1[7:135]


def test_every_residue_is_rounded_as_the_standard_says():
    # All of [0, q), through the same instructions, 256 at a time in a sample; the formula itself
    # for every residue.
    r = np.arange(ring.Q, dtype=np.int64)
    r0 = r % (2 * ring.GAMMA2)
    r0 = np.where(r0 > ring.GAMMA2, r0 - 2 * ring.GAMMA2, r0)
    expected = np.where(r - r0 == ring.Q - 1, 0, (r - r0) // (2 * ring.GAMMA2))
    assert ((((r + 127) >> 7) * 1025 + (1 << 21) >> 22 & 15) == expected).all()
    edges = [k * 2 * ring.GAMMA2 + ring.GAMMA2 + d for k in range(16) for d in range(-8, 8)]
    residues = [edge % ring.Q for edge in edges]
    w, w1 = row_of(reference.ntt(residues))
    assert w.tolist() == residues
    assert w1.tobytes() == reference.encode_w1([reference.decompose(x)[0] for x in residues])


@settings(max_examples=40)
@given(st.randoms(use_true_random=False), st.sets(st.integers(0, 255), max_size=55))
def test_hints_are_used_as_the_standard_says(random, places):
    near = [k * 2 * ring.GAMMA2 + d for k in range(17) for d in (-1, 0, 1, ring.GAMMA2)]
    residues = [
        random.choice(near) % ring.Q if random.random() < 0.5 else random.randrange(ring.Q)
        for _ in range(256)
    ]
    w, w1 = row_of(reference.ntt(residues))
    y = np.array([*sorted(places), 0], dtype=np.uint8)
    mldsa_verify.use_hint(y, 0, len(places), w, w1)
    expected = [reference.use_hint(int(i in places), r) for i, r in enumerate(residues)]
    assert w1.tobytes() == reference.encode_w1(expected)


def test_largest_sums():
    # Full-size factors and the largest responses of one sign: the sums farthest from zero.
    top = mldsa.GAMMA1 - mldsa.BETA - 1
    entry = np.zeros((1, mldsa.ENTRY_BYTES), dtype=np.uint8)
    largest = (ring.Q - 1).to_bytes(3, "little") * (256 * 36)
    entry[0, : mldsa.TR_START] = np.frombuffer(largest, dtype=np.uint8)
    for sign in (1, -1):
        hats = np.zeros(6 * 256, dtype=np.int32)
        octets = np.zeros(704, dtype=np.uint8)
        octets[:640] = np.frombuffer(pack([mldsa.GAMMA1 - sign * top] * 256, 20), dtype=np.uint8)
        for s in range(mldsa.L):
            assert mldsa.ntt_response(octets, 0, hats, 256 * s, octets, 0, 0)
        w, w1 = np.zeros(256, dtype=np.int32), np.zeros(128, dtype=np.uint8)
        mldsa.row_w1(entry.reshape(-1), 0, hats, w, w1, 0, 0)
        z = np.array(reference.ntt([sign * top] * 256))
        hat = -5 * z % ring.Q * SCALE_INVERSE % ring.Q
        assert w.tolist() == reference.inverse_ntt([int(x) for x in hat])


def test_published_signatures(published):
    entries = expanded([record.public_key for record in published])
    for entry, record in zip(entries, published, strict=True):
        assert verify_one(entry, record.message, record.signature, record.context)
        assert not verify_one(entry, record.message + b"\0", record.signature, record.context)
        assert not verify_one(entry, record.message, record.signature, record.context + b"\0")


@pytest.mark.parametrize("size", [0, 1, 32, 59, 60, 61, 69, 70, 71, 195, 196, 1000])
def test_message_lengths_around_a_block(openssl, published, size):
    from qnet_actors.wire.schemes import Scheme

    record = published[0]
    key = openssl.signing_key(Scheme.ML_DSA_65, record.seed)
    entry = expanded([record.public_key])[0]
    for context in (b"", b"context", bytes(255)):
        message = bytes(size)
        signature = key.sign(message, context)
        assert verify_one(entry, message, signature, context)
        assert not verify_one(entry, message + b"\0", signature, context)


def test_rows_are_independent(published):
    # Every lane of a group, groups that are not full, an order that skips and repeats.
    records = [record for record in published if len(record.message) == len(published[0].message)]
    records = (records or published[:1]) * 21
    entries = expanded([record.public_key for record in records[:21]])
    context = np.frombuffer(records[0].context, dtype=np.uint8)
    signatures = column([record.signature for record in records[:21]]).copy()
    messages = column([record.message for record in records[:21]])
    broken = {0, 7, 8, 13, 20}
    for row in broken:
        signatures[row, 100] ^= 1
    for order in (list(range(21)), [3], [20, 19, 2, 2, 7], list(range(20, -1, -1))):
        verdicts = np.zeros(21, dtype=np.bool_)
        mldsa_verify.verify_rows(
            entries,
            np.arange(21),
            np.array(order),
            messages,
            signatures,
            context,
            verdicts,
        )
        assert set(np.flatnonzero(verdicts).tolist()) == set(order) - broken


@pytest.mark.parametrize(("why", "y"), MALFORMED_HINTS)
def test_malformed_hint_in_a_signature(published, why, y):
    record = published[0]
    entry = expanded([record.public_key])[0]
    signature = record.signature[: mldsa.HINT_START] + y
    assert not verify_one(entry, record.message, signature, record.context), why


def test_the_whole_of_the_next_key_is_fetched():
    fetched = mldsa.L * mldsa.RESPONSE_FETCH_BYTES + mldsa.K * mldsa.ROW_FETCH_BYTES
    assert fetched == mldsa.ENTRY_BYTES
