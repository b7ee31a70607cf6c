"""DuckDB files of a ledger, and how they are opened, made and checked.

An instance of DuckDB takes 30 ms of CPU to start and 10 ms to end, beside which commits wait; a
file takes 1 ms to attach to one that runs.  So the files of a block log share an instance, and the
memory that it may take.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

from qnet_actors.durable import sync
from qnet_actors.ledger.retention import ARCHIVE, Retention
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import SNAPSHOT_SECTION_ACCOUNTS_MAX

FORMAT_VERSION: Final = 1
_NEVER: Final = "1TB"
# What fails for want of memory, or since the ledger ends, says nothing of a file.
_NO_DAMAGE: Final = (
    duckdb.ConnectionException,
    duckdb.InterruptException,
    duckdb.OutOfMemoryException,
)
# How DuckDB passes on ENOSPC, EDQUOT and EFBIG.
_FULL: Final = ("No space left", "Disk quota exceeded", "File too large")


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How the files of a block log are kept."""

    fsync: bool = True
    """False: durable against the death of the process only."""
    memory_limit_mb: int = 256
    segment_size_bytes: int = 16 * 1024 * 1024
    section_accounts_max: int = SNAPSHOT_SECTION_ACCOUNTS_MAX
    """Of snapshots."""
    retention: Retention = ARCHIVE


class Databases:
    """The database files of one directory, attached to one instance of DuckDB.

    May be used from any thread.  A file's tables are named with what `attach` returns before them.
    """

    def __init__(self, directory: Path, options: LogOptions) -> None:
        self._options: Final = options
        self._instance = duckdb.connect(":memory:", config=_settings(options))
        with guarded("the database could not be started"):
            execute = self._instance.execute
            execute(f"SET allowed_directories = [{_literal(f'{directory}/')}]")
            execute("SET enable_external_access = false")
            execute("SET lock_configuration = true")

    def attach(self, path: Path) -> str:
        """Opens a file, and makes an empty one where there is none; returns its name in queries.

        Raises `QnetError(DATA_CORRUPT)` where the file does not open.
        """
        name = _name(path)
        try:
            self._execute(f"ATTACH {_literal(str(path))} AS {name}")
        except duckdb.Error as error:
            raise _does_not_open(path, error) from error
        return name

    def detach(self, path: Path) -> None:
        """Closes a file; nobody may be using it."""
        with guarded(f"{path} could not be closed"):
            self._execute(f"DETACH {_name(path)}")

    def create(self, path: Path, tables: str, chain_id: bytes) -> None:
        """Makes a database whole or not at all: under another name, checkpointed, then renamed."""
        fresh = _fresh(path)
        name = self.attach(fresh)
        cursor = self.cursor()
        with guarded("a database could not be created"):
            try:
                cursor.execute(f"USE {name}")
                _fill(cursor, tables, chain_id)
            finally:
                cursor.close()
        self.detach(fresh)
        with guarded("a database could not be created"):
            _put_in_place(fresh, path)

    def cursor(self) -> Any:
        """A connection of its own, which sees what is committed."""
        return self._instance.cursor()

    def close(self) -> None:
        """Ends the instance, and closes whatever is attached to it."""
        self._instance.close()

    def _execute(self, statement: str) -> None:
        cursor = self.cursor()
        try:
            cursor.execute(statement)
        finally:
            cursor.close()


def connect(path: Path, options: LogOptions, *, read_only: bool = False) -> Any:
    """A connection to a database file with an instance of its own.

    Raises `QnetError(DATA_CORRUPT)` where the file does not open.
    """
    config = _settings(options) | {"enable_external_access": False, "lock_configuration": True}
    try:
        return duckdb.connect(str(path), read_only=read_only, config=config)
    except duckdb.Error as error:
        raise _does_not_open(path, error) from error


def create_database(path: Path, tables: str, chain_id: bytes, options: LogOptions) -> None:
    """Makes a database as `Databases.create` does, in an instance of its own."""
    fresh = _fresh(path)
    with guarded("a database could not be created"):
        connection = connect(fresh, options)
        try:
            _fill(connection, tables, chain_id)
        finally:
            connection.close()
        _put_in_place(fresh, path)


def copy_database(content: bytes, path: Path, spare: Path) -> None:
    """Makes a database that was read from another, whole or not at all.

    A `spare` file, if there is one that has no other name, is written over: what follows the
    content is of no database yet, and its place on the disk is there already.
    """
    fresh = path.with_suffix(".new")
    with guarded("a database could not be created"):
        if spare.exists() and spare.stat().st_nlink == 1:
            spare.rename(fresh)
        else:
            fresh.touch()
        with fresh.open("r+b") as file:
            file.write(content)
        _put_in_place(fresh, path)


def check_meta(connection: Any, path: Path, chain_id: bytes, name: str = "") -> None:
    """Raises `QnetError` where a database is of another format version or network.

    `name`: what `Databases.attach` returned, if the database is attached.
    """
    table = f"{name}.meta" if name else "meta"
    with guarded(f"{path} could not be read", Code.DATA_CORRUPT):
        row = connection.execute(f"SELECT version, chain_id FROM {table}").fetchone()
    if row is None or row[0] != FORMAT_VERSION:
        raise QnetError(
            Code.DATA_VERSION,
            f"{path} has format {row and row[0]}, this release knows {FORMAT_VERSION}; start the "
            "release that wrote it",
        )
    if row[1] != chain_id:
        raise QnetError(Code.WRONG_CHAIN, f"{path} belongs to another network")


class guarded:  # noqa: N801 - a context manager, named as it reads
    """Turns a failure of the database into a `QnetError`: a fault of the node, which stops it.

    `code`: DATA_CORRUPT where the file is to blame for what can not be read.
    """

    def __init__(self, what: str, code: Code = Code.INTERNAL) -> None:
        self._what = what
        self._code = code

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, duckdb.Error | OSError):
            text = _first_line(error)
            code = Code.INTERNAL if isinstance(error, _NO_DAMAGE) else self._code
            if any(sign in text for sign in _FULL):
                code = Code.DISK_FULL
            raise QnetError(code, f"{self._what}: {text}") from error


def _settings(options: LogOptions) -> dict[str, Any]:
    return {
        "memory_limit": f"{options.memory_limit_mb}MB",
        "threads": 1,
        "async_threads": 1,
        "checkpoint_threshold": _NEVER,
        "auto_checkpoint_skip_wal_threshold": 2**40,
        "force_compression": "uncompressed",
        "fsync_mode": "STANDARD" if options.fsync else "NONE",
    }


def _fresh(path: Path) -> Path:
    """The name under which a database is made, which nothing has any more."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    fresh.with_name(fresh.name + ".wal").unlink(missing_ok=True)
    return fresh


def _fill(connection: Any, tables: str, chain_id: bytes) -> None:
    connection.execute(tables)
    connection.execute("INSERT INTO meta VALUES (?, ?)", [FORMAT_VERSION, chain_id])
    connection.execute("CHECKPOINT")


def _put_in_place(fresh: Path, path: Path) -> None:
    sync(fresh)
    fresh.rename(path)
    sync(path.parent)


def _name(path: Path) -> str:
    return '"' + path.stem.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _does_not_open(path: Path, error: BaseException) -> QnetError:
    return QnetError(
        Code.DATA_CORRUPT,
        f"{path} does not open: {_first_line(error)}; set the file aside and resync",
    )


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
