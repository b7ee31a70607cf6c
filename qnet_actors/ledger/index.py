"""Where transactions and blocks stand, by id and by hash: derived from the block log.

Of an id the first eight bytes are kept; whoever finds a place compares the whole id there.
Transactions stand in a sorted file a segment, which costs microseconds to search: a scan of ten
million rows in a table takes 20 ms, and a key-indexed table costs 10 us a row and much memory.
Blocks are few and stand in a table, whose rows are only ever appended.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qnet_actors.ledger.databases import Databases, LogOptions, check_meta, guarded
from qnet_actors.ledger.runs import Run, write_run
from qnet_actors.ledger.writes import Place
from qnet_actors.wire.codes import Code, QnetError

_TABLES: Final = """
CREATE TABLE meta(version UINTEGER, chain_id BLOB);
CREATE TABLE blocks(prefix UBIGINT, height UBIGINT);
CREATE TABLE segments(sequence UBIGINT, first_height UBIGINT, last_height UBIGINT);
"""
_PLACES_MAX: Final = 64
Prefixes = npt.NDArray[np.uint64]


def prefixes_of(ids: Sequence[bytes]) -> Prefixes:
    """The first eight bytes of each id."""
    return np.frombuffer(b"".join(id_[:8] for id_ in ids), dtype="<u8")


class RecentIndex:
    """The transactions of blocks that the index file does not have yet, in columns."""

    def __init__(self) -> None:
        self._prefixes: Prefixes = np.zeros(1_024, dtype=np.uint64)
        self._starts: list[int] = []
        self._heights: list[int] = []
        self._count = 0

    def add(self, height: int, ids: Sequence[bytes]) -> None:
        """The included transactions of the next block, in order."""
        end = self._count + len(ids)
        if end > len(self._prefixes):
            grown = np.zeros(max(end, 2 * len(self._prefixes)), dtype=np.uint64)
            grown[: self._count] = self._prefixes[: self._count]
            self._prefixes = grown
        self._prefixes[self._count : end] = prefixes_of(ids)
        self._starts.append(self._count)
        self._heights.append(height)
        self._count = end

    def find(self, id_: bytes) -> list[Place]:
        """Where transactions with this prefix stand."""
        prefix = prefixes_of([id_])[0]
        rows = np.flatnonzero(self._prefixes[: self._count] == prefix)[:_PLACES_MAX]
        return [self._place(row) for row in rows.tolist()]

    def columns(self) -> tuple[Prefixes, Prefixes, npt.NDArray[np.uint32]]:
        """Prefixes, heights and positions of all rows."""
        starts = np.array([*self._starts, self._count], dtype=np.int64)
        counts = np.diff(starts)
        heights = np.repeat(np.array(self._heights, dtype=np.uint64), counts)
        positions = np.arange(self._count) - np.repeat(starts[:-1], counts)
        return self._prefixes[: self._count].copy(), heights, positions.astype(np.uint32)

    def _place(self, row: int) -> Place:
        block = bisect_right(self._starts, row) - 1
        return Place(self._heights[block], row - self._starts[block])


class Index:
    """The index file; may be deleted, for it is made again from the segments."""

    def __init__(
        self, databases: Databases, path: Path, chain_id: bytes, options: LogOptions
    ) -> None:
        self._databases = databases
        self._path = path
        self._options = options
        self._chain_id = chain_id
        if not path.exists():
            databases.create(path, _TABLES, chain_id)
        self._runs: dict[int, Run] = {}
        """By sequence; replaced, never changed, for others read it meanwhile."""
        try:
            self._name = self._open()
        except QnetError:
            # Derived data: whatever is wrong with it, it is made anew.
            path.unlink()
            path.with_name(path.name + ".wal").unlink(missing_ok=True)
            for run in path.parent.glob(f"{path.stem}-*.run"):
                run.unlink()
            databases.create(path, _TABLES, chain_id)
            self._name = self._open()

    def _open(self) -> str:
        name = self._databases.attach(self._path)
        cursor = self._databases.cursor()
        try:
            check_meta(cursor, self._path, self._chain_id, name)
            with guarded("the transaction index could not be read", Code.DATA_CORRUPT):
                rows = cursor.execute(f"SELECT sequence FROM {name}.segments ORDER BY 1").fetchall()
            self._runs = {sequence: Run(self._run_path(sequence)) for (sequence,) in rows}
        except QnetError:
            cursor.close()
            self._databases.detach(self._path)
            raise
        cursor.close()
        return name

    def _run_path(self, sequence: int) -> Path:
        return self._path.with_name(f"{self._path.stem}-{sequence:08d}.run")

    def segments(self) -> dict[int, tuple[int, int]]:
        """Sequence number -> (first height, last height) of the segments that are indexed."""
        rows = self._read(
            f"SELECT sequence, first_height, last_height FROM {self._name}.segments", []
        )
        return {sequence: (first, last) for sequence, first, last in rows}

    def add(
        self,
        sequence: int,
        heights: tuple[int, int],
        hashes: Sequence[tuple[int, bytes]],
        recent: RecentIndex,
    ) -> None:
        """Takes over a sealed segment: its file first, which counts once the table names it."""
        path = self._run_path(sequence)
        write_run(path, *recent.columns(), fsync=self._options.fsync)
        blocks: dict[str, npt.NDArray[Any]] = {
            "prefix": prefixes_of([hash_ for _, hash_ in hashes]),
            "height": np.array([height for height, _ in hashes], dtype=np.uint64),
        }
        with guarded("the transaction index could not be written"):
            cursor = self._databases.cursor()
            try:
                cursor.execute("BEGIN")
                if hashes:
                    cursor.register("added", blocks)
                    cursor.execute(f"INSERT INTO {self._name}.blocks SELECT * FROM added")
                    cursor.unregister("added")
                cursor.execute(
                    f"INSERT INTO {self._name}.segments VALUES (?, ?, ?)", [sequence, *heights]
                )
                cursor.execute("COMMIT")
                cursor.execute(f"CHECKPOINT {self._name}")
            finally:
                cursor.close()
        self._runs = {**self._runs, sequence: Run(path)}

    def forget(self, sequence: int) -> None:
        """Where the transactions of a segment stood is not kept any more; again is no harm."""
        if self._runs[sequence].count:
            path = self._run_path(sequence)
            write_run(path, *RecentIndex().columns(), fsync=self._options.fsync)
            self._runs = {**self._runs, sequence: Run(path)}

    def find(self, id_: bytes) -> list[Place]:
        """Where transactions with this prefix stand."""
        prefix = prefixes_of([id_])[0]
        found: list[Place] = []
        for run in reversed(self._runs.values()):
            found += run.find(prefix, _PLACES_MAX)
        return found[:_PLACES_MAX]

    def heights_of(self, block_hash: bytes) -> list[int]:
        """Where blocks whose hash begins alike stand."""
        rows = self._read(
            f"SELECT height FROM {self._name}.blocks WHERE prefix = ? LIMIT {_PLACES_MAX}",
            [int(prefixes_of([block_hash])[0])],
        )
        return [row[0] for row in rows]

    def close(self) -> None:
        self._databases.detach(self._path)

    def _read(self, query: str, parameters: list[Any]) -> list[Any]:
        with guarded("the transaction index could not be read", Code.DATA_CORRUPT):
            cursor = self._databases.cursor()
            try:
                rows: list[Any] = cursor.execute(query, parameters).fetchall()
            finally:
                cursor.close()
        return rows
