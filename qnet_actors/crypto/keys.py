"""Signers and development keys.

Key ids and addresses are part of the wire format and live in `qnet_actors.wire`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from qnet_actors.crypto.key_pair import KeyPair
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import hash32
from qnet_actors.wire.schemes import Scheme

if TYPE_CHECKING:
    from qnet_actors.crypto.providers.seam import Provider

ROLE_BYTES_MAX: Final = 64

_DEVELOPMENT_CONTEXT: Final = "qnet development key v1"
# Published on purpose: whoever reads this line can sign with every development key.
DEVELOPMENT_SEED: Final = b"qnet development keys are public"


class Signer:
    """A loaded key that signs; it keeps the provider's expanded key and shows no secret.

    Loading once matters: deriving the key from its seed costs 160-230 us with OpenSSL and 40-80 us
    with liboqs, where a signature costs 1,000 and 110.
    """

    __slots__ = ("_signing_key", "key_id", "public_key", "scheme")

    def __init__(self, key_pair: KeyPair, provider: Provider) -> None:
        """Load `key_pair` into `provider`.

        Raises `QnetError` with UNKNOWN_SCHEME or INVALID_PARAMETER.
        """
        self.scheme = key_pair.scheme
        self.public_key = key_pair.public_key
        self.key_id = key_pair.key_id
        self._signing_key = provider.signing_key(key_pair.scheme, key_pair.secret)

    def sign(self, message: bytes, context: bytes) -> bytes:
        """The signature over `message` under `context` (at most 255 bytes)."""
        return self._signing_key.sign(message, context)

    def __repr__(self) -> str:
        return f"Signer(scheme={self.scheme.name}, key_id={self.key_id.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signer stays in its process; load it from the keystore where it signs")


def development_key(
    role: str,
    index: int,
    scheme: Scheme = Scheme.ML_DSA_65,
    provider: Provider | None = None,
) -> KeyPair:
    """The development key of `role` ("account", "validator", ...) and `index` (a u64).

    The same arguments give the same key on every machine and with every provider.  Such keys are
    public; pass `require_development` before using one for anything.
    """
    name = role.encode()
    if not 0 < len(name) <= ROLE_BYTES_MAX:
        raise QnetError(Code.INVALID_PARAMETER, f"a role has 1 to {ROLE_BYTES_MAX} bytes")
    if not 0 <= index < 2**64:
        raise QnetError(Code.INVALID_PARAMETER, "the index of a development key is a u64")
    if provider is None:
        from qnet_actors.crypto.providers import select_provider

        provider = select_provider().provider
    seed = hash32(
        _DEVELOPMENT_CONTEXT,
        DEVELOPMENT_SEED,
        bytes((scheme, len(name))),
        name,
        index.to_bytes(8, "little"),
    )
    return provider.generate(scheme, seed)


def require_development(genesis_is_dev: bool) -> None:
    """Refuse development keys unless the network's genesis is marked dev.

    Raises `QnetError(DEVELOPMENT_KEY_REFUSED)`.
    """
    if genesis_is_dev is not True:
        raise QnetError(
            Code.DEVELOPMENT_KEY_REFUSED,
            "development keys are public; make a keystore, or mark the genesis dev",
        )
