"""Signature schemes, their sizes, and key ids."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from qnet_actors.wire.hashing import KEY, hash32


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


def key_id(scheme: int, public_key: bytes) -> bytes:
    """The 32-byte content address of a public key: hash(scheme byte, public key)."""
    return hash32(KEY, bytes((scheme,)), public_key)
