"""The signatures of a run are the same each time, and valid."""

import pytest

from qnet_actors.simulator.signing import Signing
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.schemes import Scheme


@pytest.mark.parametrize("scheme", [Scheme.KEYED_HASH, Scheme.ML_DSA_65])
def test_signatures_are_valid_and_the_same_in_another_run(scheme: Scheme):
    first, again = Signing(scheme), Signing(scheme)
    signer = first.signer("account", 3)
    signature = signer.sign(b"m" * 32, b"context")
    assert again.signer("account", 3).sign(b"m" * 32, b"context") == signature
    assert again.signer("account", 4).sign(b"m" * 32, b"context") != signature
    for context, valid in ((b"context", True), (b"other", False)):
        verdict = first.provider.verify(scheme, signer.public_key, b"m" * 32, signature, context)
        assert verdict is valid
    assert [known.key_id for known in first.signers("account", 4)][3] == signer.key_id


def test_other_schemes_are_refused():
    with pytest.raises(QnetError):
        Signing(Scheme.ED25519)
