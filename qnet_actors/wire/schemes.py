"""Signature schemes, their sizes and key ids, and who checks signatures and makes them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from qnet_actors.wire.hashing import KEY, hash32

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Scheme(IntEnum):
    """The scheme byte on every witness and key."""

    ML_DSA_44 = 1
    ML_DSA_65 = 2
    ML_DSA_87 = 3
    ED25519 = 4
    HYBRID_ED25519_ML_DSA_65 = 5
    KEYED_HASH = 255
    """The simulator's own: fast, and no protection at all.  Refused outside the simulator."""


class SchemeSizes(NamedTuple):
    """Sizes in bytes (FIPS 204 Table 2, RFC 8032 section 5.1)."""

    public_key: int
    signature: int


SCHEME_SIZES: Final = {
    Scheme.ML_DSA_44: SchemeSizes(1312, 2420),
    Scheme.ML_DSA_65: SchemeSizes(1952, 3309),
    Scheme.ML_DSA_87: SchemeSizes(2592, 4627),
    Scheme.ED25519: SchemeSizes(32, 64),
    Scheme.HYBRID_ED25519_ML_DSA_65: SchemeSizes(1952 + 32, 3309 + 64),
    Scheme.KEYED_HASH: SchemeSizes(32, 32),
}

CONTEXT_TRANSACTION: Final = b"qnet/tx/v1"
CONTEXT_DAG_BLOCK: Final = b"qnet/dag/v1"
CONTEXT_CHECKPOINT: Final = b"qnet/checkpoint/v1"
CONTEXT_LINK: Final = b"qnet/link/v1"
CONTEXT_REGISTRATION: Final = b"qnet/registration/v1"


def dag_context(chain_id: bytes) -> bytes:
    """The context of DAG blocks: it names the chain, so that what a key signed on another chain
    with the same slots convicts nobody on this one."""
    return CONTEXT_DAG_BLOCK + chain_id


def key_id(scheme: int, public_key: bytes) -> bytes:
    """The 32-byte content address of a public key: hash(scheme byte, public key)."""
    return hash32(KEY, bytes((scheme,)), public_key)


class Verifier(Protocol):
    """What a room needs of `crypto.BatchVerifier` to check single signatures."""

    def verify(
        self,
        public_keys: Sequence[bytes],
        messages: Sequence[bytes],
        signatures: Sequence[bytes],
        context: bytes,
        scheme: Scheme,
    ) -> npt.NDArray[np.bool_]:
        """bool[n]: which rows carry a valid signature; a wrong length is False."""


class Signer(Protocol):
    """What a room needs of `crypto.Signer`."""

    @property
    def public_key(self) -> bytes: ...

    def sign(self, message: bytes, context: bytes) -> bytes:
        """The signature over `message` under `context`."""


class SchemeSigner(Signer, Protocol):
    """A signer that says of which scheme its key is."""

    @property
    def scheme(self) -> int: ...
