"""The encrypted keystore: one key a file, scrypt and AES-256-GCM.

A keystore is a JSON document of at most 64 KiB; docs/reference/keys.md describes its fields.  The
header (everything but the ciphertext) is authenticated as associated data, so nobody can swap the
public key or weaken the parameters unnoticed.  What is read is hostile until checked: scrypt's
parameters are bounded before any memory is taken.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from qnet_actors.crypto.key_pair import SEED_BYTES, KeyPair
from qnet_actors.crypto.providers import openssl_provider
from qnet_actors.durable import sync
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme

VERSION: Final = 1
FILE_BYTES_MAX: Final = 64 * 1024
PASSPHRASE_BYTES_MAX: Final = 1024

# RFC 7914 section 2: memory is 128 * r * 2^log2_n bytes, 128 MiB by default and 512 MiB at most.
LOG2_N_DEFAULT: Final = 17
LOG2_N_MIN: Final = 14
LOG2_N_MAX: Final = 19
BLOCK_SIZE: Final = 8
PARALLELISM_MAX: Final = 4

_SALT_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16

PASSPHRASE_VARIABLE: Final = "QNET_PASSPHRASE"
PASSPHRASE_FILE_VARIABLE: Final = "QNET_PASSPHRASE_FILE"


class ScryptParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The key derivation: scrypt with N = 2^log2_n (RFC 7914)."""

    log2_n: Annotated[int, msgspec.Meta(ge=LOG2_N_MIN, le=LOG2_N_MAX)]
    r: Annotated[int, msgspec.Meta(ge=BLOCK_SIZE, le=BLOCK_SIZE)]
    p: Annotated[int, msgspec.Meta(ge=1, le=PARALLELISM_MAX)]
    salt: Annotated[bytes, msgspec.Meta(min_length=_SALT_BYTES, max_length=_SALT_BYTES)]


class KeystoreHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a keystore says in the clear; its canonical JSON is the associated data."""

    version: Literal[1]
    scheme: Scheme
    public_key: Annotated[bytes, msgspec.Meta(max_length=8192)]
    kdf: Literal["scrypt"]
    scrypt: ScryptParameters
    cipher: Literal["aes-256-gcm"]
    nonce: Annotated[bytes, msgspec.Meta(min_length=_NONCE_BYTES, max_length=_NONCE_BYTES)]


class _KeystoreFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    header: KeystoreHeader
    ciphertext: Annotated[
        bytes,
        msgspec.Meta(min_length=SEED_BYTES + _TAG_BYTES, max_length=SEED_BYTES + _TAG_BYTES),
    ]


_decoder: Final = msgspec.json.Decoder(_KeystoreFile)


def write_keystore(
    path: Path,
    key_pair: KeyPair,
    passphrase: bytes,
    *,
    log2_n: int = LOG2_N_DEFAULT,
) -> None:
    """Encrypt `key_pair` into a new file of mode 0600, on disk when this returns.

    Raises `QnetError` with KEYSTORE_EXISTS (a keystore is never overwritten), BAD_PASSPHRASE (empty
    or too long), SCHEME_REFUSED (the simulator's scheme) or INVALID_PARAMETER, and OSError when the
    folder cannot be written.
    """
    _check_passphrase(passphrase)
    if key_pair.scheme == Scheme.KEYED_HASH:
        raise QnetError(Code.SCHEME_REFUSED, "keys of the simulator are not kept")
    if not LOG2_N_MIN <= log2_n <= LOG2_N_MAX:
        raise QnetError(
            Code.INVALID_PARAMETER, f"log2_n must be {LOG2_N_MIN} to {LOG2_N_MAX}, not {log2_n}"
        )
    if (
        openssl_provider().generate(key_pair.scheme, key_pair.secret).public_key
        != key_pair.public_key
    ):
        raise QnetError(Code.INVALID_PARAMETER, "the public key is not the secret's")
    header = KeystoreHeader(
        version=VERSION,
        scheme=key_pair.scheme,
        public_key=key_pair.public_key,
        kdf="scrypt",
        scrypt=ScryptParameters(log2_n, BLOCK_SIZE, 1, secrets.token_bytes(_SALT_BYTES)),
        cipher="aes-256-gcm",
        nonce=secrets.token_bytes(_NONCE_BYTES),
    )
    ciphertext = _cipher(header, passphrase).encrypt(
        header.nonce, key_pair.secret, _associated_data(header)
    )
    document = msgspec.json.format(msgspec.json.encode(_KeystoreFile(header, ciphertext)), indent=2)
    _write_new(path, document + b"\n")


def read_keystore_header(path: Path) -> KeystoreHeader:
    """What the keystore says without a passphrase.  It is not authenticated.

    Raises `QnetError` with NOT_FOUND or KEYSTORE_MALFORMED.
    """
    return _read(path).header


def read_keystore(path: Path, passphrase: bytes) -> KeyPair:
    """Decrypt the key pair of a keystore.

    Raises `QnetError` with NOT_FOUND, KEYSTORE_MALFORMED, or BAD_PASSPHRASE; the last stands for a
    wrong passphrase and for an altered file alike, and does not tell them apart.
    """
    _check_passphrase(passphrase)
    stored = _read(path)
    header = stored.header
    try:
        secret = _cipher(header, passphrase).decrypt(
            header.nonce, stored.ciphertext, _associated_data(header)
        )
    except InvalidTag:
        raise QnetError(
            Code.BAD_PASSPHRASE, "the passphrase does not open the keystore, or it was altered"
        ) from None
    key_pair = openssl_provider().generate(header.scheme, secret)
    if not hmac.compare_digest(key_pair.public_key, header.public_key):
        raise QnetError(Code.KEYSTORE_MALFORMED, "the keystore's public key is not its secret's")
    return key_pair


def read_passphrase(environment: Mapping[str, str] | None = None) -> bytes:
    """The passphrase from the file that QNET_PASSPHRASE_FILE names, else from QNET_PASSPHRASE.

    One line break at the file's end is not part of it.  Raises `QnetError(BAD_PASSPHRASE)` when
    neither is set, the file cannot be read, or the passphrase is empty or over 1,024 bytes.
    """
    environment = os.environ if environment is None else environment
    if name := environment.get(PASSPHRASE_FILE_VARIABLE):
        try:
            with open(name, "rb") as file:
                passphrase = file.read(PASSPHRASE_BYTES_MAX + 3)
        except OSError as error:
            raise QnetError(
                Code.BAD_PASSPHRASE,
                f"the file that {PASSPHRASE_FILE_VARIABLE} names cannot be read: {error.strerror}",
            ) from None
        passphrase = passphrase.removesuffix(b"\n").removesuffix(b"\r")
    elif text := environment.get(PASSPHRASE_VARIABLE):
        passphrase = text.encode("utf-8", "surrogateescape")
    else:
        raise QnetError(
            Code.BAD_PASSPHRASE, f"set {PASSPHRASE_FILE_VARIABLE} or {PASSPHRASE_VARIABLE}"
        )
    _check_passphrase(passphrase)
    return passphrase


def _check_passphrase(passphrase: bytes) -> None:
    if not 0 < len(passphrase) <= PASSPHRASE_BYTES_MAX:
        raise QnetError(Code.BAD_PASSPHRASE, f"a passphrase has 1 to {PASSPHRASE_BYTES_MAX} bytes")


def _associated_data(header: KeystoreHeader) -> bytes:
    # Encoded from the checked fields, so white space and field order in the file do not matter.
    return msgspec.json.encode(header)


def _cipher(header: KeystoreHeader, passphrase: bytes) -> AESGCM:
    parameters = header.scrypt
    derivation = Scrypt(
        salt=parameters.salt,
        length=32,
        n=1 << parameters.log2_n,
        r=parameters.r,
        p=parameters.p,
    )
    return AESGCM(derivation.derive(passphrase))


def _read(path: Path) -> _KeystoreFile:
    try:
        with open(path, "rb") as file:
            document = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise QnetError(Code.NOT_FOUND, f"no keystore at {path}") from None
    except OSError as error:
        raise QnetError(
            Code.KEYSTORE_MALFORMED, f"the keystore {path} cannot be read: {error.strerror}"
        ) from None
    if len(document) > FILE_BYTES_MAX:
        raise QnetError(Code.KEYSTORE_MALFORMED, f"a keystore has at most {FILE_BYTES_MAX} bytes")
    try:
        stored = _decoder.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise QnetError(
            Code.KEYSTORE_MALFORMED, f"not a keystore of version {VERSION}: {str(error)[:200]}"
        ) from None
    header = stored.header
    if (
        header.scheme == Scheme.KEYED_HASH
        or len(header.public_key) != SCHEME_SIZES[header.scheme].public_key
    ):
        raise QnetError(Code.KEYSTORE_MALFORMED, "the scheme and the public key do not go together")
    return stored


def _write_new(path: Path, document: bytes) -> None:
    """Create `path` whole or not at all, mode 0600, on disk before its name is."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask left of the mode above
            file.write(document)
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link refuses an existing name in one step; a rename would replace it.
            os.link(temporary, path)
        except FileExistsError:
            raise QnetError(Code.KEYSTORE_EXISTS, f"{path} exists; choose another name") from None
    finally:
        os.unlink(temporary)
    sync(path.parent)
