"""The history against what the log says, block by block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import msgspec
import pytest

from qnet_actors.ledger import History, MemoryLog
from qnet_actors.ledger.writes import BlockWrite, receipt_id
from qnet_actors.state import State, genesis_write_set
from qnet_actors.wire.blocks import RECEIPT_CODEC, Event
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.transactions import BODY_CODEC, Transfer
from tests.ledger.chain import blocks, chain_genesis
from tests.ledger.world import address, reward
from tests.state.test_partition import columns

GENESIS = chain_genesis()
ADDRESSES = [*(address(n) for n in range(10)), *(reward(n) for n in range(4)), b"\x01" * 32]
SMALL = 60
"""Rows a file, so that there are several."""

Open = Callable[..., History]


@pytest.fixture
def log() -> MemoryLog:
    made = MemoryLog()
    made.write(blocks())
    return made


@pytest.fixture
def history(tmp_path: Path) -> Iterator[Open]:
    """Opens the history of one directory, as often as wanted."""
    opened: list[History] = []

    def open_(log: MemoryLog, blocks_max: int = 1_000, part_rows_max: int = SMALL) -> History:
        if opened:
            opened[-1].close()
        opened.append(
            History(tmp_path / "history", GENESIS, log, blocks_max, part_rows_max=part_rows_max)
        )
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def parts(tmp_path: Path) -> list[int]:
    return sorted(int(path.stem[-12:]) for path in tmp_path.glob("history/history-*.duckdb"))


def expected_activity(raw: bytes) -> list[tuple[int, int, bytes, bool, int]]:
    """By the bodies, the newest first; all of them are transfers that succeeded."""
    rows = []
    for height, block in enumerate(blocks(), 1):
        for position, body in enumerate(block.record.bodies):
            decoded = BODY_CODEC.decode(body)
            assert isinstance(decoded.action, Transfer)
            id_ = receipt_id(block.record.receipts[position])
            if raw == decoded.sender:
                rows.append((height, position, id_, True, decoded.action.amount))
            elif raw == decoded.action.payee:
                rows.append((height, position, id_, False, decoded.action.amount))
    return rows[::-1]


def check_accounts(history: History, first: int = 0) -> None:
    state = State()
    state.load(0, genesis_write_set(GENESIS))
    for height in range(25):
        if height:
            state.apply(height, blocks()[height - 1].record.write_set)
        values = state.read(columns(ADDRESSES))
        for row, raw in enumerate(ADDRESSES):
            if height < first:
                continue
            found = history.account(raw, height)
            assert (found.height, found.nonce) == (height, int(values.nonces[row]))
            assert found.balance == int(values.balances[row])
            assert found.key_id == values.key_ids[row].tobytes()


def test_accounts_at_every_height(log, history, tmp_path):
    made = history(log)
    made.flush()
    assert (made.first_height, made.height) == (1, 24)
    check_accounts(made)
    again = history(log)
    assert (again.first_height, again.height) == (1, 24)
    check_accounts(again)
    with pytest.raises(QnetError) as refused:
        again.account(address(1), 25)
    assert refused.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("count", [1, 3, 100])
def test_transactions_of_an_account_page_by_page(log, history, count):
    made = history(log)
    made.flush()
    for raw in ADDRESSES:
        found, before = [], None
        while True:
            page, before = made.transactions(raw, before, count)
            assert len(page) <= count
            assert {(item.kind, item.status) for item in page} <= {("transfer", 0)}
            found += [(i.height, i.position, i.id, i.sent, i.amount) for i in page]
            if before is None:
                break
        assert found == expected_activity(raw)


def test_it_follows_the_log_over_several_files(history, tmp_path):
    log = MemoryLog()
    made = history(log)
    made.flush()
    assert (made.height, made.transactions(address(1), None, 5)) == (0, ([], None))
    for height, block in enumerate(blocks(), 1):
        log.write([block])
        made.flush()
        assert made.height == height
    assert len(parts(tmp_path)) > 2
    check_accounts(made)
    for raw in ADDRESSES:
        page, before = made.transactions(raw, None, 100)
        assert [(i.height, i.position, i.id, i.sent, i.amount) for i in page] == expected_activity(
            raw
        )
        assert before is None


def test_a_question_looks_into_a_bounded_number_of_files(history, monkeypatch):
    monkeypatch.setattr("qnet_actors.ledger.history.PARTS_READ_MAX", 2)
    monkeypatch.setattr("qnet_actors.ledger.history.PAGE_PARTS_MAX", 2)
    log = MemoryLog()
    made = history(log, part_rows_max=1)
    for block in blocks()[:12]:
        log.write([block])
        made.flush()
    found, before, pages = [], None, 0
    while True:
        page, before = made.transactions(address(2), before, 100)
        found += [(i.height, i.position, i.id, i.sent, i.amount) for i in page]
        pages += 1
        if before is None:
            break
    assert pages == 6
    assert found == [row for row in expected_activity(address(2)) if row[0] <= 12]
    with pytest.raises(QnetError) as refused:
        made.account(b"\x01" * 32, 12)
    assert refused.value.code is Code.NOT_FOUND


def test_old_files_go_once_all_their_blocks_may(history, tmp_path):
    log = MemoryLog()
    made = history(log, blocks_max=8, part_rows_max=20)
    for block in blocks():
        log.write([block])
        made.flush()
    first = made.first_height
    assert 1 < first <= 17
    assert parts(tmp_path)[0] == first
    assert parts(tmp_path)[1] > 17
    with pytest.raises(QnetError) as refused:
        made.account(address(1), first - 1)
    assert refused.value.code is Code.PRUNED
    # It never changed, and what it was before the history began is not in the history.
    with pytest.raises(QnetError) as refused:
        made.account(b"\x01" * 32, 20)
    assert refused.value.code is Code.PRUNED
    sent = [row for row in expected_activity(address(1)) if row[0] >= first]
    page, _ = made.transactions(address(1), None, 100)
    assert [(i.height, i.position, i.id, i.sent, i.amount) for i in page] == sent


def test_a_new_history_begins_with_what_is_to_be_kept(log, history):
    made = history(log, blocks_max=5)
    made.flush()
    assert (made.first_height, made.height) == (20, 24)


class LateLog(MemoryLog):
    """The log of a validator that joined at a snapshot: nothing before height 10."""

    def first_height(self) -> int:
        return 10 if self.last_height() >= 10 else 1

    def records(self, first_height: int, count_max: int, size_bytes_max: int) -> list[bytes]:
        if first_height < 10:
            return []
        return super().records(first_height, count_max, size_bytes_max)

    def headers(self, first_height: int, count_max: int) -> list[bytes]:
        return super().headers(first_height, count_max) if first_height >= 10 else []


def test_a_log_that_begins_late(history):
    log = LateLog()
    log.write(blocks())
    made = history(log)
    made.flush()
    assert (made.first_height, made.height) == (10, 24)


class GapLog(LateLog):
    """The log of a validator that was long away: the first three blocks, and those from 10 on."""

    def records(self, first_height: int, count_max: int, size_bytes_max: int) -> list[bytes]:
        if first_height <= 3:
            return MemoryLog.records(self, first_height, 4 - first_height, size_bytes_max)
        return super().records(first_height, count_max, size_bytes_max)

    def headers(self, first_height: int, count_max: int) -> list[bytes]:
        if first_height <= 3:
            return MemoryLog.headers(self, first_height, 4 - first_height)
        return super().headers(first_height, count_max)


def test_a_gap_in_the_log_begins_the_history_anew(history, tmp_path):
    log = GapLog()
    log.write(blocks()[:3])
    made = history(log)
    made.flush()
    assert (made.first_height, made.height) == (1, 3)
    log.write(blocks()[3:])
    made.flush()
    assert (made.first_height, made.height) == (10, 24)
    assert parts(tmp_path)[0] == 10
    again = history(log)
    again.flush()
    assert (again.first_height, again.height) == (10, 24)


@pytest.mark.parametrize("damage", ["bytes", "another network", "ahead of the log"])
def test_whatever_is_wrong_it_is_made_anew(log, history, tmp_path, damage, caplog):
    made = history(log)
    made.flush()
    made.close()
    if damage == "bytes":
        path = tmp_path / "history" / f"history-{parts(tmp_path)[-1]:012d}.duckdb"
        path.write_bytes(b"not a database at all" * 1_000)
    elif damage == "another network":
        other = msgspec.structs.replace(GENESIS, name="another")
        foreign = History(tmp_path / "foreign", other, log, 1_000)
        foreign.flush()
        foreign.close()
        for path in (tmp_path / "history").iterdir():
            path.unlink()
        for path in (tmp_path / "foreign").iterdir():
            path.rename(tmp_path / "history" / path.name)
    else:
        log = MemoryLog()
        log.write(blocks()[:7])
    with caplog.at_level(logging.CRITICAL):
        again = history(log)
        again.flush()
    assert (again.first_height, again.height) == (1, log.last_height())
    assert again.account(address(1), 3).height == 3


@pytest.mark.parametrize(
    "damage", ["bytes", "a table is gone", "a file is gone", "blocks are gone"]
)
def test_what_a_question_finds_damaged_is_made_anew(history, tmp_path, damage, caplog):
    log = MemoryLog()
    made = history(log)
    for block in blocks():
        log.write([block])
        made.flush()
    made.close()
    files = sorted((tmp_path / "history").glob("history-*.duckdb"))
    assert len(files) > 2
    if damage == "bytes":
        files[1].write_bytes(b"not a database at all" * 1_000)
    elif damage == "a file is gone":
        files[1].unlink()
    else:
        connection = duckdb.connect(str(files[1]))
        if damage == "a table is gone":
            connection.execute("DROP TABLE activity")
        else:
            highest = "(SELECT max(height) FROM progress)"
            connection.execute(f"DELETE FROM progress WHERE height = {highest}")
        connection.close()
    again = history(log)
    with caplog.at_level(logging.CRITICAL):
        with pytest.raises(QnetError) as refused:
            again.transactions(address(1), None, 100)
        assert refused.value.code is Code.BUSY
        again.flush()
    assert (again.first_height, again.height) == (1, 24)
    check_accounts(again)
    page, _ = again.transactions(address(1), None, 100)
    assert [(i.height, i.position, i.id, i.sent, i.amount) for i in page] == expected_activity(
        address(1)
    )


def test_a_fault_of_the_log_stops_nothing(log, history, monkeypatch, caplog):
    made = history(log)

    def broken(*_: int) -> list[bytes]:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(log, "records", broken)
        made.flush()
        made.flush()
    assert made.height == 0
    assert caplog.text.count("the history stands at height 0") == 1
    made.flush()
    assert made.height == 24


def test_events_by_topic_and_source(history):
    block = blocks()[0]
    receipts = []
    for position, encoded in enumerate(block.record.receipts):
        events = tuple(
            Event(bytes((source,)) * 32, topic, bytes((position, number)))
            for number, (source, topic) in enumerate([(1, b"paid"), (2, b"paid"), (1, b"")])
        )
        receipt = msgspec.structs.replace(RECEIPT_CODEC.decode(encoded), events=events)
        receipts.append(encode(receipt))
    record = msgspec.structs.replace(block.record, receipts=tuple(receipts))
    log = MemoryLog()
    log.write([BlockWrite(record, block.block_hash, encode(record))])
    made = history(log)
    made.flush()
    found, before = [], None
    while True:
        page, before = made.events(b"paid", None, before, 3)
        found += page
        if before is None:
            break
    assert [(e.position, e.number, e.source[0]) for e in found] == [
        (1, 1, 2),
        (1, 0, 1),
        (0, 1, 2),
        (0, 0, 1),
    ]
    assert found[0].data == bytes((1, 1))
    assert found[0].id == receipt_id(receipts[1])
    only, _ = made.events(b"paid", b"\x02" * 32, None, 10)
    assert [(e.position, e.number) for e in only] == [(1, 1), (0, 1)]
    assert len(made.events(b"", None, None, 10)[0]) == 2
    assert made.events(b"other", None, None, 10) == ([], None)
