"""The batched signer: published signatures byte for byte, and development keys only."""

from __future__ import annotations

import numpy as np
import pytest

from qnet_actors.crypto import KeyPair, development_key, provider
from qnet_actors.crypto.mldsa import signer
from qnet_actors.crypto.mldsa.signer import DevelopmentSigner
from qnet_actors.kernels.mldsa_sign import SIGNING_BYTES
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.schemes import Scheme
from tests.crypto.mldsa.material import column

SCHEME = Scheme.ML_DSA_65
CONTEXT = b"qnet/tx/v1"


def test_published_signatures_byte_for_byte(published):
    # The published ones are of the deterministic variant; the key of each is derived from its seed.
    for record in published[:50]:
        made = signer._sign_part(
            [KeyPair(SCHEME, record.public_key, record.seed)],
            np.zeros(1, dtype=np.int64),
            column([record.message]),
            record.context,
        )
        assert made[0].tobytes() == record.signature


def test_providers_accept_what_it_signs(signatures):
    batch = DevelopmentSigner("account", 5, provider("openssl"), genesis_is_dev=True)
    # More rows than lanes, keys of unequal use, one key unused, groups that do not fill up.
    index = np.array([0, 3, 3, 3, 1, 0, 4] * 7, dtype=np.intp)
    messages = np.random.default_rng(8).integers(0, 256, (len(index), 32)).astype(np.uint8)
    made = batch.sign(index, messages, CONTEXT)
    for row, key in enumerate(index):
        public_key = batch.public_keys[key]
        message, signature = messages[row].tobytes(), made[row].tobytes()
        assert signatures.verify(SCHEME, public_key, message, signature, CONTEXT)
        assert not signatures.verify(SCHEME, public_key, message, signature, b"")


def test_rows_do_not_depend_on_their_neighbours(published):
    pairs = [KeyPair(SCHEME, record.public_key, record.seed) for record in published[:2]]
    messages = np.arange(20 * 32, dtype=np.uint16).astype(np.uint8).reshape(20, 32)
    which = (np.arange(20) % 2).astype(np.int64)
    together = signer._sign_part(pairs, which, messages, CONTEXT)
    for row in (0, 7, 8, 19):
        one = slice(row, row + 1)
        alone = signer._sign_part(pairs, which[one], messages[one], CONTEXT)
        assert (alone[0] == together[row]).all()


def test_keys_are_the_development_keys_and_in_parts(monkeypatch):
    monkeypatch.setattr(signer, "_KEYS_PER_PART", 2)
    openssl = provider("openssl")
    batch = DevelopmentSigner("validator", 5, openssl, genesis_is_dev=True, first=3)
    keys = [development_key("validator", 3 + number).public_key for number in range(5)]
    assert batch.public_keys == keys
    messages = np.zeros((5, 32), dtype=np.uint8)
    made = batch.sign(np.arange(5)[::-1], messages, CONTEXT)
    for row in range(5):
        signature = made[row].tobytes()
        assert openssl.verify(SCHEME, keys[4 - row], bytes(32), signature, CONTEXT)


def test_refused_on_a_network_that_is_not_dev():
    with pytest.raises(QnetError) as caught:
        DevelopmentSigner("account", 1, provider("openssl"), genesis_is_dev=False)
    assert caught.value.code is Code.DEVELOPMENT_KEY_REFUSED


def test_takes_no_key_from_outside():
    with pytest.raises(TypeError):
        DevelopmentSigner(pairs=[], provider=provider("openssl"), genesis_is_dev=True)  # type: ignore[call-arg]


def test_a_key_that_does_not_belong_to_its_seed_is_noticed(published):
    pair = KeyPair(SCHEME, published[0].public_key, published[1].seed)
    with pytest.raises(QnetError, match="does not expand"):
        signer._expand(pair, np.zeros(SIGNING_BYTES, dtype=np.uint8))


def test_a_bad_signature_does_not_leave_it(monkeypatch):
    batch = DevelopmentSigner("account", 1, provider("openssl"), genesis_is_dev=True)
    monkeypatch.setattr(signer, "sign_rows", lambda *arguments: None)
    with pytest.raises(QnetError, match="openssl refuses"):
        batch.sign(np.zeros(1, dtype=np.intp), np.zeros((1, 32), dtype=np.uint8), CONTEXT)


def test_faults_of_the_caller():
    batch = DevelopmentSigner("account", 1, provider("openssl"), genesis_is_dev=True)
    message = np.zeros((1, 32), dtype=np.uint8)
    for index, context in (([1], b""), ([-1], b""), ([0, 0], b""), ([0], bytes(256))):
        with pytest.raises(ValueError):
            batch.sign(np.array(index), message, context)
    assert batch.sign(np.zeros(0, dtype=np.intp), message[:0], b"").shape == (0, 3309)
