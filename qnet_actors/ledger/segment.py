"""One file of the block log: a DuckDB database that takes blocks until it is full.

Settings that were measured (DuckDB 2.0, two cores):

- No automatic checkpoint.  A checkpoint writes the last row group anew, with every blob in it, so
  that its cost grows with the file: 2 s at 300 MB.  A file is checkpointed once, when it is full;
  16 MB take 20 ms.  Until then its rows stay in memory, so a file must be far smaller than
  `memory_limit`: over that, commits fail.
- A commit to another file waits until the disk has taken what a checkpoint flushes: 15 ms for
  32 MB.  So files are small, and flushed while they are written: 5 ms for 16 MB.
- No compression: zstd takes ten times as long, and 64 MB of memory to read one row.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Final

import duckdb

from qnet_actors.ledger.retention import ARCHIVE, Retention
from qnet_actors.ledger.writes import BlockWrite
from qnet_actors.wire.blocks import CERTIFICATE_CODEC, Certificate
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import SNAPSHOT_SECTION_ACCOUNTS_MAX

FORMAT_VERSION: Final = 1
_NEVER: Final = "1TB"
_FLUSH_PAUSE_SECONDS: Final = 0.0005
# How DuckDB passes on ENOSPC, EDQUOT and EFBIG.
_FULL: Final = ("No space left", "Disk quota exceeded", "File too large")
TABLES: Final = """
CREATE TABLE meta(version UINTEGER, chain_id BLOB);
CREATE TABLE blocks(
    height UBIGINT, hash BLOB, timestamp_ms UBIGINT, header BLOB, record BLOB);
CREATE TABLE certificates(height UBIGINT, certificate BLOB);
"""


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


def connect(path: Path, options: LogOptions, *, read_only: bool = False) -> Any:
    """A connection to a database file, locked to the settings above.

    Raises `QnetError(DATA_CORRUPT)` where the file does not open.
    """
    config: dict[str, Any] = {
        "memory_limit": f"{options.memory_limit_mb}MB",
        "threads": 1,
        "async_threads": 1,
        "checkpoint_threshold": _NEVER,
        "auto_checkpoint_skip_wal_threshold": 2**40,
        "force_compression": "uncompressed",
        "fsync_mode": "STANDARD" if options.fsync else "NONE",
        "enable_external_access": False,
        "lock_configuration": True,
    }
    try:
        return duckdb.connect(str(path), read_only=read_only, config=config)
    except duckdb.Error as error:
        raise QnetError(
            Code.DATA_CORRUPT,
            f"{path} does not open: {_first_line(error)}; set the file aside and resync",
        ) from error


def create_database(path: Path, tables: str, chain_id: bytes, options: LogOptions) -> None:
    """Makes a database whole or not at all: under another name, checkpointed, then renamed."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    fresh.with_name(fresh.name + ".wal").unlink(missing_ok=True)
    with guarded("a database could not be created"):
        connection = connect(fresh, options)
        connection.execute(tables)
        connection.execute("INSERT INTO meta VALUES (?, ?)", [FORMAT_VERSION, chain_id])
        connection.execute("CHECKPOINT")
        connection.close()
        _put_in_place(fresh, path)


def copy_database(content: bytes, path: Path) -> None:
    """Makes a database that was read from another, whole or not at all."""
    fresh = path.with_suffix(".new")
    with guarded("a database could not be created"):
        fresh.write_bytes(content)
        _put_in_place(fresh, path)


def _put_in_place(fresh: Path, path: Path) -> None:
    sync(fresh)
    fresh.rename(path)
    sync(path.parent)


def check_meta(connection: Any, path: Path, chain_id: bytes) -> None:
    """Raises `QnetError` where a database is of another format version or network."""
    with guarded(f"{path} could not be read", Code.DATA_CORRUPT):
        row = connection.execute("SELECT version, chain_id FROM meta").fetchone()
    if row is None or row[0] != FORMAT_VERSION:
        raise QnetError(
            Code.DATA_VERSION,
            f"{path} has format {row and row[0]}, this release knows {FORMAT_VERSION}; start the "
            "release that wrote it",
        )
    if row[1] != chain_id:
        raise QnetError(Code.WRONG_CHAIN, f"{path} belongs to another network")


class Segment:
    """Blocks of consecutive heights, and the certificates that came while it was written."""

    def __init__(self, path: Path, chain_id: bytes, options: LogOptions) -> None:
        self.path: Final = path
        self._fsync: Final = options.fsync
        self._connection = connect(path, options)
        check_meta(self._connection, path, chain_id)
        with guarded(f"{path} could not be read", Code.DATA_CORRUPT):
            row = self._connection.execute(
                "SELECT count(*), min(height), max(height) FROM blocks"
            ).fetchone()
        self.count, first, last = row
        self.first_height: int | None = first
        self.last_height: int | None = last
        self.size_bytes = 0
        """Of the records, once `measure` was called: whoever only reads does without."""
        if self.count and self.count != last - first + 1:
            raise QnetError(Code.DATA_CORRUPT, f"{path} lacks some of its blocks")

    @property
    def unused(self) -> bool:
        """Whether nothing was ever written to it."""
        return not self.count and not self._read("SELECT 1 FROM certificates LIMIT 1", [])

    def append(self, blocks: Sequence[BlockWrite], certificates: Sequence[Certificate]) -> None:
        """Makes blocks and certificates durable in one transaction."""
        execute = self._connection.execute
        with guarded("the block log could not be written"):
            execute("BEGIN")
            for block in blocks:
                header = block.record.header
                execute(
                    "INSERT INTO blocks VALUES (?, ?, ?, ?, ?)",
                    [
                        header.height,
                        block.block_hash,
                        header.timestamp_ms,
                        encode(header),
                        block.encoded,
                    ],
                )
            for certificate in certificates:
                execute(
                    "INSERT INTO certificates VALUES (?, ?)",
                    [certificate.checkpoint.height, encode(certificate)],
                )
            execute("COMMIT")
        if blocks:
            self.first_height = self.first_height or blocks[0].record.header.height
            self.last_height = blocks[-1].record.header.height
            self.count += len(blocks)
            self.size_bytes += sum(len(block.encoded) for block in blocks)

    def measure(self) -> None:
        """Finds how full the file is, for whoever goes on writing to it."""
        rows = self._read("SELECT coalesce(sum(octet_length(record)), 0) FROM blocks", [])
        self.size_bytes = int(rows[0][0])

    def seal(self) -> None:
        """Moves everything from the write-ahead log to the file."""
        with guarded("the block log could not be checkpointed"):
            if not self._fsync:
                self._connection.execute("CHECKPOINT")
                return
            with _flushed_meanwhile(self.path):
                self._connection.execute("CHECKPOINT")

    def sizes(self, first_height: int, count_max: int) -> list[int]:
        """The sizes in bytes of consecutive records."""
        rows = self._read(
            "SELECT octet_length(record) FROM blocks WHERE height >= ? AND height < ? "
            "ORDER BY height",
            [first_height, first_height + count_max],
        )
        return [row[0] for row in rows]

    def records(self, first_height: int, count_max: int) -> list[bytes]:
        return self._blobs("record", first_height, count_max)

    def headers(self, first_height: int, count_max: int) -> list[bytes]:
        return self._blobs("header", first_height, count_max)

    def height_of(self, block_hash: bytes) -> int | None:
        rows = self._read("SELECT height FROM blocks WHERE hash = ?", [block_hash])
        return rows[0][0] if rows else None

    def hashes(self) -> list[tuple[int, bytes]]:
        """(height, hash) of all blocks in order."""
        return self._read("SELECT height, hash FROM blocks ORDER BY height", [])

    def certificate_within(self, first_height: int, last_height: int) -> Certificate | None:
        """The certificate of the highest checkpoint in the range that this file holds one of."""
        rows = self._read(
            "SELECT certificate FROM certificates WHERE height BETWEEN ? AND ? "
            "ORDER BY height DESC LIMIT 1",
            [first_height, last_height],
        )
        return CERTIFICATE_CODEC.decode(rows[0][0]) if rows else None

    def certificate_from(self, height: int) -> Certificate | None:
        """The certificate of the lowest checkpoint at or above `height` that this file holds."""
        rows = self._read(
            "SELECT certificate FROM certificates WHERE height >= ? ORDER BY height LIMIT 1",
            [height],
        )
        return CERTIFICATE_CODEC.decode(rows[0][0]) if rows else None

    def close(self) -> None:
        self._connection.close()

    def _blobs(self, column: str, first_height: int, count_max: int) -> list[bytes]:
        rows = self._read(
            f"SELECT {column} FROM blocks WHERE height >= ? AND height < ? ORDER BY height",
            [first_height, first_height + count_max],
        )
        return [row[0] for row in rows]

    def _read(self, query: str, parameters: list[Any]) -> list[Any]:
        """Rows of a query on a cursor of its own, which sees what is committed."""
        with guarded(f"{self.path} could not be read"):
            cursor = self._connection.cursor()
            try:
                rows: list[Any] = cursor.execute(query, parameters).fetchall()
            finally:
                cursor.close()
        return rows


class guarded:  # noqa: N801 - a context manager, named as it reads
    """Turns a failure of the database into a `QnetError`: a fault of the node, which stops it."""

    def __init__(self, what: str, code: Code = Code.INTERNAL) -> None:
        self._what = what
        self._code = code

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, duckdb.Error | OSError):
            text = _first_line(error)
            code = Code.DISK_FULL if any(sign in text for sign in _FULL) else self._code
            raise QnetError(code, f"{self._what}: {text}") from error


@contextmanager
def _flushed_meanwhile(path: Path) -> Iterator[None]:
    """Flushes a file again and again while it is written, so that little is left for the end."""
    done = Event()

    def flush() -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            while not done.wait(_FLUSH_PAUSE_SECONDS):
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    with ThreadPoolExecutor(1, thread_name_prefix="ledger-flush") as pool:
        flushing = pool.submit(flush)
        try:
            yield
        finally:
            done.set()
        flushing.result()


def write_whole(path: Path, parts: Iterable[bytes], *, fsync: bool) -> None:
    """Replaces a file at once: a crash leaves the old one, or none, or all of the new one."""
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.writelines(parts)
        file.flush()
        if fsync:
            os.fsync(file.fileno())
    fresh.rename(path)
    if fsync:
        sync(path.parent)


def sync(path: Path) -> None:
    """Flushes a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
