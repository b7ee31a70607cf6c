"""The seam between signature schemes and the libraries that compute them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

from qnet_actors.crypto.key_pair import KeyPair
from qnet_actors.wire.schemes import Scheme

CONTEXT_BYTES_MAX: Final = 255  # FIPS 204 section 5.2

Buffer: TypeAlias = bytes | memoryview


class SigningKey(Protocol):
    """A secret key loaded into a provider; safe to use from several threads."""

    def sign(self, message: bytes, context: bytes) -> bytes:
        """The signature over `message` under `context`."""
        ...


class SchemeEngine(Protocol):
    """One scheme in one library.  A `Provider` checks every length before it calls an engine."""

    def public_key(self, seed: bytes) -> bytes:
        """The public key of a 32-byte seed."""
        ...

    def signing_key(self, seed: bytes) -> SigningKey:
        """Load the key of a 32-byte seed for many signatures."""
        ...

    def verify(self, public_key: bytes, message: Buffer, signature: Buffer, context: bytes) -> bool:
        """Whether `signature` is valid; malformed contents of the right length are False."""
        ...


class RowVerifier(Protocol):
    """The part of a provider that verifies rows: all that batched verification needs."""

    @property
    def releases_gil(self) -> bool:
        """Whether verification releases the GIL."""
        ...

    def verify_many(
        self,
        scheme: Scheme,
        public_keys: Sequence[bytes],
        messages: Sequence[Buffer],
        signatures: Sequence[Buffer],
        context: bytes,
    ) -> list[bool]:
        """Which rows are valid; the three sequences have the same length."""
        ...


class Provider(Protocol):
    """A library that computes signature schemes.

    A context is at most 255 bytes (FIPS 204 section 5.2); the secret of every scheme is a 32-byte
    seed.  A wrong length of key, signature or context never verifies and never raises.  Methods
    raise `QnetError(UNKNOWN_SCHEME)` for a scheme that the provider does not offer.
    """

    @property
    def name(self) -> str:
        """The short name: "openssl", "liboqs" or "keyed-hash"."""
        ...

    @property
    def version(self) -> str:
        """The version of the library underneath."""
        ...

    @property
    def releases_gil(self) -> bool:
        """Whether signing and verification release the GIL."""
        ...

    @property
    def schemes(self) -> frozenset[Scheme]:
        """The schemes on offer."""
        ...

    def generate(self, scheme: Scheme, seed: bytes) -> KeyPair:
        """The key pair of a 32-byte seed (FIPS 204 Algorithm 6 for ML-DSA)."""
        ...

    def signing_key(self, scheme: Scheme, secret: bytes) -> SigningKey:
        """Load a secret for many signatures."""
        ...

    def sign(self, scheme: Scheme, secret: bytes, message: bytes, context: bytes) -> bytes:
        """One signature; `signing_key` is cheaper for several."""
        ...

    def verify(
        self,
        scheme: Scheme,
        public_key: bytes,
        message: Buffer,
        signature: Buffer,
        context: bytes,
    ) -> bool:
        """Whether `signature` over `message` under `context` is valid."""
        ...

    def verify_many(
        self,
        scheme: Scheme,
        public_keys: Sequence[bytes],
        messages: Sequence[Buffer],
        signatures: Sequence[Buffer],
        context: bytes,
    ) -> list[bool]:
        """`verify` over rows; the three sequences have the same length."""
        ...
