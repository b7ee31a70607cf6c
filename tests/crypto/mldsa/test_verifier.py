"""The verifier over columns: against the providers, over threads, with too small a cache."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.crypto import BatchVerifier, provider
from qnet_actors.crypto.mldsa import reference, select_kernel
from qnet_actors.crypto.mldsa.verifier import MlDsaVerifier
from qnet_actors.wire.schemes import Scheme
from tests.crypto.mldsa.material import MALFORMED_HINTS, column, published

CONTEXT = b"qnet/tx/v1"
SCHEME = Scheme.ML_DSA_65


@pytest.fixture(scope="module")
def signed():
    """(keys, messages, signatures) of 40 keys with 3 signatures each."""
    signer = provider()
    keys: list[bytes] = []
    index: list[int] = []
    messages: list[bytes] = []
    signatures: list[bytes] = []
    for number in range(40):
        seed = number.to_bytes(32, "little")
        keys.append(signer.generate(SCHEME, seed).public_key)
        key = signer.signing_key(SCHEME, seed)
        for _ in range(3):
            message = len(messages).to_bytes(32, "big")
            messages.append(message)
            signatures.append(key.sign(message, CONTEXT))
            index.append(number)
    return keys, np.array(index, dtype=np.intp), column(messages), column(signatures)


@pytest.fixture
def verifier():
    return MlDsaVerifier(cache_mb=4)


def test_all_valid_and_counted(verifier, signed):
    assert verifier.verify_columns(SCHEME, *signed, CONTEXT).all()
    assert verifier.verify_columns(SCHEME, *signed, CONTEXT).all()
    counters = verifier.counters()
    assert (counters.verified, counters.refused) == (240, 0)
    assert (counters.cache.misses, counters.cache.hits, counters.cache.keys) == (40, 40, 40)


def test_another_context_or_key_is_refused(verifier, signed):
    keys, index, messages, signatures = signed
    assert not verifier.verify_columns(SCHEME, *signed, b"qnet/dag/v1").any()
    shifted = (index + 1) % len(keys)
    assert not verifier.verify_columns(SCHEME, keys, shifted, messages, signatures, CONTEXT).any()
    assert verifier.counters().refused == 240


def test_shuffled_rows(verifier, signed):
    keys, index, messages, signatures = signed
    order = np.random.default_rng(3).permutation(len(index))
    spoilt = signatures[order].copy()
    bad = np.zeros(len(order), dtype=np.bool_)
    bad[::7] = True
    spoilt[bad, 500] ^= 4
    verdicts = verifier.verify_columns(SCHEME, keys, index[order], messages[order], spoilt, CONTEXT)
    assert (verdicts == ~bad).all()


def test_columns_that_are_not_contiguous(verifier, signed):
    keys, index, messages, signatures = signed
    verdicts = verifier.verify_columns(
        SCHEME, keys, index[::-2], messages[::-2], signatures[::-2], CONTEXT
    )
    assert verdicts.all()


def test_more_keys_than_the_cache_holds(signed):
    keys, index, messages, signatures = signed
    small = MlDsaVerifier(cache_mb=0)
    many = [*keys, *(bytes([number]) * 1952 for number in range(100))]
    wide = np.concatenate([index, np.arange(40, 140)])
    more_messages = np.concatenate([messages, messages[:100]])
    more_signatures = np.concatenate([signatures, signatures[:100]])
    for _ in range(3):
        verdicts = small.verify_columns(SCHEME, many, wide, more_messages, more_signatures, CONTEXT)
        assert verdicts[:120].all()
        assert not verdicts[120:].any()
    counters = small.counters().cache
    assert counters.keys <= counters.capacity == 64
    assert counters.refusals >= 1


def test_threads(signed):
    keys, index, messages, signatures = signed
    repeated = np.tile(np.arange(len(index)), 4)
    spoilt = signatures[repeated].copy()
    spoilt[5::11, 3000] ^= 1
    expected = np.ones(len(repeated), dtype=np.bool_)
    expected[5::11] = False
    parallel = MlDsaVerifier(cache_mb=0, threads=3)

    def call(_: int) -> bool:
        verdicts = parallel.verify_columns(
            SCHEME, keys, index[repeated], messages[repeated], spoilt, CONTEXT
        )
        return bool((verdicts == expected).all())

    with ThreadPoolExecutor(3) as callers:
        assert all(callers.map(call, range(9)))
    parallel.close()
    assert parallel.counters().verified == 9 * len(repeated)


def test_no_rows(verifier):
    verdicts = verifier.verify_columns(
        SCHEME,
        [],
        np.zeros(0, dtype=np.intp),
        np.zeros((0, 32), dtype=np.uint8),
        np.zeros((0, 3309), dtype=np.uint8),
        CONTEXT,
    )
    assert verdicts.shape == (0,)


def test_faults_of_the_caller_do_not_reach_the_kernel(verifier, signed):
    keys, index, messages, signatures = signed
    with pytest.raises(ValueError, match="scheme"):
        verifier.verify_columns(Scheme.ML_DSA_44, *signed, CONTEXT)
    with pytest.raises(ValueError, match="sizes"):
        verifier.verify_columns(SCHEME, keys, index, messages, signatures[:, :-1], CONTEXT)
    with pytest.raises(ValueError, match="sizes"):
        verifier.verify_columns(SCHEME, keys, index, messages[:-1], signatures, CONTEXT)
    for wrong in (-1, len(keys)):
        with pytest.raises(ValueError, match="range"):
            verifier.verify_columns(SCHEME, keys, index * 0 + wrong, messages, signatures, CONTEXT)
    mixed = [keys[0] + b"\0", keys[1][:-1], *keys[2:]]
    with pytest.raises(ValueError, match="public key"):
        verifier.verify_columns(SCHEME, mixed, index, messages, signatures, CONTEXT)
    with pytest.raises(ValueError, match="threads"):
        MlDsaVerifier(threads=0)
    # Nothing is left borrowed after an error.
    assert verifier.verify_columns(SCHEME, *signed, CONTEXT).all()


def faulty_signatures() -> st.SearchStrategy[tuple[int, bytes]]:
    """Signatures of the published ones with one fault, by kind."""
    record = st.integers(0, 99)
    bit = st.tuples(record, st.integers(0, 3308), st.integers(0, 7))

    def flip(parts: tuple[int, int, int]) -> tuple[int, bytes]:
        number, place, shift = parts
        signature = bytearray(published()[number].signature)
        signature[place] ^= 1 << shift
        return number, bytes(signature)

    hint = st.tuples(record, st.sampled_from(MALFORMED_HINTS))

    def replace_hint(parts: tuple[int, tuple[str, bytes]]) -> tuple[int, bytes]:
        number, (_, y) = parts
        return number, published()[number].signature[:3248] + y

    coefficient = st.tuples(
        record, st.integers(0, 1279), st.sampled_from([0, 1, 196, 197, 198, 2**20 - 197, 2**20 - 1])
    )

    def replace_coefficient(parts: tuple[int, int, int]) -> tuple[int, bytes]:
        number, place, packed = parts
        signature = bytearray(published()[number].signature)
        start = 48 + 5 * (place // 2)
        pair = int.from_bytes(signature[start : start + 5], "little")
        shift = 20 * (place % 2)
        pair = pair & ~(0xFFFFF << shift) | packed << shift
        signature[start : start + 5] = pair.to_bytes(5, "little")
        return number, bytes(signature)

    noise = st.tuples(record, st.binary(min_size=3309, max_size=3309))
    unchanged = record.map(lambda number: (number, published()[number].signature))
    return st.one_of(
        bit.map(flip),
        hint.map(replace_hint),
        coefficient.map(replace_coefficient),
        noise,
        unchanged,
    )


JUDGE = BatchVerifier(provider("openssl"), kernel=MlDsaVerifier(cache_mb=4))


def agree(number: int, signature: bytes, opinions: list[Any]) -> None:
    record = published()[number]
    given = JUDGE.verify([record.public_key], [record.message], [signature], record.context)[0]
    for opinion in opinions:
        assert given == opinion(record.public_key, record.message, signature, record.context)


@settings(max_examples=300)
@given(faulty_signatures())
def test_agrees_with_the_reference_and_openssl(case):
    openssl = provider("openssl")

    def by_openssl(key, message, signature, context):
        return openssl.verify(SCHEME, key, message, signature, context)

    number, signature = case
    agree(number, signature, [reference.verify, by_openssl])


def test_every_bit_of_a_signature_counts(signatures):
    # All 26,472 single-bit faults of one signature, against each provider at every 60th.
    record = published()[0]
    original = np.frombuffer(record.signature, dtype=np.uint8)
    faulty = np.tile(original, (len(original) * 8, 1))
    rows = np.arange(len(faulty))
    faulty[rows, rows // 8] ^= (1 << (rows % 8)).astype(np.uint8)
    verdicts = MlDsaVerifier(cache_mb=0).verify_columns(
        SCHEME,
        [record.public_key],
        np.zeros(len(faulty), dtype=np.intp),
        np.tile(np.frombuffer(record.message, dtype=np.uint8), (len(faulty), 1)),
        faulty,
        record.context,
    )
    assert not verdicts.any()
    for row in range(0, len(faulty), 60):
        assert not signatures.verify(
            SCHEME, record.public_key, record.message, faulty[row].tobytes(), record.context
        )


def test_selection_says_what_it_took():
    kernel, reason = select_kernel(provider("openssl"), cache_mb=1, threads=2)
    assert kernel is not None
    assert reason.startswith("kernel: compiled for ")
    assert "self-test passed" in reason
    record = published()[0]
    rows = [record.public_key], [record.message], [record.signature]
    with BatchVerifier(provider("openssl"), kernel=kernel) as verifier:
        assert verifier.verify(*rows, record.context).all()
    assert kernel.counters().verified == 1
    assert kernel.counters().oracle is not None
    kernel.close()


def test_falls_back_where_the_self_test_fails(monkeypatch, caplog):
    from qnet_actors.crypto.mldsa import self_test

    monkeypatch.setattr(self_test, "failure", lambda verifier: "record 0 was refused")
    kernel, reason = select_kernel(None)
    assert kernel is None
    assert "record 0 was refused" in reason
    assert [entry.levelname for entry in caplog.records] == ["WARNING"]


def test_falls_back_where_numba_is_missing(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "numba.core.errors", None)
    kernel, reason = select_kernel(None)
    assert kernel is None
    assert "numba" in reason
    assert "several times slower" in caplog.text
