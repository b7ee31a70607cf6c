"""ML-DSA and Ed25519 by the `cryptography` wheel, which bundles OpenSSL 4.

The wheel releases the GIL around each ML-DSA and Ed25519 signature and verification (since
version 50).  Measured on two cores with cryptography 50.0.2 and OpenSSL 4.0.3, ML-DSA-65, 32-byte
messages: one thread verifies 5,000-5,700 a second and two threads 8,500-9,500; one thread signs
700-900 a second and two threads 1,500-1,800; a pure Python loop in a second thread keeps its full
speed beside a thread that verifies.

Loading a public key costs 9-20 us of the 200-240 us that a verification takes, 5-9 % (256 keys,
medians of 15 rounds).  A cache bounded to thousands of keys would win less than that, since its own
look-up hashes the 1,952-byte key, so keys are loaded each time and nothing has to be evicted.
Loading a private key costs 160-210 us, a fifth of a signature: `signing_key` keeps it loaded.
"""

from __future__ import annotations

import functools
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives.asymmetric import mldsa

from qnet_actors.crypto.providers.classical import Ed25519Engine, HybridEngine
from qnet_actors.crypto.providers.engines import EngineProvider
from qnet_actors.crypto.providers.seam import Buffer, SigningKey
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.schemes import Scheme


class _PublicKey(Protocol):
    def public_bytes_raw(self) -> bytes: ...

    def verify(self, signature: Buffer, data: Buffer, context: Buffer | None = None) -> None: ...


class _PrivateKey(Protocol):
    def public_key(self) -> _PublicKey: ...

    def sign(self, data: Buffer, context: Buffer | None = None) -> bytes: ...


class _PublicKeyLoader(Protocol):
    def __call__(self, data: bytes, /) -> _PublicKey: ...


class _PrivateKeyLoader(Protocol):
    def __call__(self, data: bytes, /) -> _PrivateKey: ...


_LOADERS: Final[dict[Scheme, tuple[_PublicKeyLoader, _PrivateKeyLoader]]] = {
    Scheme.ML_DSA_44: (
        mldsa.MLDSA44PublicKey.from_public_bytes,
        mldsa.MLDSA44PrivateKey.from_seed_bytes,
    ),
    Scheme.ML_DSA_65: (
        mldsa.MLDSA65PublicKey.from_public_bytes,
        mldsa.MLDSA65PrivateKey.from_seed_bytes,
    ),
    Scheme.ML_DSA_87: (
        mldsa.MLDSA87PublicKey.from_public_bytes,
        mldsa.MLDSA87PrivateKey.from_seed_bytes,
    ),
}


class OpensslMlDsaEngine:
    """One ML-DSA parameter set; signatures are hedged (FIPS 204 section 3.4)."""

    def __init__(self, scheme: Scheme) -> None:
        self._load_public, self._load_private = _LOADERS[scheme]

    def public_key(self, seed: bytes) -> bytes:
        """The public key of a 32-byte seed (FIPS 204 Algorithm 6)."""
        return self._load_private(seed).public_key().public_bytes_raw()

    def signing_key(self, seed: bytes) -> SigningKey:
        """Load the key of a seed: OpenSSL's own object signs with a context."""
        return self._load_private(seed)

    def verify(self, public_key: bytes, message: Buffer, signature: Buffer, context: bytes) -> bool:
        """FIPS 204 Algorithm 3."""
        try:
            self._load_public(public_key).verify(signature, message, context)
        except (InvalidSignature, ValueError):
            return False
        return True


@functools.cache
def openssl_provider() -> EngineProvider:
    """ML-DSA-44/65/87, Ed25519 and the hybrid of both.

    Raises `QnetError(PROVIDER_MISSING)` when the wheel was built over a library without ML-DSA.
    """
    try:
        mldsa.MLDSA65PrivateKey.from_seed_bytes(bytes(32))
    except UnsupportedAlgorithm:
        raise QnetError(
            Code.PROVIDER_MISSING,
            "this build of the cryptography package has no ML-DSA; install its published wheel",
        ) from None
    ml_dsa_65 = OpensslMlDsaEngine(Scheme.ML_DSA_65)
    return EngineProvider(
        "openssl",
        backend.openssl_version_text(),
        {
            Scheme.ML_DSA_44: OpensslMlDsaEngine(Scheme.ML_DSA_44),
            Scheme.ML_DSA_65: ml_dsa_65,
            Scheme.ML_DSA_87: OpensslMlDsaEngine(Scheme.ML_DSA_87),
            Scheme.ED25519: Ed25519Engine(),
            Scheme.HYBRID_ED25519_ML_DSA_65: HybridEngine(ml_dsa_65),
        },
        releases_gil=True,
    )
