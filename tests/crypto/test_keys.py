"""Keys, signers and development keys; nothing of them shows a secret."""

from __future__ import annotations

import base64
import pickle
import subprocess
import sys
from typing import Any

import pytest

from qnet_actors.crypto import (
    KeyPair,
    Signer,
    development_key,
    openssl_kem,
    require_development,
)
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.schemes import Scheme, key_id

SEED = b"a seed that must never be shown!"
SHOWN = (SEED.decode(), SEED.hex(), base64.b64encode(SEED).decode(), repr(list(SEED)))


def test_a_signer_signs_for_its_key(signatures):
    pair = signatures.generate(Scheme.ML_DSA_65, SEED)
    signer = Signer(pair, signatures)
    assert signer.key_id == pair.key_id == key_id(Scheme.ML_DSA_65, pair.public_key)
    signature = signer.sign(b"message", b"context")
    assert signatures.verify(signer.scheme, signer.public_key, b"message", signature, b"context")
    with pytest.raises(QnetError, match="context"):
        signer.sign(b"message", bytes(256))


def test_no_secret_is_shown(signatures):
    pair = signatures.generate(Scheme.ML_DSA_65, SEED)
    signer = Signer(pair, signatures)
    seed64 = SEED * 2
    kem_pair = openssl_kem().generate(seed64)
    key = signatures.signing_key(Scheme.ML_DSA_65, SEED)
    things = (pair, signer, key, kem_pair, openssl_kem().encapsulate(kem_pair.public_key))
    for thing in things:
        for text in (repr(thing), str(thing), f"{thing}"):
            assert not any(shown in text for shown in SHOWN), type(thing)
    with pytest.raises(QnetError) as wrong:
        Signer(KeyPair(Scheme.ML_DSA_65, pair.public_key, SEED + b"!"), signatures)
    assert not any(shown in str(wrong.value) for shown in SHOWN)


def test_a_signer_does_not_travel(signatures):
    signer = Signer(signatures.generate(Scheme.ML_DSA_65, SEED), signatures)
    with pytest.raises(TypeError, match="stays in its process"):
        pickle.dumps(signer)


def test_development_keys_are_the_same_everywhere(signatures):
    pair = development_key("account", 7, provider=signatures)
    assert pair.key_id.hex() == "17dd3ffaf6422f532b5c1c3f78a2d746b7005f8233ac6388b70e500bc1333361"
    assert pair == development_key("account", 7)
    others = {
        development_key(role, index, scheme, signatures).secret
        for role in ("account", "validator")
        for index in (0, 7, 2**64 - 1)
        for scheme in (Scheme.ML_DSA_65, Scheme.ED25519)
    }
    assert len(others) == 12


@pytest.mark.parametrize(
    ("role", "index"), [("", 0), ("r" * 65, 0), ("account", -1), ("account", 2**64)]
)
def test_development_keys_have_bounds(role, index):
    with pytest.raises(QnetError) as refused:
        development_key(role, index)
    assert refused.value.code == Code.INVALID_PARAMETER


def test_development_keys_are_refused_off_development_networks():
    require_development(True)
    unmarked: tuple[Any, ...] = (False, None, 0, 1, "true")
    for marked in unmarked:
        with pytest.raises(QnetError) as refused:
            require_development(marked)
        assert refused.value.code == Code.DEVELOPMENT_KEY_REFUSED


def test_importing_the_room_loads_no_library():
    program = (
        "import sys, qnet_actors.crypto as room\n"
        "heavy = {'numpy', 'oqs', 'cryptography', 'numba', 'ray', 'blake3'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert all(getattr(room, name) is not None for name in room.__all__)\n"
        "assert not {'numba', 'ray', 'oqs'} & set(sys.modules)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
