"""Blocks that are not kept: what is left, what readers are told, and kills at every step."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qnet_actors.ledger import (
    DuckLog,
    History,
    LedgerQueries,
    LogOptions,
    MemoryLog,
    Retention,
    SnapshotSettings,
    recover,
    segments,
)
from qnet_actors.ledger.pruned import PrunedSegment
from qnet_actors.ledger.segments import Segments
from qnet_actors.ledger.serving import read_answer
from qnet_actors.ledger.writes import CertificateWrite, receipt_id
from qnet_actors.rooms import CatchUp, Joined
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.messages import LedgerRequest, SnapshotRequest
from tests.ledger.chain import blocks, certificates, chain_genesis, drive
from tests.ledger.rig import Rig
from tests.ledger.test_joining import serve
from tests.ledger.test_logs import snapshot_of
from tests.ledger.world import address

GENESIS = chain_genesis()
CHAIN_ID = GENESIS.chain_id()
ARCHIVE = LogOptions(fsync=False, memory_limit_mb=128, segment_size_bytes=4_000)
FULL = replace(ARCHIVE, retention=Retention("full", 4))
LIGHT = replace(ARCHIVE, retention=Retention("light", 4))
COUNT = 24


def opened(path: Path, options: LogOptions) -> DuckLog:
    return DuckLog(path, CHAIN_ID, options)


def snapshot_heights() -> tuple[int, int]:
    """Of the last two checkpoints but one that are certified."""
    heights = [certificate.checkpoint.height for certificate in certificates()]
    return heights[-3], heights[-2]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chain with all certificates and two snapshots, and nothing pruned."""
    path = tmp_path_factory.mktemp("archive")
    log = opened(path, ARCHIVE)
    certified = {c.checkpoint.height: c for c in certificates()}
    for block in blocks(COUNT):
        height = block.record.header.height
        log.write([block])
        if height in certified:
            log.write([CertificateWrite(certified[height])])
        if height in snapshot_heights():
            memory = MemoryLog()
            memory.write(blocks(height))
            log.write([snapshot_of(recover(memory, GENESIS).state)])
    log.flush()
    log.close()
    return path


Fill = Callable[[Path, LogOptions], DuckLog]


@pytest.fixture
def fill(archive: Path) -> Fill:
    """Opens a copy of the archive in a directory, and has pruned what is due."""

    def copied(path: Path, options: LogOptions) -> DuckLog:
        shutil.copytree(archive, path, dirs_exist_ok=True)
        log = opened(path, options)
        log.flush()
        return log

    return copied


@pytest.fixture(params=["full", "light"])
def options(request: pytest.FixtureRequest) -> LogOptions:
    return FULL if request.param == "full" else LIGHT


def check(log: DuckLog, *, places: bool) -> None:
    """All that a pruned log still knows, and what it says of the rest."""
    first, last = log.first_height(), log.last_height()
    assert last == COUNT
    assert 1 < first <= snapshot_heights()[0] - 3
    assert log.first_header_height() == 1
    chain = blocks(COUNT)
    assert log.headers(1, COUNT) == [encode(block.record.header) for block in chain]
    assert log.records(first, COUNT, 10**9) == [block.encoded for block in chain[first - 1 :]]
    assert log.records(first - 1, 1, 10**9) == []
    queries = LedgerQueries(log)
    for block in chain:
        height = block.record.header.height
        assert log.height_of(block.block_hash) == height
        assert queries.header(block.block_hash) == block.record.header
        id_ = receipt_id(block.record.receipts[1])
        if height >= first:
            assert queries.block(height) == block.record
            found = queries.transaction(id_)
            assert found is not None
            assert (found.place.height, found.place.position) == (height, 1)
            continue
        for selector in (height, block.block_hash):
            with pytest.raises(QnetError, match=f"from height {first} on") as refused:
                queries.block(selector)
            assert refused.value.code is Code.PRUNED
        for read in (queries.transaction, queries.proved_transaction):
            if places:
                with pytest.raises(QnetError) as refused:
                    read(id_)
                assert refused.value.code is Code.PRUNED
            else:
                assert read(id_) is None
    assert [header.height for header, _ in queries.headers_before(4, 10)] == [3, 2, 1]
    tip = recover(log, GENESIS).tip
    assert (tip.height, tip.block_hash) == (COUNT, chain[-1].block_hash)
    for certificate in certificates():
        height = certificate.checkpoint.height
        if height >= first:
            assert log.certificate_within(height, height) == certificate
        covering = log.certificate_from(height)
        assert covering is not None
        assert covering.checkpoint.height >= height


def test_what_is_left_is_enough_and_the_rest_is_told_apart(tmp_path, options, fill):
    places = options.retention.mode == "full"
    log = fill(tmp_path, options)
    check(log, places=places)
    log.close()
    again = opened(tmp_path, options)
    again.flush()
    check(again, places=places)
    again.close()
    names = {path.name for path in tmp_path.glob("blocks-00000001.*")}
    assert names == {"blocks-00000001.headers"}


def test_the_index_of_a_pruned_log_is_made_anew_from_headers(tmp_path, fill):
    fill(tmp_path, FULL).close()
    (tmp_path / "index.duckdb").unlink()
    for run in tmp_path.glob("*.run"):
        run.unlink()
    log = opened(tmp_path, FULL)
    log.flush()
    check(log, places=False)
    log.close()


def test_an_archive_keeps_all_and_may_be_pruned_later(tmp_path, fill):
    log = fill(tmp_path, ARCHIVE)
    assert log.first_height() == 1
    assert len(log.records(1, COUNT, 10**9)) == COUNT
    log.close()
    later = opened(tmp_path, LIGHT)
    later.flush()
    check(later, places=False)
    later.close()


def test_nothing_goes_that_a_start_or_a_joiner_needs():
    retention = Retention("light", 4)
    assert retention.first_kept(100, [90, 80]) == 77
    assert retention.first_kept(70, [90, 80]) == 67
    assert retention.first_kept(100, []) == 1
    assert Retention("archive", 4).first_kept(100, [90, 80]) == 1
    assert Retention("light").first_kept(2 * 10_000, [15_000]) == 5_001
    assert Retention("full").first_kept(2 * 10**6, [2 * 10**6]) == 10**6 + 1


class KilledError(Exception):
    """Stands for the death of the process."""


def killed(*_: Any, **__: Any) -> Any:
    raise KilledError


def pruned_until(
    fill: Fill, path: Path, options: LogOptions, step: str, patch: pytest.MonkeyPatch
) -> None:
    """An archive is opened to be pruned, and its process dies before a step of that."""
    fill(path, ARCHIVE).close()
    with patch.context() as patched:
        patched.setattr(DuckLog, "prune", lambda _: None)
        log = opened(path, options)
        sequence = log._due()
        assert sequence == 1
        if step == "rename":
            patched.setattr(Path, "replace", killed)
        elif step == "remove":
            patched.setattr(Segments, "_remove_blocks", killed)
        elif step == "forget":
            patched.setattr("qnet_actors.ledger.index.Index.forget", killed)
        with pytest.raises(KilledError):
            log._segments.prune(sequence)
        log.close()


@pytest.mark.parametrize("step", ["rename", "remove", "forget"])
def test_a_kill_at_any_step_leaves_a_whole_log(tmp_path, monkeypatch, step, fill):
    pruned_until(fill, tmp_path, LIGHT, step, monkeypatch)
    with monkeypatch.context() as patched:
        # As it is found, before pruning goes on.
        patched.setattr(DuckLog, "prune", lambda _: None)
        log = opened(tmp_path, LIGHT)
        assert log.headers(1, COUNT) == [encode(b.record.header) for b in blocks(COUNT)]
        assert (log.first_height() == 1) == (step == "rename")
        assert recover(log, GENESIS).tip.height == COUNT
        left = list(tmp_path.glob("blocks-00000001.duckdb"))
        assert bool(left) == (step == "rename")
        log.close()
    log = opened(tmp_path, LIGHT)
    log.flush()
    check(log, places=False)
    log.close()
    assert list(tmp_path.glob("blocks-00000001.*")) == [tmp_path / "blocks-00000001.headers"]


def test_a_full_disk_stops_pruning_and_nothing_else(tmp_path, monkeypatch, caplog, fill):
    log = fill(tmp_path, ARCHIVE)
    log.close()

    def full(*_: Any, **__: Any) -> Any:
        raise QnetError(Code.DISK_FULL, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(segments, "write_pruned", full)
        log = opened(tmp_path, LIGHT)
        log.flush()
        assert "no space left" in caplog.text
        assert log.first_height() == 1
        assert len(log.records(1, COUNT, 10**9)) == COUNT
    log.prune()
    log.flush()
    check(log, places=False)
    log.close()


def test_a_fault_of_pruning_is_told_to_the_writer(tmp_path, monkeypatch, fill):
    fill(tmp_path, ARCHIVE).close()
    with monkeypatch.context() as patched:
        patched.setattr(segments, "write_pruned", killed)
        log = opened(tmp_path, LIGHT)
        with pytest.raises(KilledError):
            log.flush()
    log.prune()
    with pytest.raises(KilledError):
        log.write([])
    log.close()


def test_blocks_that_are_gone_cost_no_file(tmp_path, monkeypatch, fill):
    fill(tmp_path, FULL).close()
    log = opened(tmp_path, FULL)
    monkeypatch.setattr(segments, "PrunedSegment", killed)
    assert log.first_height() > 2
    assert log.records(1, COUNT, 10**9) == []
    with pytest.raises(QnetError) as refused:
        LedgerQueries(log).transaction(receipt_id(blocks(COUNT)[0].record.receipts[1]))
    assert refused.value.code is Code.PRUNED
    log.close()


def test_damage_of_a_file_of_headers_is_told(tmp_path, fill):
    fill(tmp_path, LIGHT).close()
    path = tmp_path / "blocks-00000001.headers"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(QnetError) as refused:
        PrunedSegment(path, CHAIN_ID)
    assert refused.value.code is Code.DATA_CORRUPT
    log = opened(tmp_path, LIGHT)
    with pytest.raises(QnetError) as refused:
        log.headers(1, 1)
    assert refused.value.code is Code.DATA_CORRUPT
    # A start does not need it.
    assert recover(log, GENESIS).tip.height == COUNT
    log.close()


def test_headers_of_another_network_are_refused(tmp_path, fill):
    fill(tmp_path, LIGHT).close()
    with pytest.raises(QnetError) as refused:
        PrunedSegment(tmp_path / "blocks-00000001.headers", bytes(32))
    assert refused.value.code is Code.WRONG_CHAIN


def test_peers_are_given_what_is_kept_and_join_where_it_is_not_enough(tmp_path, fill):
    log = fill(tmp_path, LIGHT)
    first = log.first_height()
    assert read_answer(log, LedgerRequest(first - 1, 100)).records == ()
    answer = read_answer(log, LedgerRequest(first, 100))
    assert len(answer.records) == COUNT - first + 1
    # It asks for blocks first, and of nobody has it the first one.
    rig = Rig(GENESIS, snapshots=SnapshotSettings(ahead_blocks_min=1_000))
    rig.handle(CatchUp((1, 2, 3), certificates()[-1].checkpoint.height))
    asked = serve(rig, log)
    assert any(isinstance(message, SnapshotRequest) for _, message in asked)
    (joined,) = [event for event in rig.to_gateway if isinstance(event, Joined)]
    assert joined.record.header.height == snapshot_heights()[1]
    assert rig.tip.height == certificates()[-1].checkpoint.height
    assert rig.halted is None
    drive(rig, 0)
    log.close()


def test_a_history_that_is_behind_begins_where_blocks_are_kept(tmp_path, fill):
    log = fill(tmp_path / "ledger", LIGHT)
    history = History(tmp_path / "history", GENESIS, log, 1_000)
    history.flush()
    assert (history.first_height, history.height) == (log.first_height(), COUNT)
    with pytest.raises(QnetError) as refused:
        history.account(address(0), 1)
    assert refused.value.code is Code.PRUNED
    history.close()
    log.close()


def test_a_history_keeps_what_the_log_does_not(tmp_path, fill):
    archive = fill(tmp_path / "ledger", ARCHIVE)
    history = History(tmp_path / "history", GENESIS, archive, 1_000)
    history.flush()
    was = history.account(address(1), 2)
    history.close()
    archive.close()
    log = opened(tmp_path / "ledger", LIGHT)
    log.flush()
    assert log.first_height() > 2
    again = History(tmp_path / "history", GENESIS, log, 1_000)
    again.flush()
    assert again.account(address(1), 2) == was
    again.close()
    log.close()


def test_blocks_are_written_while_others_are_pruned(tmp_path, fill):
    """What is pruned in the background never shows as a hole."""
    log = fill(tmp_path, LIGHT)
    rig = Rig(GENESIS)
    drive(rig, 40)
    for write in rig.log._disk.blocks[COUNT:]:
        log.write([write])
        log.prune()
        height = write.record.header.height
        assert log.records(height, 1, 0) == [write.encoded]
        assert len(log.headers(1, 100)) == height
    log.flush()
    assert log.last_height() == 40
    log.close()
