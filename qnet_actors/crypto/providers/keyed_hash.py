"""The simulator's scheme: keyed BLAKE3, fast, and no protection at all.

The public key is the key of the hash, so whoever can verify can also forge.  The simulator checks
orderings and faults, not forgeries, and pays two microseconds where ML-DSA costs hundreds.  Nothing
but the simulator may offer it: `provider("auto")` never does, and asking for it by name is refused.
It holds the GIL.
"""

from __future__ import annotations

import hmac
from typing import Final

from blake3 import __version__ as blake3_version
from blake3 import blake3

from qnet_actors.crypto.providers.classical import frame
from qnet_actors.crypto.providers.engines import EngineProvider
from qnet_actors.crypto.providers.seam import Buffer, SigningKey
from qnet_actors.wire.hashing import hash32
from qnet_actors.wire.schemes import Scheme

_CONTEXT: Final = "qnet simulator key v1"


class KeyedHashSigningKey:
    """A loaded key of the simulator."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, message: bytes, context: bytes) -> bytes:
        """The 32-byte keyed hash of the framed message."""
        return blake3(frame(Scheme.KEYED_HASH, context, message), key=self._key).digest()


class KeyedHashEngine:
    """Keyed BLAKE3 in the shape of a signature scheme."""

    def public_key(self, seed: bytes) -> bytes:
        """The 32-byte key that signs and verifies."""
        return hash32(_CONTEXT, seed)

    def signing_key(self, seed: bytes) -> SigningKey:
        """Load the key of a seed."""
        return KeyedHashSigningKey(self.public_key(seed))

    def verify(self, public_key: bytes, message: Buffer, signature: Buffer, context: bytes) -> bool:
        """Whether `signature` is the keyed hash."""
        expected = blake3(frame(Scheme.KEYED_HASH, context, message), key=public_key).digest()
        return hmac.compare_digest(expected, signature)


def simulator_provider() -> EngineProvider:
    """The provider of the simulator: scheme 255 and nothing else."""
    return EngineProvider(
        "keyed-hash", blake3_version, {Scheme.KEYED_HASH: KeyedHashEngine()}, releases_gil=False
    )
