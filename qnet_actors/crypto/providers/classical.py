"""Ed25519, and Ed25519 with ML-DSA-65: for comparison in experiments.

Ed25519 (RFC 8032) takes no context in this library, so what is signed is framed: the scheme byte,
the length of the context, the context, the message.  That is the shape of FIPS 204 Algorithm 2
line 10, with the scheme byte in the place of the pre-hash byte, so that a signature made under one
scheme or context is never valid under another.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from qnet_actors.crypto.providers.seam import Buffer, SchemeEngine, SigningKey
from qnet_actors.wire.hashing import hash32
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme

_HYBRID_CONTEXT: Final = "qnet hybrid key v1"


def frame(scheme: Scheme, context: bytes, message: Buffer) -> bytes:
    """The scheme byte, the length of `context`, `context` (at most 255 bytes), `message`."""
    return b"".join((bytes((scheme, len(context))), context, message))


class Ed25519SigningKey:
    """A loaded Ed25519 key that frames for `scheme`."""

    __slots__ = ("_key", "_scheme")

    def __init__(self, key: Ed25519PrivateKey, scheme: Scheme) -> None:
        self._key = key
        self._scheme = scheme

    def sign(self, message: bytes, context: bytes) -> bytes:
        """The 64-byte signature over the framed message."""
        return self._key.sign(frame(self._scheme, context, message))


class Ed25519Engine:
    """Ed25519 by the `cryptography` wheel, which releases the GIL while it signs and verifies."""

    def __init__(self, scheme: Scheme = Scheme.ED25519) -> None:
        self._scheme = scheme

    def public_key(self, seed: bytes) -> bytes:
        """The 32-byte public key of a seed."""
        return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()

    def signing_key(self, seed: bytes) -> SigningKey:
        """Load the key of a seed."""
        return Ed25519SigningKey(Ed25519PrivateKey.from_private_bytes(seed), self._scheme)

    def verify(self, public_key: bytes, message: Buffer, signature: Buffer, context: bytes) -> bool:
        """Whether the 64-byte signature is valid."""
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(
                bytes(signature), frame(self._scheme, context, message)
            )
        except (InvalidSignature, ValueError):
            return False
        return True


class HybridSigningKey:
    """Both loaded keys of a hybrid."""

    __slots__ = ("_classical", "_ml_dsa")

    def __init__(self, classical: SigningKey, ml_dsa: SigningKey) -> None:
        self._classical = classical
        self._ml_dsa = ml_dsa

    def sign(self, message: bytes, context: bytes) -> bytes:
        """The Ed25519 signature followed by the ML-DSA-65 one."""
        framed = frame(Scheme.HYBRID_ED25519_ML_DSA_65, context, message)
        return self._classical.sign(message, context) + self._ml_dsa.sign(framed, context)


class HybridEngine:
    """Ed25519 followed by ML-DSA-65, in keys and in signatures; both must verify.

    Each half has a seed of its own, derived from the seed of the pair, and both sign the framed
    message, so that a half cut out of a hybrid signature is worth nothing under its own scheme.
    """

    def __init__(self, ml_dsa_65: SchemeEngine) -> None:
        self._classical = Ed25519Engine(Scheme.HYBRID_ED25519_ML_DSA_65)
        self._ml_dsa = ml_dsa_65
        sizes = SCHEME_SIZES[Scheme.ED25519]
        self._public_key_split = sizes.public_key
        self._signature_split = sizes.signature

    def public_key(self, seed: bytes) -> bytes:
        """The Ed25519 public key followed by the ML-DSA-65 one."""
        classical, ml_dsa = _half_seeds(seed)
        return self._classical.public_key(classical) + self._ml_dsa.public_key(ml_dsa)

    def signing_key(self, seed: bytes) -> SigningKey:
        """Load both halves."""
        classical, ml_dsa = _half_seeds(seed)
        return HybridSigningKey(
            self._classical.signing_key(classical), self._ml_dsa.signing_key(ml_dsa)
        )

    def verify(self, public_key: bytes, message: Buffer, signature: Buffer, context: bytes) -> bool:
        """Whether both halves are valid; the cheaper one is checked first."""
        key_split, split = self._public_key_split, self._signature_split
        if not self._classical.verify(public_key[:key_split], message, signature[:split], context):
            return False
        framed = frame(Scheme.HYBRID_ED25519_ML_DSA_65, context, message)
        return self._ml_dsa.verify(public_key[key_split:], framed, signature[split:], context)


def _half_seeds(seed: bytes) -> tuple[bytes, bytes]:
    return (
        hash32(_HYBRID_CONTEXT, bytes((Scheme.ED25519,)), seed),
        hash32(_HYBRID_CONTEXT, bytes((Scheme.ML_DSA_65,)), seed),
    )
