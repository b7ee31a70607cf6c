"""ML-KEM-1024 (FIPS 203) by OpenSSL and, where it is present, by liboqs.

The secret of a key pair is its 64-byte seed d || z (FIPS 203 Algorithm 16); a shared secret has 32
bytes.  Links between clusters run TLS, which has its own; this is for whoever needs the bare KEM.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)

from qnet_actors.crypto.providers.oqs_library import load_oqs
from qnet_actors.wire.codes import Code, QnetError

# FIPS 203 section 8, Table 3.
PUBLIC_KEY_BYTES: Final = 1568
CIPHERTEXT_BYTES: Final = 1568
KEM_SEED_BYTES: Final = 64

_ALGORITHM: Final = "ML-KEM-1024"


@dataclass(frozen=True, slots=True)
class KemKeyPair:
    """An encapsulation key of 1,568 bytes and the 64-byte seed of both halves."""

    public_key: bytes = field(repr=False)
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """A ciphertext of 1,568 bytes and the 32-byte secret that only the key's owner recovers."""

    ciphertext: bytes = field(repr=False)
    shared_secret: bytes = field(repr=False)


class Kem(Protocol):
    """ML-KEM-1024 in one library.  Methods raise `QnetError(MALFORMED)` for a wrong length."""

    @property
    def name(self) -> str:
        """The library: "openssl" or "liboqs"."""
        ...

    def generate(self, seed: bytes | None = None) -> KemKeyPair:
        """A key pair from 64 bytes d || z, by default of the system's randomness."""
        ...

    def encapsulate(self, public_key: bytes) -> Encapsulation:
        """Make a shared secret; MALFORMED also for a key with a coefficient out of range."""
        ...

    def decapsulate(self, secret: bytes, ciphertext: bytes) -> bytes:
        """Recover the shared secret.

        A ciphertext made for another key, or altered, gives an unrelated secret (implicit
        rejection, FIPS 203 Algorithm 18), never an error.
        """
        ...


def _check(what: str, value: bytes, size: int) -> None:
    if len(value) != size:
        raise QnetError(
            Code.MALFORMED, f"{what} of {_ALGORITHM} has {size} bytes, not {len(value)}"
        )


def _seed_or_random(seed: bytes | None) -> bytes:
    if seed is None:
        return os.urandom(KEM_SEED_BYTES)
    _check("the seed", seed, KEM_SEED_BYTES)
    return seed


class OpensslKem:
    """ML-KEM-1024 by the `cryptography` wheel."""

    name = "openssl"

    def generate(self, seed: bytes | None = None) -> KemKeyPair:
        """See `Kem.generate`."""
        seed = _seed_or_random(seed)
        key = MLKEM1024PrivateKey.from_seed_bytes(seed)
        return KemKeyPair(key.public_key().public_bytes_raw(), seed)

    def encapsulate(self, public_key: bytes) -> Encapsulation:
        """See `Kem.encapsulate`."""
        _check("a public key", public_key, PUBLIC_KEY_BYTES)
        try:
            shared_secret, ciphertext = MLKEM1024PublicKey.from_public_bytes(
                public_key
            ).encapsulate()
        except ValueError:
            raise QnetError(Code.MALFORMED, f"not a public key of {_ALGORITHM}") from None
        return Encapsulation(ciphertext, shared_secret)

    def decapsulate(self, secret: bytes, ciphertext: bytes) -> bytes:
        """See `Kem.decapsulate`."""
        _check("the seed", secret, KEM_SEED_BYTES)
        _check("a ciphertext", ciphertext, CIPHERTEXT_BYTES)
        return MLKEM1024PrivateKey.from_seed_bytes(secret).decapsulate(ciphertext)


class LiboqsKem:
    """ML-KEM-1024 by liboqs."""

    name = "liboqs"

    def __init__(self, oqs: ModuleType) -> None:
        """Raises `QnetError(PROVIDER_MISSING)` when this build of liboqs leaves it out."""
        self._oqs = oqs
        with self._open() as kem:
            details = kem.details
        if (
            details["length_keypair_seed"] != KEM_SEED_BYTES
            or details["length_public_key"] != PUBLIC_KEY_BYTES
            or details["length_ciphertext"] != CIPHERTEXT_BYTES
        ):
            raise QnetError(Code.PROVIDER_MISSING, f"this liboqs has no seeded {_ALGORITHM}")

    def _open(self) -> Any:
        try:
            return self._oqs.KeyEncapsulation(_ALGORITHM)
        except self._oqs.MechanismNotSupportedError:
            raise QnetError(
                Code.PROVIDER_MISSING, f"this build of liboqs has no {_ALGORITHM}"
            ) from None

    def generate(self, seed: bytes | None = None) -> KemKeyPair:
        """See `Kem.generate`."""
        seed = _seed_or_random(seed)
        with self._open() as kem:
            return KemKeyPair(kem.generate_keypair_seed(seed), seed)

    def encapsulate(self, public_key: bytes) -> Encapsulation:
        """See `Kem.encapsulate`."""
        _check("a public key", public_key, PUBLIC_KEY_BYTES)
        with self._open() as kem:
            try:
                ciphertext, shared_secret = kem.encap_secret(public_key)
            except RuntimeError:
                raise QnetError(Code.MALFORMED, f"not a public key of {_ALGORITHM}") from None
        return Encapsulation(ciphertext, shared_secret)

    def decapsulate(self, secret: bytes, ciphertext: bytes) -> bytes:
        """See `Kem.decapsulate`."""
        _check("the seed", secret, KEM_SEED_BYTES)
        _check("a ciphertext", ciphertext, CIPHERTEXT_BYTES)
        with self._open() as kem:
            kem.generate_keypair_seed(secret)
            shared_secret: bytes = kem.decap_secret(ciphertext)
        return shared_secret


@functools.cache
def openssl_kem() -> Kem:
    """ML-KEM-1024 by OpenSSL; raises `QnetError(PROVIDER_MISSING)` when the wheel lacks it."""
    try:
        MLKEM1024PrivateKey.from_seed_bytes(bytes(KEM_SEED_BYTES))
    except UnsupportedAlgorithm:
        raise QnetError(
            Code.PROVIDER_MISSING,
            "this build of the cryptography package has no ML-KEM; install its published wheel",
        ) from None
    return OpensslKem()


@functools.cache
def liboqs_kem() -> Kem:
    """ML-KEM-1024 by liboqs; raises `QnetError(PROVIDER_MISSING)` when it is not there."""
    oqs, _ = load_oqs()
    return LiboqsKem(oqs)
