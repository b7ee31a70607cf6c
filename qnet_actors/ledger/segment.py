"""One file of the block log: a DuckDB database that takes blocks until it is full.

Settings that were measured (DuckDB 2.0, two cores):

- No automatic checkpoint.  A checkpoint writes the last row group anew, with every blob in it, so
  that its cost grows with the file: 2 s at 300 MB.  A file is checkpointed once, when it is full;
  16 MB take 20 ms.  Until then its rows stay in memory, so a file must be far smaller than
  `memory_limit`: over that, commits fail.
- A commit to another file waits until the disk has taken what a checkpoint flushes: 11 ms for
  16 MB in new places, half of that in places that the file has.  So files are small, flushed while
  they are written, and made of logs that are not needed any more.
- No compression: zstd takes ten times as long, and 64 MB of memory to read one row.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any, Final

from qnet_actors.ledger.databases import Databases, LogOptions, check_meta, guarded
from qnet_actors.ledger.writes import BlockWrite
from qnet_actors.wire.blocks import CERTIFICATE_CODEC, Certificate
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError

_FLUSH_PAUSE_SECONDS: Final = 0.0005
TABLES: Final = """
CREATE TABLE meta(version UINTEGER, chain_id BLOB);
CREATE TABLE blocks(
    height UBIGINT, hash BLOB, timestamp_ms UBIGINT, header BLOB, record BLOB);
CREATE TABLE certificates(height UBIGINT, certificate BLOB);
"""


class Segment:
    """Blocks of consecutive heights, and the certificates that came while it was written."""

    def __init__(
        self, databases: Databases, path: Path, chain_id: bytes, options: LogOptions
    ) -> None:
        self.path: Final = path
        self._fsync: Final = options.fsync
        self._databases: Final = databases
        self._name: Final = databases.attach(path)
        self._blocks: Final = f"{self._name}.blocks"
        self._certificates: Final = f"{self._name}.certificates"
        self._connection = databases.cursor()
        try:
            check_meta(self._connection, path, chain_id, self._name)
            with guarded(f"{path} could not be read", Code.DATA_CORRUPT):
                row = self._connection.execute(
                    f"SELECT count(*), min(height), max(height) FROM {self._blocks}"
                ).fetchone()
        except QnetError:
            self.close()
            raise
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
        return not self.count and not self._read(f"SELECT 1 FROM {self._certificates} LIMIT 1", [])

    def append(self, blocks: Sequence[BlockWrite], certificates: Sequence[Certificate]) -> None:
        """Makes blocks and certificates durable in one transaction."""
        execute = self._connection.execute
        with guarded("the block log could not be written"):
            execute("BEGIN")
            for block in blocks:
                header = block.record.header
                execute(
                    f"INSERT INTO {self._blocks} VALUES (?, ?, ?, ?, ?)",
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
                    f"INSERT INTO {self._certificates} VALUES (?, ?)",
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
        rows = self._read(f"SELECT coalesce(sum(octet_length(record)), 0) FROM {self._blocks}", [])
        self.size_bytes = int(rows[0][0])

    def seal(self, spare: Path) -> None:
        """Moves everything from the write-ahead log to the file.

        The write-ahead log, which nothing needs then, is left behind under the name `spare`.
        """
        with guarded("the block log could not be checkpointed"):
            spare.unlink(missing_ok=True)
            # There is none if nothing was written since the file was opened, and not all file
            # systems have a second name for a file.
            with suppress(OSError):
                spare.hardlink_to(self.path.with_name(self.path.name + ".wal"))
            if not self._fsync:
                self._connection.execute(f"CHECKPOINT {self._name}")
                return
            with _flushed_meanwhile(self.path):
                self._connection.execute(f"CHECKPOINT {self._name}")

    def sizes(self, first_height: int, count_max: int) -> list[int]:
        """The sizes in bytes of consecutive records."""
        rows = self._read(
            f"SELECT octet_length(record) FROM {self._blocks} WHERE height >= ? AND height < ? "
            "ORDER BY height",
            [first_height, first_height + count_max],
        )
        return [row[0] for row in rows]

    def records(self, first_height: int, count_max: int) -> list[bytes]:
        return self._blobs("record", first_height, count_max)

    def headers(self, first_height: int, count_max: int) -> list[bytes]:
        return self._blobs("header", first_height, count_max)

    def height_of(self, block_hash: bytes) -> int | None:
        rows = self._read(f"SELECT height FROM {self._blocks} WHERE hash = ?", [block_hash])
        return rows[0][0] if rows else None

    def hashes(self) -> list[tuple[int, bytes]]:
        """(height, hash) of all blocks in order."""
        return self._read(f"SELECT height, hash FROM {self._blocks} ORDER BY height", [])

    def certificate_within(self, first_height: int, last_height: int) -> Certificate | None:
        """The certificate of the highest checkpoint in the range that this file holds one of."""
        rows = self._read(
            f"SELECT certificate FROM {self._certificates} WHERE height BETWEEN ? AND ? "
            "ORDER BY height DESC LIMIT 1",
            [first_height, last_height],
        )
        return CERTIFICATE_CODEC.decode(rows[0][0]) if rows else None

    def certificate_from(self, height: int) -> Certificate | None:
        """The certificate of the lowest checkpoint at or above `height` that this file holds."""
        rows = self._read(
            f"SELECT certificate FROM {self._certificates} WHERE height >= ? "
            "ORDER BY height LIMIT 1",
            [height],
        )
        return CERTIFICATE_CODEC.decode(rows[0][0]) if rows else None

    def close(self) -> None:
        self._connection.close()
        self._databases.detach(self.path)

    def _blobs(self, column: str, first_height: int, count_max: int) -> list[bytes]:
        rows = self._read(
            f"SELECT {column} FROM {self._blocks} WHERE height >= ? AND height < ? ORDER BY height",
            [first_height, first_height + count_max],
        )
        return [row[0] for row in rows]

    def _read(self, query: str, parameters: list[Any]) -> list[Any]:
        """Rows of a query on a cursor of its own, which sees what is committed."""
        with guarded(f"{self.path} could not be read", Code.DATA_CORRUPT):
            cursor = self._connection.cursor()
            try:
                rows: list[Any] = cursor.execute(query, parameters).fetchall()
            finally:
                cursor.close()
        return rows


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
