"""Snapshots of the state on disk: they shorten a start, and nothing depends on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qnet_actors.ledger.segment import (
    LogOptions,
    check_meta,
    connect,
    create_database,
    guarded,
    sync,
)
from qnet_actors.ledger.writes import SnapshotWrite
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.codes import QnetError

_TABLES: Final = """
CREATE TABLE meta(version UINTEGER, chain_id BLOB);
CREATE TABLE snapshot(height UBIGINT, state_root BLOB, chunks UINTEGER);
CREATE TABLE accounts(
    chunk UINTEGER, addresses BLOB, nonces BLOB, balances BLOB, key_ids BLOB);
"""
_CHUNK_ACCOUNTS: Final = 65_536
_CHUNKS_BETWEEN_CHECKPOINTS: Final = 8
KEPT: Final = 2


class Snapshots:
    """The snapshot files of a directory, one a height."""

    def __init__(self, directory: Path, chain_id: bytes, options: LogOptions) -> None:
        self._directory = directory
        self._chain_id = chain_id
        self._options = options

    def write(self, snapshot: SnapshotWrite) -> None:
        """Writes a snapshot whole or not at all, and removes all but the newest."""
        path = self._path(snapshot.height)
        building = path.with_suffix(".building")
        create_database(building, _TABLES, self._chain_id, self._options)
        connection = connect(building, self._options)
        accounts = snapshot.accounts
        count = len(accounts.addresses) // 32
        chunks = range(0, count, _CHUNK_ACCOUNTS)
        with guarded("a state snapshot could not be written"):
            for number, start in enumerate(chunks):
                end = min(count, start + _CHUNK_ACCOUNTS)
                connection.execute(
                    "INSERT INTO accounts VALUES (?, ?, ?, ?, ?)",
                    [
                        number,
                        accounts.addresses[32 * start : 32 * end],
                        accounts.nonces[8 * start : 8 * end],
                        accounts.balances[8 * start : 8 * end],
                        accounts.key_ids[32 * start : 32 * end],
                    ],
                )
                if number % _CHUNKS_BETWEEN_CHECKPOINTS == _CHUNKS_BETWEEN_CHECKPOINTS - 1:
                    # Rows stay in memory until a checkpoint, and all of them may not fit.
                    connection.execute("CHECKPOINT")
            connection.execute(
                "INSERT INTO snapshot VALUES (?, ?, ?)",
                [snapshot.height, snapshot.state_root, len(chunks)],
            )
            connection.execute("CHECKPOINT")
            connection.close()
            sync(building)
            building.rename(path)
            sync(self._directory)
            for old in self._heights()[KEPT:]:
                self._path(old).unlink()

    def read(self) -> Iterator[SnapshotWrite]:
        """Snapshots, newest first; one that cannot be read is passed over."""
        for height in self._heights():
            try:
                snapshot = self._load(self._path(height))
            except QnetError:
                continue
            if snapshot is not None and snapshot.height == height:
                yield snapshot

    def _load(self, path: Path) -> SnapshotWrite | None:
        connection = connect(path, self._options, read_only=True)
        try:
            check_meta(connection, path, self._chain_id)
            with guarded(f"{path} could not be read"):
                meta = connection.execute("SELECT * FROM snapshot").fetchone()
                rows = connection.execute(
                    "SELECT addresses, nonces, balances, key_ids FROM accounts ORDER BY chunk"
                ).fetchall()
        finally:
            connection.close()
        if meta is None or meta[2] != len(rows):
            return None
        columns = (b"".join(row[i] for row in rows) for i in range(4))
        return SnapshotWrite(meta[0], meta[1], WriteSet(*columns))

    def _heights(self) -> list[int]:
        """The heights of the snapshots there are, falling."""
        names = (
            path.stem.removeprefix("state-") for path in self._directory.glob("state-*.duckdb")
        )
        return sorted((int(name) for name in names if name.isdigit()), reverse=True)

    def _path(self, height: int) -> Path:
        return self._directory / f"state-{height:012d}.duckdb"
