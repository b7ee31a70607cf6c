"""The keys in QNET_HOME, and how a command comes by one."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qnet_actors.client.environment import home_directory
from qnet_actors.wire.codes import Code, QnetError

if TYPE_CHECKING:
    from qnet_actors.crypto import KeyPair, Signer

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SUFFIX: Final = ".json"
DEVELOPMENT_PREFIX: Final = "dev:"
DEVELOPMENT_VALIDATOR_PREFIX: Final = "dev-validator:"
_ROLES: Final = {DEVELOPMENT_PREFIX: "account", DEVELOPMENT_VALIDATOR_PREFIX: "validator"}
_DEVELOPMENT_INDEX_MAX: Final = 2**32


def keys_directory() -> Path:
    """The folder of keystores."""
    return home_directory() / "keys"


def key_path(name: str) -> Path:
    """The keystore of a name; raises `QnetError(INVALID_PARAMETER)` for what is not a name."""
    if not _NAME.fullmatch(name):
        raise QnetError(
            Code.INVALID_PARAMETER,
            "a key's name has 1 to 64 of a-z, 0-9, - and _, and begins with a letter or digit",
        )
    return keys_directory() / f"{name}{_SUFFIX}"


def key_names() -> list[str]:
    """The names of all keystores."""
    folder = keys_directory()
    if not folder.is_dir():
        return []
    names = (path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}"))
    return sorted(name for name in names if _NAME.fullmatch(name))


def public_identity(name: str) -> tuple[int, bytes, bytes]:
    """(scheme, public key, key id) of a named or development key; asks for no passphrase.

    Raises `QnetError`: NOT_FOUND, KEYSTORE_MALFORMED, INVALID_PARAMETER.
    """
    from qnet_actors.crypto import read_keystore_header
    from qnet_actors.wire.schemes import key_id

    if name.startswith(tuple(_ROLES)):
        pair = _development_pair(name)
        return pair.scheme, pair.public_key, pair.key_id
    header = read_keystore_header(_existing(name))
    return header.scheme, header.public_key, key_id(header.scheme, header.public_key)


def load_signer(name: str, passphrase_file: Path | None, development: bool) -> Signer:
    """The signer of a named key, or of a development key where the network is one.

    Raises `QnetError`: NOT_FOUND, BAD_PASSPHRASE, KEYSTORE_MALFORMED, DEVELOPMENT_KEY_REFUSED.
    """
    from qnet_actors.crypto import Signer, read_keystore, require_development, select_provider

    if name.startswith(tuple(_ROLES)):
        require_development(development)
        pair = _development_pair(name)
    else:
        path = _existing(name)
        pair = read_keystore(path, ask_passphrase(passphrase_file, confirm=False))
    return Signer(pair, select_provider().provider)


def ask_passphrase(passphrase_file: Path | None, *, confirm: bool) -> bytes:
    """From the file, else from QNET_PASSPHRASE_FILE or QNET_PASSPHRASE, else from the terminal.

    Raises `QnetError(BAD_PASSPHRASE)` where there is none of them.
    """
    from qnet_actors.crypto import read_passphrase
    from qnet_actors.crypto.keystore import PASSPHRASE_FILE_VARIABLE, PASSPHRASE_VARIABLE

    if passphrase_file is not None:
        return read_passphrase({PASSPHRASE_FILE_VARIABLE: str(passphrase_file)})
    given = os.environ.get(PASSPHRASE_FILE_VARIABLE) or os.environ.get(PASSPHRASE_VARIABLE)
    if given or not sys.stdin.isatty():
        return read_passphrase()
    import getpass

    first = getpass.getpass("Passphrase: ", stream=sys.stderr)
    if confirm and getpass.getpass("Once more: ", stream=sys.stderr) != first:
        raise QnetError(Code.BAD_PASSPHRASE, "the two passphrases differ")
    if not first:
        raise QnetError(Code.BAD_PASSPHRASE, "an empty passphrase protects nothing")
    return first.encode("utf-8", "surrogateescape")


def _existing(name: str) -> Path:
    path = key_path(name)
    if not path.exists():
        raise QnetError(
            Code.NOT_FOUND, f"there is no key {name}; make it with: qnet key new {name}"
        )
    return path


def _development_pair(name: str) -> KeyPair:
    from qnet_actors.crypto import development_key

    prefix, _, text = name.partition(":")
    if not (text.isascii() and text.isdecimal()) or int(text) >= _DEVELOPMENT_INDEX_MAX:
        raise QnetError(
            Code.INVALID_PARAMETER, "a development key is dev:0, dev:1, ..., dev-validator:0, ..."
        )
    return development_key(_ROLES[f"{prefix}:"], int(text))
