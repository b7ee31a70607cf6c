"""One file of the history: what accounts held and did, and events, over a range of heights.

Columns carry the first eight bytes of an address as a number: a scan of numbers is several times
faster than one of byte strings, and what it finds is compared whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec
import numpy as np
import numpy.typing as npt

from qnet_actors.ledger.databases import Databases, check_meta, guarded
from qnet_actors.ledger.execute import payments_of
from qnet_actors.wire.blocks import BlockRecord, Receipt
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.transactions import Body, amount_total

_TABLES: Final = """
CREATE TABLE meta(version UINTEGER, chain_id BLOB);
CREATE TABLE progress(height UBIGINT, hash BLOB);
CREATE TABLE accounts(
    prefix UBIGINT, height UBIGINT, nonce UBIGINT, balance UBIGINT, address BLOB, key_id BLOB);
CREATE TABLE activity(
    prefix UBIGINT, height UBIGINT, position UINTEGER, sent BOOLEAN, amount UBIGINT,
    status USMALLINT, kind VARCHAR, address BLOB, id BLOB);
CREATE TABLE events(
    prefix UBIGINT, height UBIGINT, position UINTEGER, number USMALLINT, source BLOB, topic BLOB,
    data BLOB, id BLOB);
"""
# Of the own log: the canonical form was checked before it was written.
_RECORD: Final[msgspec.msgpack.Decoder[BlockRecord]] = msgspec.msgpack.Decoder(BlockRecord)
_BODY: Final[msgspec.msgpack.Decoder[Body]] = msgspec.msgpack.Decoder(Body)
_RECEIPT: Final[msgspec.msgpack.Decoder[Receipt]] = msgspec.msgpack.Decoder(Receipt)


@dataclass(frozen=True, slots=True)
class Activity:
    """A transaction of an account."""

    height: int
    position: int
    id: bytes
    sent: bool
    """Whether the account sent it; else it received from it."""
    amount: int
    """What it sent or received in all, fees apart; nothing is received where `status` is not 0."""
    status: int
    kind: str


@dataclass(frozen=True, slots=True)
class FoundEvent:
    """An event of a transaction."""

    height: int
    position: int
    number: int
    """Which one of the transaction."""
    source: bytes
    topic: bytes
    data: bytes
    id: bytes


TransactionPlace = tuple[int, int]
"""(height, position)"""
EventPlace = tuple[int, int, int]
"""(height, position of the transaction, number of the event)"""


class HistoryPart:
    """A DuckDB file over consecutive heights from `first_height` on; derived from the block log."""

    def __init__(
        self, databases: Databases, path: Path, first_height: int, chain_id: bytes
    ) -> None:
        """Opens the file, or makes an empty one."""
        self.path: Final = path
        self.first_height: Final = first_height
        self._databases: Final = databases
        if not path.exists():
            databases.create(path, _TABLES, chain_id)
        self._name: Final = databases.attach(path)
        try:
            cursor = databases.cursor()
            try:
                check_meta(cursor, path, chain_id, self._name)
            finally:
                cursor.close()
            rows = self._read(
                f"SELECT height, hash FROM {self._name}.progress ORDER BY height DESC LIMIT 1", []
            )
            self.last_height: int = rows[0][0] if rows else first_height - 1
            self.last_hash: bytes = rows[0][1] if rows else b""
            counted = (
                f"SELECT (SELECT count(*) FROM {self._name}.accounts) "
                f"+ (SELECT count(*) FROM {self._name}.activity)"
            )
            self.rows: int = self._read(counted, [])[0][0]
        except QnetError:
            # Whoever makes the file anew would else be given this database, for as long as somebody
            # holds the error.
            self.close()
            raise

    def add(self, encoded: Sequence[bytes]) -> None:
        """Takes the next records of the log in one transaction."""
        records = [_RECORD.decode(data) for data in encoded]
        last = records[-1].header
        accounts = _account_columns(records)
        activity = _Activities()
        for record in records:
            activity.add(record)
        with guarded("the history could not be written"):
            cursor = self._databases.cursor()
            try:
                cursor.execute("BEGIN")
                tables = (
                    ("accounts", accounts),
                    ("activity", activity.columns()),
                    ("events", activity.event_columns()),
                )
                for table, columns in tables:
                    if len(columns["prefix"]):
                        cursor.register("added", columns)
                        cursor.execute(f"INSERT INTO {self._name}.{table} SELECT * FROM added")
                        cursor.unregister("added")
                cursor.execute(
                    f"INSERT INTO {self._name}.progress VALUES (?, ?)", [last.height, last.hash()]
                )
                cursor.execute("COMMIT")
            finally:
                cursor.close()
        self.last_height, self.last_hash = last.height, last.hash()
        self.rows += len(accounts["prefix"]) + len(activity.ids)

    def seal(self) -> None:
        """Moves everything into the file; nothing is added to it any more."""
        with guarded("the history could not be checkpointed"):
            cursor = self._databases.cursor()
            try:
                cursor.execute(f"CHECKPOINT {self._name}")
            finally:
                cursor.close()

    def account(self, address: bytes, height: int) -> tuple[int, int, bytes] | None:
        """(nonce, balance, key id) as the last change in this file up to `height` left them."""
        rows = self._read(
            f"SELECT nonce, balance, key_id FROM {self._name}.accounts "
            "WHERE prefix = ? AND height <= ? "
            "AND address = ? ORDER BY height DESC LIMIT 1",
            [_prefix(address), height, address],
        )
        return rows[0] if rows else None

    def activity(
        self, address: bytes, before: TransactionPlace | None, count_max: int
    ) -> list[Activity]:
        """Transactions of an account, the newest first, from just before a place on."""
        bound, places = _bound(before, ("height", "position"))
        rows = self._read(
            "SELECT height, position, id, sent, amount, status, kind "
            f"FROM {self._name}.activity "
            f"WHERE prefix = ? AND address = ? {bound} "
            "ORDER BY height DESC, position DESC LIMIT ?",
            [_prefix(address), address, *places, count_max],
        )
        return [Activity(*row) for row in rows]

    def events(
        self, topic: bytes, source: bytes | None, before: EventPlace | None, count_max: int
    ) -> list[FoundEvent]:
        """Events of a topic, the newest first, from just before a place on."""
        bound, places = _bound(before, ("height", "position", "number"))
        only = "" if source is None else "AND source = ?"
        rows = self._read(
            "SELECT height, position, number, source, topic, data, id "
            f"FROM {self._name}.events "
            f"WHERE prefix = ? AND topic = ? {only} {bound} "
            "ORDER BY height DESC, position DESC, number DESC LIMIT ?",
            [_prefix(topic), topic, *([] if source is None else [source]), *places, count_max],
        )
        return [FoundEvent(*row) for row in rows]

    def close(self) -> None:
        self._databases.detach(self.path)

    def _read(self, query: str, parameters: list[Any]) -> list[Any]:
        with guarded(f"{self.path} could not be read", Code.DATA_CORRUPT):
            cursor = self._databases.cursor()
            try:
                rows: list[Any] = cursor.execute(query, parameters).fetchall()
            except duckdb.OutOfMemoryException as error:
                # It says nothing of the file, which is not to be made anew for it.
                raise QnetError(Code.INTERNAL, f"{self.path}: memory ran out") from error
            finally:
                cursor.close()
        return rows


@dataclass(slots=True)
class _Activities:
    """The rows of activity and events, column by column."""

    heights: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    sent: list[bool] = field(default_factory=list)
    amounts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    addresses: list[bytes] = field(default_factory=list)
    ids: list[bytes] = field(default_factory=list)
    events: list[FoundEvent] = field(default_factory=list)

    def add(self, record: BlockRecord) -> None:
        height = record.header.height
        for position, (body, encoded) in enumerate(
            zip(record.bodies, record.receipts, strict=True)
        ):
            receipt, decoded = _RECEIPT.decode(encoded), _BODY.decode(body)
            action = decoded.action
            # One row an account and transaction, whatever it is in it.
            parts = {decoded.sender: (True, amount_total(action))}
            if receipt.status == 0:
                for payee, amount in payments_of(action):
                    was = parts.get(payee, (False, 0))
                    if not was[0]:
                        parts[payee] = (False, was[1] + amount)
            for address, (sent, amount) in parts.items():
                self.heights.append(height)
                self.positions.append(position)
                self.sent.append(sent)
                self.amounts.append(amount)
                self.statuses.append(receipt.status)
                self.kinds.append(_kind(type(action)))
                self.addresses.append(address)
                self.ids.append(receipt.transaction_id)
            for number, event in enumerate(receipt.events):
                place = (height, position, number)
                self.events.append(
                    FoundEvent(
                        *place, event.source, event.topic, event.data, receipt.transaction_id
                    )
                )

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        return {
            "prefix": _prefixes(self.addresses),
            "height": np.array(self.heights, dtype=np.uint64),
            "position": np.array(self.positions, dtype=np.uint32),
            "sent": np.array(self.sent, dtype=np.bool_),
            "amount": np.array(self.amounts, dtype=np.uint64),
            "status": np.array(self.statuses, dtype=np.uint16),
            "kind": _objects(self.kinds),
            "address": _objects(self.addresses),
            "id": _objects(self.ids),
        }

    def event_columns(self) -> dict[str, npt.NDArray[Any]]:
        events = self.events
        return {
            "prefix": _prefixes([event.topic for event in events]),
            "height": np.array([event.height for event in events], dtype=np.uint64),
            "position": np.array([event.position for event in events], dtype=np.uint32),
            "number": np.array([event.number for event in events], dtype=np.uint16),
            "source": _objects([event.source for event in events]),
            "topic": _objects([event.topic for event in events]),
            "data": _objects([event.data for event in events]),
            "id": _objects([event.id for event in events]),
        }


def _account_columns(records: Sequence[BlockRecord]) -> dict[str, npt.NDArray[Any]]:
    sets = [record.write_set for record in records]
    addresses = b"".join(written.addresses for written in sets)
    key_ids = b"".join(written.key_ids for written in sets)
    split = [addresses[at : at + 32] for at in range(0, len(addresses), 32)]
    heights = [record.header.height for record in records]
    counts = [len(written.addresses) // 32 for written in sets]
    return {
        "prefix": _prefixes(split),
        "height": np.repeat(np.array(heights, dtype=np.uint64), counts),
        "nonce": np.frombuffer(b"".join(written.nonces for written in sets), dtype="<u8"),
        "balance": np.frombuffer(b"".join(written.balances for written in sets), dtype="<u8"),
        "address": _objects(split),
        "key_id": _objects([key_ids[at : at + 32] for at in range(0, len(key_ids), 32)]),
    }


@cache
def _kind(action: type) -> str:
    """The name of a kind of action: "multi_transfer"."""
    return re.sub("(?<!^)(?=[A-Z])", "_", action.__name__).lower()


def _bound(before: tuple[int, ...] | None, columns: Iterable[str]) -> tuple[str, tuple[int, ...]]:
    """A condition on places that come before one, and its parameters."""
    if before is None:
        return "", ()
    names = ", ".join(columns)
    return f"AND ({names}) < ({', '.join('?' * len(before))})", before


def _prefix(key: bytes) -> int:
    return int.from_bytes(key[:8].ljust(8, b"\0"), "little")


def _prefixes(keys: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    return np.frombuffer(b"".join(key[:8].ljust(8, b"\0") for key in keys), dtype="<u8")


def _objects(values: Sequence[Any]) -> npt.NDArray[Any]:
    """A column of Python objects, which DuckDB takes as they are."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
