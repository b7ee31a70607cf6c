"""Key pairs, as every library makes and takes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from qnet_actors.wire.schemes import Scheme, key_id

SEED_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A scheme, a public key, and the 32-byte seed from which both halves are derived.

    The seed never appears in `repr`, and therefore in no log line that prints the pair.
    """

    scheme: Scheme
    public_key: bytes = field(repr=False)
    secret: bytes = field(repr=False)

    @property
    def key_id(self) -> bytes:
        """The 32-byte key id of the public key."""
        return key_id(self.scheme, self.public_key)
