"""Signatures, key encapsulation, keys and the keystore.

Names are loaded when they are first asked for, so that importing this room costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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

_HOME = {
    "BatchVerifier": "verify",
    "Choice": "choice",
    "ColumnVerifier": "verify",
    "Encapsulation": "kem",
    "Kem": "kem",
    "KemKeyPair": "kem",
    "KeyPair": "key_pair",
    "KeystoreHeader": "keystore",
    "Provider": "providers",
    "Selection": "providers",
    "Signer": "keys",
    "SigningKey": "providers",
    "choose": "choice",
    "development_key": "keys",
    "liboqs_kem": "kem",
    "openssl_kem": "kem",
    "provider": "providers",
    "read_keystore": "keystore",
    "read_keystore_header": "keystore",
    "read_passphrase": "keystore",
    "require_development": "keys",
    "select_provider": "providers",
    "simulator_provider": "providers.keyed_hash",
    "write_keystore": "keystore",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


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
