"""Providers: agreement, refusal of everything altered, selection, and no secret on show."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qnet_actors.crypto import Signer, provider, select_provider, simulator_provider
from qnet_actors.crypto import providers as providers_module
from qnet_actors.crypto.providers.engines import EngineProvider
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.schemes import CONTEXT_TRANSACTION, SCHEME_SIZES, Scheme

SIGNING = [scheme for scheme in Scheme if scheme != Scheme.KEYED_HASH]
SEED = bytes(range(32))
MESSAGE = bytes(range(100, 132))
by_name = pytest.mark.parametrize("scheme", SIGNING, ids=lambda scheme: scheme.name)


@by_name
def test_round_trip_and_sizes(signatures, scheme):
    pair = signatures.generate(scheme, SEED)
    signature = signatures.sign(scheme, pair.secret, MESSAGE, CONTEXT_TRANSACTION)
    assert (len(pair.public_key), len(signature)) == SCHEME_SIZES[scheme]
    assert signatures.verify(scheme, pair.public_key, MESSAGE, signature, CONTEXT_TRANSACTION)
    assert not signatures.verify(scheme, pair.public_key, MESSAGE, signature, b"qnet/dag/v1")
    other = signatures.generate(scheme, SEED[::-1])
    assert not signatures.verify(scheme, other.public_key, MESSAGE, signature, CONTEXT_TRANSACTION)


@by_name
@given(
    seed=st.binary(min_size=32, max_size=32),
    message=st.binary(max_size=300),
    context=st.binary(max_size=255),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_providers_agree_in_both_directions(openssl, liboqs, scheme, seed, message, context):
    pair = openssl.generate(scheme, seed)
    assert liboqs.generate(scheme, seed) == pair
    for signs, verifies in ((openssl, liboqs), (liboqs, openssl)):
        signature = signs.sign(scheme, seed, message, context)
        assert verifies.verify(scheme, pair.public_key, message, signature, context)


@by_name
@given(data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_is_refused(signatures, scheme, data):
    pair = signatures.generate(scheme, SEED)
    parts = {
        "public_key": pair.public_key,
        "message": MESSAGE,
        "signature": signatures.sign(scheme, SEED, MESSAGE, CONTEXT_TRANSACTION),
        "context": CONTEXT_TRANSACTION,
    }
    assert signatures.verify(scheme, **parts)
    part = data.draw(st.sampled_from(sorted(parts)))
    altered = bytearray(parts[part])
    bit = data.draw(st.integers(0, 8 * len(altered) - 1))
    altered[bit // 8] ^= 1 << bit % 8
    assert not signatures.verify(scheme, **{**parts, part: bytes(altered)})


@by_name
def test_wrong_lengths_are_false_not_errors(signatures, scheme):
    pair = signatures.generate(scheme, SEED)
    signature = signatures.sign(scheme, SEED, MESSAGE, b"")
    key = pair.public_key
    for wrong in (b"", signature[:-1], signature + b"\0", bytes(10_000)):
        assert not signatures.verify(scheme, key, MESSAGE, wrong, b"")
    for wrong in (b"", key[:-1], key + b"\0", bytes(10_000)):
        assert not signatures.verify(scheme, wrong, MESSAGE, signature, b"")
    assert not signatures.verify(scheme, key, MESSAGE, signature, bytes(256))
    assert not signatures.verify(scheme, bytes(len(key)), MESSAGE, signature, b"")
    assert not signatures.verify(scheme, key, MESSAGE, b"\xff" * len(signature), b"")


# Layout of an ML-DSA-65 signature (FIPS 204 Algorithm 26): c~, z of 5 polynomials with 20 bits a
# coefficient, then a hint of omega = 55 positions and k = 6 counts (Algorithm 20).
HINT, OMEGA, K = 48 + 5 * 640, 55, 6


def test_a_hint_has_one_encoding_only(signatures):
    """Every other encoding of the same hint is refused, or a signature could be altered by anyone
    without becoming another (FIPS 204 Algorithm 21 lines 4, 9 and 17)."""
    scheme = Scheme.ML_DSA_65
    pair = signatures.generate(scheme, SEED)
    key = signatures.signing_key(scheme, SEED)
    tried: set[str] = set()
    for number in range(400):
        message = number.to_bytes(32, "big")
        signature = key.sign(message, b"")
        hint, counts = signature[HINT : HINT + OMEGA], signature[HINT + OMEGA :]
        used = counts[-1]
        altered = {}
        if used < OMEGA:
            altered["padding"] = (*hint[:-1], 1)
        if counts[0] >= 2:
            altered["order"] = (hint[1], hint[0], *hint[2:])
        if counts[0] >= 1 and used < OMEGA:
            altered["repeated"] = (hint[0], *hint[:-1])
        for what, positions in altered.items():
            encoded = bytearray(positions + tuple(counts))
            if what == "repeated":
                for row in range(OMEGA, OMEGA + K):
                    encoded[row] += 1
            forged = signature[:HINT] + bytes(encoded)
            assert len(forged) == len(signature)
            assert not signatures.verify(scheme, pair.public_key, message, forged, b""), what
        over = signature[:-1] + bytes((OMEGA + 1,))
        assert not signatures.verify(scheme, pair.public_key, message, over, b"")
        tried |= altered.keys()
        if len(tried) == 3:
            break
    assert tried == {"padding", "order", "repeated"}


def test_a_response_out_of_range_is_refused(signatures):
    pair = signatures.generate(Scheme.ML_DSA_65, SEED)
    signature = signatures.sign(Scheme.ML_DSA_65, SEED, MESSAGE, b"")
    # Twenty zero bits encode gamma_1, which is over the bound gamma_1 - beta (Algorithm 8 line 13).
    forged = signature[:48] + bytes(3) + signature[51:]
    assert not signatures.verify(Scheme.ML_DSA_65, pair.public_key, MESSAGE, forged, b"")


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_providers_give_the_same_verdict_on_altered_input(openssl, liboqs, data):
    scheme = Scheme.ML_DSA_65
    signature = bytearray(openssl.sign(scheme, SEED, MESSAGE, b""))
    key = bytearray(openssl.generate(scheme, SEED).public_key)
    for target in (signature, key):
        for _ in range(data.draw(st.integers(0, 2))):
            target[data.draw(st.integers(0, len(target) - 1))] = data.draw(st.integers(0, 255))
    verdicts = {
        p.verify(scheme, bytes(key), MESSAGE, bytes(signature), b"") for p in (openssl, liboqs)
    }
    assert len(verdicts) == 1


def test_ed25519_signs_the_framed_message(openssl):
    pair = openssl.generate(Scheme.ED25519, SEED)
    signature = openssl.sign(Scheme.ED25519, SEED, MESSAGE, b"abc")
    framed = b"\x04\x03abc" + MESSAGE
    Ed25519PublicKey.from_public_bytes(pair.public_key).verify(signature, framed)


def test_a_hybrid_needs_both_halves_and_neither_serves_alone(signatures):
    scheme = Scheme.HYBRID_ED25519_ML_DSA_65
    pair = signatures.generate(scheme, SEED)
    first = signatures.sign(scheme, SEED, MESSAGE, b"c")
    second = signatures.sign(scheme, SEED, b"another", b"c")
    for mixed in (first[:64] + second[64:], second[:64] + first[64:]):
        assert not signatures.verify(scheme, pair.public_key, MESSAGE, mixed, b"c")
    key = pair.public_key
    assert not signatures.verify(Scheme.ED25519, key[:32], MESSAGE, first[:64], b"c")
    assert not signatures.verify(Scheme.ML_DSA_65, key[32:], MESSAGE, first[64:], b"c")


def test_refusals_have_codes(signatures):
    with pytest.raises(QnetError) as unknown:
        signatures.verify(Scheme.KEYED_HASH, bytes(32), b"", bytes(32), b"")
    assert unknown.value.code == Code.UNKNOWN_SCHEME
    for secret in (b"", b"secret seed of a wrong length"):
        with pytest.raises(QnetError) as short:
            signatures.generate(Scheme.ML_DSA_65, secret)
        assert short.value.code == Code.INVALID_PARAMETER
        assert "secret seed of" not in str(short.value)
    with pytest.raises(QnetError) as long:
        signatures.sign(Scheme.ML_DSA_65, SEED, b"", bytes(256))
    assert long.value.code == Code.INVALID_PARAMETER


def test_an_engine_sees_checked_lengths_only():
    class Credulous:
        calls = 0

        def verify(self, public_key, message, signature, context):
            self.calls += 1
            return True

    engine: Any = Credulous()
    lax = EngineProvider("lax", "1", {Scheme.ED25519: engine}, releases_gil=True)
    key, signature, context = bytes(32), bytes(64), bytes(255)
    assert lax.verify(Scheme.ED25519, key, b"", signature, context)
    for wrong in (
        (key[1:], b"", signature, context),
        (key, b"", signature[1:], context),
        (key, b"", signature + b"\0", context),
        (key, b"", signature, context + b"\0"),
    ):
        assert not lax.verify(Scheme.ED25519, *wrong)
    assert engine.calls == 1


def test_a_seed_reaches_only_the_thread_that_loads(liboqs):
    from qnet_actors.crypto.providers import liboqs as module

    def draw() -> bytes:
        buffer = ctypes.create_string_buffer(32)
        module._serve_random(ctypes.addressof(buffer), 32)
        return buffer.raw

    drawn: list[bytes] = []
    module._loading.seed = SEED
    other = threading.Thread(target=lambda: drawn.append(draw()))
    other.start()
    other.join()
    drawn += [draw(), draw()]
    assert drawn[1] == SEED
    assert SEED not in (drawn[0], drawn[2])
    assert drawn[0] != drawn[2]


def test_verify_many_is_verify_by_row(signatures):
    scheme = Scheme.ML_DSA_65
    key = signatures.generate(scheme, SEED).public_key
    good = signatures.sign(scheme, SEED, MESSAGE, b"")
    verdicts = signatures.verify_many(
        scheme, [key] * 3, [MESSAGE, b"other", MESSAGE], [good, good, good[1:]], b""
    )
    assert verdicts == [True, False, False]
    with pytest.raises(ValueError, match="shorter"):
        signatures.verify_many(scheme, [key] * 2, [MESSAGE], [good], b"")


def test_keys_load_right_while_others_sign(signatures):
    """Loading a key swaps liboqs's random source: signers beside it must not receive the seed."""
    scheme = Scheme.ML_DSA_65
    signer = Signer(signatures.generate(scheme, SEED), signatures)
    made: list[bytes] = []
    stop = threading.Event()

    def sign():
        while not stop.is_set() and len(made) < 2000:
            made.append(signer.sign(MESSAGE, b""))

    threads = [threading.Thread(target=sign) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        keys = {signatures.generate(scheme, SEED).public_key for _ in range(40)}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert keys == {signer.public_key}
    assert made
    assert len(set(made)) == len(made), "hedged signatures never repeat"
    assert all(signatures.verify(scheme, signer.public_key, MESSAGE, s, b"") for s in made[:50])


def test_auto_takes_liboqs_where_it_is(liboqs):
    chosen, reason = select_provider()
    assert chosen is liboqs
    assert reason.startswith("liboqs: ")
    assert select_provider("openssl").provider.name == "openssl"


def test_auto_falls_back_and_says_why(monkeypatch, openssl):
    def missing():
        raise QnetError(Code.PROVIDER_MISSING, "liboqs is not on this machine")

    monkeypatch.setattr(providers_module, "liboqs_provider", missing)
    chosen, reason = select_provider("auto")
    assert chosen is openssl
    assert "OpenSSL" in reason
    assert "liboqs is not on this machine" in reason
    with pytest.raises(QnetError, match="provider_missing"):
        provider("liboqs")


def test_the_simulators_scheme_is_never_offered():
    for name, code in (("keyed-hash", Code.SCHEME_REFUSED), ("other", Code.PROVIDER_MISSING)):
        with pytest.raises(QnetError) as refused:
            select_provider(name)
        assert refused.value.code == code
    assert Scheme.KEYED_HASH not in provider("auto").schemes
    assert simulator_provider().schemes == {Scheme.KEYED_HASH}


def test_the_simulators_scheme_catches_faults():
    simulator = simulator_provider()
    pair = simulator.generate(Scheme.KEYED_HASH, SEED)
    good = simulator.sign(Scheme.KEYED_HASH, SEED, MESSAGE, b"c")
    verify = simulator.verify
    assert verify(Scheme.KEYED_HASH, pair.public_key, MESSAGE, good, b"c")
    assert not verify(Scheme.KEYED_HASH, pair.public_key, MESSAGE, good, b"d")
    assert not verify(Scheme.KEYED_HASH, pair.public_key, MESSAGE[1:], good, b"c")
    assert not verify(Scheme.KEYED_HASH, bytes(32), MESSAGE, good, b"c")
    assert not verify(Scheme.KEYED_HASH, pair.public_key, MESSAGE, bytes(32), b"c")
