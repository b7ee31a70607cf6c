"""The plain reference against the published vectors and the rules that they do not reach."""

from __future__ import annotations

import pytest

from qnet_actors.crypto.mldsa import reference
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme
from tests.crypto.mldsa.material import MALFORMED_HINTS


def test_sizes_are_the_standards():
    sizes = SCHEME_SIZES[Scheme.ML_DSA_65]
    assert tuple(sizes) == (reference.PUBLIC_KEY_BYTES, reference.SIGNATURE_BYTES)
    assert reference.BETA == 196


def test_published_signatures(published):
    for record in published[::4]:
        assert reference.verify(record.public_key, record.message, record.signature, record.context)


def test_any_other_message_context_or_key_is_refused(published):
    record, other = published[0], published[1]
    key, message, signature, context = record[1:]
    assert not reference.verify(key, message + b"\0", signature, context)
    assert not reference.verify(key, message, signature, context + b"\0")
    assert not reference.verify(other.public_key, message, signature, context)


@pytest.mark.parametrize("cut", [0, 1, 1951])
def test_short_key_is_refused(published, cut):
    record = published[0]
    key = record.public_key[:cut]
    assert not reference.verify(key, record.message, record.signature, record.context)


@pytest.mark.parametrize("size", [0, 47, 3308, 3310])
def test_signature_of_wrong_length_is_refused(published, size):
    record = published[0]
    signature = (record.signature + b"\0")[:size]
    assert not reference.verify(record.public_key, record.message, signature, record.context)


def test_long_context_is_refused(published):
    record = published[0]
    assert not reference.verify(record.public_key, record.message, record.signature, bytes(256))


def test_every_bit_of_a_signature_counts(published):
    # One bit in each of its parts; the kernels are held to the providers bit by bit.
    record = published[7]
    for place in (0, 47, 48, 1000, 3247, 3248, 3303, 3308):
        signature = bytearray(record.signature)
        signature[place] ^= 0x10
        assert not reference.verify(
            record.public_key, record.message, bytes(signature), record.context
        )


def test_ntt_is_inverted_and_multiplies():
    a = [(3 * i * i + 7) % reference.Q for i in range(256)]
    assert reference.inverse_ntt(reference.ntt(a)) == a
    x_to_255, x = [0] * 255 + [1], [0, 1] + [0] * 254
    product = [
        p * q % reference.Q for p, q in zip(reference.ntt(x_to_255), reference.ntt(x), strict=True)
    ]
    assert reference.inverse_ntt(product) == [reference.Q - 1] + [0] * 255


def test_decompose_has_its_exception():
    assert reference.decompose(reference.Q - 1) == (0, -1)
    assert reference.decompose(reference.Q - reference.GAMMA2) == (0, -reference.GAMMA2)
    assert reference.decompose(reference.GAMMA2) == (0, reference.GAMMA2)
    assert reference.decompose(reference.GAMMA2 + 1) == (1, -reference.GAMMA2 + 1)


@pytest.mark.parametrize(("why", "y"), MALFORMED_HINTS)
def test_malformed_hint(why, y):
    assert reference.unpack_hint(y) is None, why


def test_hint_of_omega_places():
    y = bytes([*range(9), *range(9), *range(9), *range(9), *range(9), *range(10)])
    hint = reference.unpack_hint(y + bytes([9, 18, 27, 36, 45, 55]))
    assert hint is not None
    assert [sum(row) for row in hint] == [9, 9, 9, 9, 9, 10]
