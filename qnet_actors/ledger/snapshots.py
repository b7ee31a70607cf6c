"""Snapshots of the state on disk: they shorten a start, and others join from them.

`state-<height>.duckdb` is a snapshot; `join-<height>.duckdb` is one that is being fetched from
peers, and becomes the former once the block log goes on from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, RLock
from typing import Any, Final

from qnet_actors import state
from qnet_actors.durable import sync
from qnet_actors.ledger.databases import LogOptions, check_meta, connect, create_database, guarded
from qnet_actors.ledger.writes import SnapshotWrite, part_count
from qnet_actors.wire.codec import Codec, Struct, encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.limits import SNAPSHOT_PART_SIZE_BYTES_MAX
from qnet_actors.wire.snapshots import (
    SNAPSHOT_MANIFEST_CODEC,
    SnapshotManifest,
    SnapshotSection,
)

_TABLES: Final = """
CREATE TABLE meta(version UINTEGER, chain_id BLOB);
CREATE TABLE snapshot(height UBIGINT, state_root BLOB, contents BLOB);
CREATE TABLE manifest(data BLOB);
CREATE TABLE parts(number UINTEGER, accounts BLOB);
"""
_PART: Final = "SELECT accounts FROM parts WHERE number = ?"
_PARTS_BETWEEN_CHECKPOINTS: Final = 8
KEPT: Final = 2


class _Contents(Struct, frozen=True):
    commits: tuple[Commit, ...]
    sections: tuple[SnapshotSection, ...]


_CONTENTS: Final = Codec[_Contents](_Contents, SNAPSHOT_PART_SIZE_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A snapshot on disk: see `writes.HeldSnapshot`."""

    height: int
    state_root: bytes
    commits: tuple[Commit, ...]
    sections: tuple[SnapshotSection, ...]
    part: Callable[[int], bytes | None]


@dataclass(frozen=True, slots=True)
class JoiningFile:
    """A snapshot that is being fetched: see `writes.Joining`."""

    manifest: SnapshotManifest
    parts: frozenset[int]
    part: Callable[[int], bytes | None]


@dataclass(slots=True)
class _Reader:
    """One file that is kept open, so that its parts are read one after the other."""

    path: Path | None = None
    connection: Any = None
    lock: Lock = field(default_factory=Lock)


class Snapshots:
    """The snapshot files of a directory, one a height.

    `write` belongs to one thread; everything else may be called from any.
    """

    def __init__(self, directory: Path, chain_id: bytes, options: LogOptions) -> None:
        self._directory = directory
        self._chain_id = chain_id
        self._options = options
        self._reader = _Reader()
        # Held while the file that is being fetched is opened, read, written or given up: the thread
        # that writes and the one that installs both do so.
        self._joins = RLock()
        self._join: Any = None
        """The connection to the file that is being fetched."""
        self._join_parts: set[int] = set()
        for path in (*directory.glob("*.building"), *directory.glob("*.building.wal")):
            path.unlink()

    # Own snapshots

    def write(self, snapshot: SnapshotWrite) -> None:
        """Writes a snapshot whole or not at all, and removes all but the newest."""

        def fill(connection: Any) -> None:
            sections: list[SnapshotSection] = []
            number = 0
            for section, accounts in state.split_sections(
                snapshot.accounts, self._options.section_accounts_max
            ):
                sections.append(section)
                if section.kind:
                    number += 1
                    _insert(connection, number, encode(accounts))
            contents = _Contents(snapshot.commits, tuple(sections))
            row = [snapshot.height, snapshot.state_root, encode(contents)]
            connection.execute("INSERT INTO snapshot VALUES (?, ?, ?)", row)

        self._build(self._path(snapshot.height), fill)
        self._remove_old()

    def heights(self) -> list[int]:
        """The heights of the snapshots there are, falling."""
        return self._named("state-")

    def read(self, height: int) -> SnapshotFile | None:
        """A snapshot; None where there is none, or it cannot be read."""
        path = self._path(height)
        try:
            rows = self._read(path, "SELECT height, state_root, contents FROM snapshot", [])
            if len(rows) != 1 or rows[0][0] != height:
                return None
            contents = _CONTENTS.decode(rows[0][2])
        except QnetError:
            return None
        return SnapshotFile(
            height,
            rows[0][1],
            contents.commits,
            contents.sections,
            lambda number: self._part(path, number),
        )

    # Fetching one from peers

    def begin_join(self, manifest: SnapshotManifest) -> None:
        """Starts a file for a peer's snapshot; one that was being fetched is given up."""
        checkpoint = manifest.certificate.checkpoint

        def fill(connection: Any) -> None:
            contents = _Contents(manifest.commits, manifest.sections)
            row = [checkpoint.height, checkpoint.state_root, encode(contents)]
            connection.execute("INSERT INTO snapshot VALUES (?, ?, ?)", row)
            connection.execute("INSERT INTO manifest VALUES (?)", [encode(manifest)])

        path = self._join_path(checkpoint.height)
        with self._joins:
            self.drop_join()
            self._build(path, fill)
            self._join = connect(path, self._options)

    def add_section(self, part: int, data: bytes) -> None:
        """Keeps a section durably; again is no harm."""
        with self._joins:
            if self._join is None and not self._open_join():
                raise QnetError(Code.INTERNAL, "no snapshot is being fetched")
            if part not in self._join_parts:
                with guarded("a snapshot that is fetched could not be written"):
                    _insert(self._join, part, data)
                self._join_parts.add(part)

    def joining(self) -> JoiningFile | None:
        """What is here of a snapshot that is being fetched."""
        with self._joins:
            try:
                if self._join is None and not self._open_join():
                    return None
                rows = self._rows(self._join, "SELECT data FROM manifest", [])
                manifest = SNAPSHOT_MANIFEST_CODEC.decode(rows[0][0])
            except (QnetError, IndexError):
                # Others have it still.
                self.drop_join()
                return None
            return JoiningFile(manifest, frozenset(self._join_parts), self._join_part)

    def seal_join(self) -> int:
        """Nothing more comes: everything moves to the file.  Returns the height."""
        with self._joins:
            found = self.joining()
            if found is None or not _is_whole(found):
                raise QnetError(Code.INTERNAL, "a snapshot is not fetched whole")
            with guarded("a snapshot that is fetched could not be written"):
                self._join.execute("CHECKPOINT")
                self._join.close()
            self._join = None
        return found.manifest.certificate.checkpoint.height

    def settle_joins(self, last_height: int) -> None:
        """What the log has gone on from becomes a snapshot as any other.

        One that is not here whole was passed by blocks, and is given up.
        """
        with self._joins:
            heights = self._named("join-")
            if not heights or heights[0] > last_height:
                return
            found = self.joining()
            if found is None or not _is_whole(found):
                self.drop_join()
                return
            height = self.seal_join()
            self._join_path(height).rename(self._path(height))
            sync(self._directory)
            self._remove_old()

    def drop_join(self) -> None:
        """Gives up what is here of a peer's snapshot; nothing is no harm."""
        with self._joins:
            if self._join is not None:
                self._join.close()
                self._join = None
            self._join_parts = set()
            for path in (*self._directory.glob("join-*"),):
                path.unlink()

    def close(self) -> None:
        with self._reader.lock:
            if self._reader.connection is not None:
                self._reader.connection.close()
            self._reader.connection = self._reader.path = None
        with self._joins:
            if self._join is not None:
                self._join.close()
                self._join = None

    def _open_join(self) -> bool:
        heights = self._named("join-")
        if not heights:
            return False
        path = self._join_path(heights[0])
        connection = connect(path, self._options)
        try:
            check_meta(connection, path, self._chain_id)
            self._join_parts = {
                row[0] for row in self._rows(connection, "SELECT number FROM parts", [])
            }
        except QnetError:
            connection.close()
            raise
        self._join = connection
        return True

    # Files

    def _build(self, path: Path, fill: Callable[[Any], None]) -> None:
        """Makes a file whole or not at all."""
        building = path.with_suffix(".building")
        create_database(building, _TABLES, self._chain_id, self._options)
        connection = connect(building, self._options)
        with guarded("a state snapshot could not be written"):
            try:
                fill(connection)
                connection.execute("CHECKPOINT")
            finally:
                connection.close()
            sync(building)
            building.rename(path)
            sync(self._directory)

    def _remove_old(self) -> None:
        for old in self.heights()[KEPT:]:
            self._path(old).unlink()

    def _part(self, path: Path, number: int) -> bytes | None:
        try:
            rows = self._read(path, _PART, [number])
        except QnetError:
            # A newer snapshot may have pushed this one out since; whoever asked asks elsewhere.
            return None
        return rows[0][0] if rows else None

    def _join_part(self, number: int) -> bytes | None:
        # The connection that writes holds the file.
        message = "a snapshot that is fetched could not be read"
        with self._joins, guarded(message, Code.DATA_CORRUPT):
            rows = self._rows(self._join, _PART, [number])
        return rows[0][0] if rows else None

    def _read(self, path: Path, query: str, parameters: list[Any]) -> list[Any]:
        """Rows of a query on a file that is not written any more; the last one stays open."""
        reader = self._reader
        with reader.lock:
            if reader.path != path or not path.exists():
                if reader.connection is not None:
                    reader.connection.close()
                reader.connection = reader.path = None
                connection = connect(path, self._options, read_only=True)
                try:
                    check_meta(connection, path, self._chain_id)
                except QnetError:
                    connection.close()
                    raise
                reader.connection, reader.path = connection, path
            with guarded(f"{path} could not be read", Code.DATA_CORRUPT):
                return self._rows(reader.connection, query, parameters)

    @staticmethod
    def _rows(connection: Any, query: str, parameters: list[Any]) -> list[Any]:
        cursor = connection.cursor()
        try:
            rows: list[Any] = cursor.execute(query, parameters).fetchall()
        finally:
            cursor.close()
        return rows

    def _named(self, prefix: str) -> list[int]:
        names = (
            path.stem.removeprefix(prefix) for path in self._directory.glob(f"{prefix}*.duckdb")
        )
        return sorted((int(name) for name in names if name.isdigit()), reverse=True)

    def _path(self, height: int) -> Path:
        return self._directory / f"state-{height:012d}.duckdb"

    def _join_path(self, height: int) -> Path:
        return self._directory / f"join-{height:012d}.duckdb"


def _is_whole(found: JoiningFile) -> bool:
    return len(found.parts) == part_count(found.manifest.sections)


def _insert(connection: Any, number: int, accounts: bytes) -> None:
    connection.execute("INSERT INTO parts VALUES (?, ?)", [number, accounts])
    if number % _PARTS_BETWEEN_CHECKPOINTS == 0:
        # Rows stay in memory until a checkpoint, and all of them may not fit.
        connection.execute("CHECKPOINT")
