"""A provider made of engines: one place checks lengths, whatever the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qnet_actors.crypto.key_pair import SEED_BYTES, KeyPair
from qnet_actors.crypto.providers.seam import (
    CONTEXT_BYTES_MAX,
    Buffer,
    SchemeEngine,
    SigningKey,
)
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme


class CheckedSigningKey:
    """A loaded key that refuses an oversized context, and whose `repr` shows nothing."""

    __slots__ = ("_inner",)

    def __init__(self, inner: SigningKey) -> None:
        self._inner = inner

    def sign(self, message: bytes, context: bytes) -> bytes:
        """The signature over `message` under `context`."""
        if len(context) > CONTEXT_BYTES_MAX:
            raise QnetError(
                Code.INVALID_PARAMETER, f"a signature context has at most {CONTEXT_BYTES_MAX} bytes"
            )
        return self._inner.sign(message, context)


class EngineProvider:
    """The `Provider` over a table of engines."""

    def __init__(
        self,
        name: str,
        version: str,
        engines: Mapping[Scheme, SchemeEngine],
        *,
        releases_gil: bool,
    ) -> None:
        self.name = name
        self.version = version
        self.releases_gil = releases_gil
        self.schemes = frozenset(engines)
        self._engines = dict(engines)

    def __repr__(self) -> str:
        return f"EngineProvider({self.name} {self.version})"

    def _engine(self, scheme: Scheme) -> SchemeEngine:
        engine = self._engines.get(scheme)
        if engine is None:
            raise QnetError(
                Code.UNKNOWN_SCHEME, f"the {self.name} provider has no scheme {int(scheme)}"
            )
        return engine

    def _engine_for_secret(self, scheme: Scheme, secret: bytes) -> SchemeEngine:
        engine = self._engine(scheme)
        if len(secret) != SEED_BYTES:
            raise QnetError(Code.INVALID_PARAMETER, f"a secret is a seed of {SEED_BYTES} bytes")
        return engine

    def generate(self, scheme: Scheme, seed: bytes) -> KeyPair:
        """The key pair of a 32-byte seed."""
        engine = self._engine_for_secret(scheme, seed)
        return KeyPair(scheme, engine.public_key(seed), seed)

    def signing_key(self, scheme: Scheme, secret: bytes) -> SigningKey:
        """Load a 32-byte seed for many signatures."""
        return CheckedSigningKey(self._engine_for_secret(scheme, secret).signing_key(secret))

    def sign(self, scheme: Scheme, secret: bytes, message: bytes, context: bytes) -> bytes:
        """One signature over `message` under `context`."""
        return self.signing_key(scheme, secret).sign(message, context)

    def verify(
        self,
        scheme: Scheme,
        public_key: bytes,
        message: Buffer,
        signature: Buffer,
        context: bytes,
    ) -> bool:
        """Whether `signature` is valid; any wrong length is False."""
        engine = self._engine(scheme)
        sizes = SCHEME_SIZES[scheme]
        if (
            len(public_key) != sizes.public_key
            or len(signature) != sizes.signature
            or len(context) > CONTEXT_BYTES_MAX
        ):
            return False
        return engine.verify(public_key, message, signature, context)

    def verify_many(
        self,
        scheme: Scheme,
        public_keys: Sequence[bytes],
        messages: Sequence[Buffer],
        signatures: Sequence[Buffer],
        context: bytes,
    ) -> list[bool]:
        """`verify` row by row; raises ValueError when the sequences differ in length."""
        return [
            self.verify(scheme, public_key, message, signature, context)
            for public_key, message, signature in zip(
                public_keys, messages, signatures, strict=True
            )
        ]
