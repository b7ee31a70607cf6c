"""ML-KEM-1024: agreement between libraries, implicit rejection, and refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qnet_actors.crypto import openssl_kem
from qnet_actors.wire.codes import Code, QnetError

SEED = bytes(range(64))


@given(seed=st.binary(min_size=64, max_size=64))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_libraries_agree_in_both_directions(kem, seed):
    reference = openssl_kem()
    pair = kem.generate(seed)
    assert pair == reference.generate(seed)
    for makes, opens in ((kem, reference), (reference, kem)):
        made = makes.encapsulate(pair.public_key)
        assert opens.decapsulate(seed, made.ciphertext) == made.shared_secret
        assert (len(made.ciphertext), len(made.shared_secret)) == (1568, 32)


@given(bit=st.integers(0, 8 * 1568 - 1))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_altered_ciphertext_gives_another_secret(kem, bit):
    made = kem.encapsulate(kem.generate(SEED).public_key)
    altered = bytearray(made.ciphertext)
    altered[bit // 8] ^= 1 << bit % 8
    outcome = kem.decapsulate(SEED, bytes(altered))
    assert len(outcome) == 32
    assert outcome != made.shared_secret
    assert outcome == openssl_kem().decapsulate(SEED, bytes(altered))


def test_keys_are_fresh_unless_seeded(kem):
    first, second = kem.generate(), kem.generate()
    assert first.public_key != second.public_key
    assert kem.generate(first.secret) == first
    made = [kem.encapsulate(first.public_key) for _ in range(2)]
    assert made[0].shared_secret != made[1].shared_secret


def test_malformed_input_is_refused(kem):
    key = kem.generate(SEED).public_key
    ciphertext = kem.encapsulate(key).ciphertext
    # A coefficient of 0xfff is over q = 3329 (FIPS 203 section 7.2, modulus check).
    out_of_range = b"\xff\x0f" + key[2:]
    calls: list[Callable[[], object]] = [
        lambda: kem.generate(SEED[1:]),
        lambda: kem.encapsulate(b""),
        lambda: kem.encapsulate(key + b"\0"),
        lambda: kem.encapsulate(out_of_range),
        lambda: kem.decapsulate(SEED[1:], ciphertext),
        lambda: kem.decapsulate(SEED, ciphertext[1:]),
        lambda: kem.decapsulate(SEED, ciphertext + b"\0"),
    ]
    for call in calls:
        with pytest.raises(QnetError) as refused:
            call()
        assert refused.value.code == Code.MALFORMED
