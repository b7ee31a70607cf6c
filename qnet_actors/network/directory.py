"""A validator's data directory: who may use it, which network's it is, where its peers listen."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec

from qnet_actors import durable
from qnet_actors.network import migration
from qnet_actors.wire.codec import U16, Codec, Digest, Struct, Unsigned, encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import VALIDATORS_MAX

T = TypeVar("T")

FORMAT_VERSION: Final = 2
ENDPOINTS_MAX: Final = 4 * VALIDATORS_MAX
MACHINE_NAME_LENGTH_MAX: Final = 63
"""Of a label in Ray."""


class Endpoint(Struct, frozen=True):
    """Where the links of the validator with a key listen."""

    key_id: Digest
    host: Annotated[str, msgspec.Meta(max_length=255)]
    port: U16


class _Identity(Struct, frozen=True):
    version: Unsigned
    chain_id: Digest
    index: U16
    incarnation: Unsigned


class _Version(msgspec.Struct, array_like=True):
    """Of an identity, whatever comes after it."""

    version: Unsigned


class _Endpoints(Struct, frozen=True):
    endpoints: Annotated[tuple[Endpoint, ...], msgspec.Meta(max_length=ENDPOINTS_MAX)]


class _Shards(Struct, frozen=True):
    count: Unsigned


class _Machines(Struct, frozen=True):
    names: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=MACHINE_NAME_LENGTH_MAX)], ...],
        msgspec.Meta(max_length=VALIDATORS_MAX),
    ]


_VERSION: Final = msgspec.msgpack.Decoder(_Version)
_IDENTITY: Final = Codec[_Identity](_Identity, 4_096)
_SHARDS: Final = Codec[_Shards](_Shards, 64)
_MACHINES: Final = Codec[_Machines](_Machines, 64 * 1024)
_ENDPOINTS: Final = Codec[_Endpoints](_Endpoints, 256 * 1024)


class DataDirectory:
    """An opened data directory, held exclusively until `close` or the end of the process.

    Two processes with one directory would sign as one validator; the lock is the kernel's, so a
    killed process leaves none behind.  `incarnation` rises by one at each opening.

    Raises `QnetError` with DATA_DIRECTORY_LOCKED, DATA_VERSION, DATA_CORRUPT, or
    CONFIGURATION_INVALID where the directory is another network's or another validator's.
    """

    def __init__(self, path: Path, chain_id: bytes, index: int) -> None:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path: Final = path
        self._lock = _locked(path)
        try:
            self.incarnation: Final = self._identify(chain_id, index)
        except BaseException:
            self.close()
            raise

    def _identify(self, chain_id: bytes, index: int) -> int:
        file = self.path / "identity"
        version, incarnation = FORMAT_VERSION, 1
        if file.exists():
            version = _known_version(file)
            identity = _decode(_IDENTITY, file)
            if identity.chain_id != chain_id or identity.index != index:
                raise QnetError(
                    Code.CONFIGURATION_INVALID,
                    f"{self.path} belongs to another network or validator; choose another one",
                )
            incarnation = identity.incarnation + 1
        migration.finish(self.path, version)
        while version < FORMAT_VERSION:
            migration.prepare(self.path, version)
            version += 1
            durable.write_whole(file, [encode(_Identity(version, chain_id, index, incarnation))])
            migration.finish(self.path, version)
        durable.write_whole(file, [encode(_Identity(FORMAT_VERSION, chain_id, index, incarnation))])
        return incarnation

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where all validators, this one included, listened last; empty at first."""
        file = self.path / "addresses"
        return _decode(_ENDPOINTS, file).endpoints if file.exists() else ()

    def save_endpoints(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Keeps them, so that a restart alone finds its peers."""
        durable.write_whole(self.path / "addresses", [encode(_Endpoints(endpoints))])

    def keep_shards(self, count: int) -> None:
        """Keeps how many mempool shards there are: their batches lie apart.

        Raises `QnetError(CONFIGURATION_INVALID)` where it was another number before: a shard would
        not find what it has told others that it holds.
        """
        file = self.path / "shards"
        known = _decode(_SHARDS, file).count if file.exists() else None
        if known is None and (self.path / "batches").exists():
            known = 1
        if known is not None and known != count:
            raise QnetError(
                Code.CONFIGURATION_INVALID,
                f"{self.path} was made with {known} mempool shards, not {count}; "
                "their number stays as it was",
            )
        if not file.exists():
            durable.write_whole(file, [encode(_Shards(count))])

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def known_machines(path: Path) -> tuple[str, ...]:
    """On which machine each validator of the network with its data in `path` lives, by index.

    Empty at first.  Raises `QnetError(DATA_CORRUPT)`.
    """
    file = path / "machines"
    return _decode(_MACHINES, file).names if file.exists() else ()


def save_machines(path: Path, names: tuple[str, ...]) -> None:
    """Keeps them: a validator that started elsewhere would not know what it has signed."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    durable.write_whole(path / "machines", [encode(_Machines(names))])


def set_ledger_aside(path: Path) -> Path:
    """Renames a stopped validator's ledger, so that the next start takes it from peers.

    The journal stays: it knows what this validator has signed.  Returns the new name.  Raises
    `QnetError`: NOT_FOUND where `path` is no data directory or has no ledger,
    DATA_DIRECTORY_LOCKED where the validator runs.
    """
    if not (path / "identity").is_file():
        raise QnetError(Code.NOT_FOUND, f"{path} is no validator's data directory")
    lock = _locked(path)
    try:
        ledger = path / "ledger"
        if not ledger.is_dir():
            raise QnetError(Code.NOT_FOUND, f"{path} has no ledger; a start fetches one")
        number = 1
        while (aside := path / f"ledger-aside-{number}").exists():
            number += 1
        ledger.rename(aside)
        durable.sync(path)
        return aside
    finally:
        os.close(lock)


def _locked(path: Path) -> int:
    """The descriptor that holds a directory's lock."""
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise QnetError(Code.DATA_DIRECTORY_LOCKED, f"{path} is in use") from None
    return lock


def _known_version(identity: Path) -> int:
    """The format of a directory; raises `QnetError(DATA_VERSION)` where no steps lead from it."""
    try:
        version = _VERSION.decode(identity.read_bytes()).version
    except (msgspec.DecodeError, RecursionError) as error:
        raise QnetError(Code.DATA_CORRUPT, f"{identity.name}: {error}") from None
    if not migration.leads_to(version, FORMAT_VERSION):
        raise QnetError(
            Code.DATA_VERSION,
            f"{identity.parent} has format {version}, this release knows {FORMAT_VERSION}; "
            "start the release that wrote it",
        )
    return version


def _decode(codec: Codec[T], file: Path) -> T:
    try:
        return codec.decode(file.read_bytes())
    except QnetError as error:
        raise QnetError(Code.DATA_CORRUPT, f"{file.name}: {error.detail}") from error
