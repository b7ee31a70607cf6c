"""Published vectors of ML-DSA and ML-KEM-1024 against every provider present."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qnet_actors.crypto import liboqs_kem
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme
from tests.crypto.vectors import records

ML_DSA = {
    Scheme.ML_DSA_44: "MLDSA/kat_MLDSA_44_det_pure.rsp",
    Scheme.ML_DSA_65: "MLDSA/kat_MLDSA_65_det_pure.rsp",
    Scheme.ML_DSA_87: "MLDSA/kat_MLDSA_87_det_pure.rsp",
}
ML_KEM_1024 = "MLKEM/kat_MLKEM_1024.rsp"


def ml_dsa_records(scheme: Scheme) -> list[tuple[bytes, ...]]:
    """(seed, public key, message, signature, context) of each published record."""
    size = SCHEME_SIZES[scheme].signature
    rows: list[tuple[bytes, ...]] = [
        (r["xi"], r["pk"], r["msg"], r["sm"][:size], r["ctx"]) for r in records(ML_DSA[scheme])
    ]
    assert len(rows) == 100
    return rows


@pytest.mark.parametrize("scheme", ML_DSA, ids=lambda scheme: scheme.name)
def test_ml_dsa_key_generation(signatures, scheme):
    for seed, public_key, *_ in ml_dsa_records(scheme):
        assert signatures.generate(scheme, seed).public_key == public_key


@pytest.mark.parametrize("scheme", ML_DSA, ids=lambda scheme: scheme.name)
def test_ml_dsa_verification(signatures, scheme):
    for _, public_key, message, signature, context in ml_dsa_records(scheme):
        assert signatures.verify(scheme, public_key, message, signature, context)
        assert not signatures.verify(scheme, public_key, message + b"\0", signature, context)
        assert not signatures.verify(scheme, public_key, message, signature, context + b"\0")


@contextmanager
def random_source(values: list[bytes]) -> Iterator[None]:
    """liboqs draws its random bytes from `values` while this lasts."""
    import oqs

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
    def serve(target: int, size: int) -> None:
        value = values.pop(0) if values and len(values[0]) == size else os.urandom(size)
        ctypes.memmove(target, value, size)

    oqs.native().OQS_randombytes_custom_algorithm(serve)
    try:
        yield
    finally:
        oqs.native().OQS_randombytes_switch_algorithm(b"system")


@pytest.mark.parametrize("scheme", ML_DSA, ids=lambda scheme: scheme.name)
def test_ml_dsa_signing_bit_for_bit(liboqs, scheme):
    # The published signatures are the deterministic variant: the random value is 32 zero bytes
    # (FIPS 204 Algorithm 2 line 5).  Only liboqs lets a test choose that value.
    for seed, _, message, signature, context in ml_dsa_records(scheme)[:30]:
        key = liboqs.signing_key(scheme, seed)
        with random_source([bytes(32)]):
            assert key.sign(message, context) == signature


def kem_records() -> list[dict[str, bytes]]:
    rows = list(records(ML_KEM_1024))
    assert len(rows) == 1000
    return rows[::5]


def test_ml_kem_key_generation(kem):
    for record in kem_records():
        assert kem.generate(record["d"] + record["z"]).public_key == record["pk"]


def test_ml_kem_decapsulation(kem):
    for record in kem_records():
        secret = record["d"] + record["z"]
        assert kem.decapsulate(secret, record["ct"]) == record["ss"]
        assert kem.decapsulate(secret, record["ct_n"]) == record["ss_n"]


def test_ml_kem_encapsulation_bit_for_bit():
    try:
        kem = liboqs_kem()
    except QnetError as missing:
        pytest.skip(missing.detail)
    for record in kem_records()[:50]:
        with random_source([record["msg"]]):
            made = kem.encapsulate(record["pk"])
        assert (made.ciphertext, made.shared_secret) == (record["ct"], record["ss"])
