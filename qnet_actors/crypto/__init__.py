"""Signatures, key encapsulation, keys and the keystore.

Names are loaded when they are first asked for, so that importing this room costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qnet_actors.lazy import lazy

if TYPE_CHECKING:
    from qnet_actors.crypto.choice import Choice, choose
    from qnet_actors.crypto.kem import (
        Encapsulation,
        Kem,
        KemKeyPair,
        liboqs_kem,
        openssl_kem,
    )
    from qnet_actors.crypto.key_pair import KeyPair
    from qnet_actors.crypto.keys import Signer, development_key, require_development
    from qnet_actors.crypto.keystore import (
        KeystoreHeader,
        read_keystore,
        read_keystore_header,
        read_passphrase,
        write_keystore,
    )
    from qnet_actors.crypto.providers import (
        Provider,
        Selection,
        SigningKey,
        provider,
        select_provider,
    )
    from qnet_actors.crypto.providers.keyed_hash import simulator_provider
    from qnet_actors.crypto.verify import BatchVerifier, ColumnVerifier
else:
    __getattr__ = lazy(
        __name__,
        {
            "choice": ("Choice", "choose"),
            "kem": ("Encapsulation", "Kem", "KemKeyPair", "liboqs_kem", "openssl_kem"),
            "key_pair": ("KeyPair",),
            "keys": ("Signer", "development_key", "require_development"),
            "keystore": (
                "KeystoreHeader",
                "read_keystore",
                "read_keystore_header",
                "read_passphrase",
                "write_keystore",
            ),
            "providers": ("Provider", "Selection", "SigningKey", "provider", "select_provider"),
            "providers.keyed_hash": ("simulator_provider",),
            "verify": ("BatchVerifier", "ColumnVerifier"),
        },
    )

__all__ = [
    "BatchVerifier",
    "Choice",
    "ColumnVerifier",
    "Encapsulation",
    "Kem",
    "KemKeyPair",
    "KeyPair",
    "KeystoreHeader",
    "Provider",
    "Selection",
    "Signer",
    "SigningKey",
    "choose",
    "development_key",
    "liboqs_kem",
    "openssl_kem",
    "provider",
    "read_keystore",
    "read_keystore_header",
    "read_passphrase",
    "require_development",
    "select_provider",
    "simulator_provider",
    "write_keystore",
]
