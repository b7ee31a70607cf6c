"""What every block log does, on disk and in memory; and what only a disk can do wrong."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from qnet_actors.ledger import DuckLog, LogOptions, MemoryLog, recover
from qnet_actors.ledger.databases import copy_database
from qnet_actors.ledger.writes import (
    BlockLog,
    CertificateWrite,
    Place,
    SnapshotWrite,
    all_parts,
    receipt_id,
)
from qnet_actors.state import State, genesis_write_set, sections_root
from qnet_actors.wire.blocks import RECEIPT_CODEC
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.dag import Commit
from tests.ledger.chain import blocks, certificates, chain_genesis

GENESIS = chain_genesis()
CHAIN_ID = GENESIS.chain_id()
# Without fsync, which on a busy disk would be most of the time that these tests take.
SMALL = LogOptions(fsync=False, memory_limit_mb=128, segment_size_bytes=4_000)


def commits_to(height: int) -> tuple[Commit, ...]:
    return tuple(commit for block in blocks()[:height] for commit in block.record.commits)


def snapshot_of(state: State) -> SnapshotWrite:
    """What a ledger keeps at this height of the chain."""
    return SnapshotWrite(state.height, state.root(), commits_to(state.height), state.snapshot())


class Kept:
    """A log that can be closed and opened again."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self.log: BlockLog = MemoryLog() if directory is None else self._duck()

    def _duck(self) -> DuckLog:
        assert self._directory is not None
        return DuckLog(self._directory, CHAIN_ID, SMALL)

    def reopen(self) -> BlockLog:
        if isinstance(self.log, MemoryLog):
            self.log = self.log.crash()
        else:
            self.log.close()
            self.log = self._duck()
        return self.log

    def lives(self) -> Iterator[BlockLog]:
        """The log as it is, then as it is after a restart."""
        yield self.log
        yield self.reopen()

    def settle(self) -> None:
        if isinstance(self.log, DuckLog):
            self.log.flush()


@pytest.fixture(params=["memory", "disk"])
def kept(request, tmp_path):
    kept = Kept(tmp_path / "ledger" if request.param == "disk" else None)
    yield kept
    kept.log.close()


def test_an_empty_log(kept):
    for log in kept.lives():
        assert log.last_height() == 0
        assert log.records(1, 10, 10**6) == log.headers(1, 10) == []
        assert log.newest_certificate() is None
        assert log.certificate_within(1, 10) is None
        assert log.certificate_from(0) is None
        assert log.find_transaction(bytes(32)) is None
        assert log.height_of(bytes(32)) is None
        assert log.snapshot_heights() == []
        assert log.snapshot(1) is None
        assert log.joining() is None
        assert log.first_height() == 1


def test_what_was_written_is_read_before_and_after_a_restart(kept):
    written = blocks()
    kept.log.write(written[:1])
    kept.log.write(written[1:9])
    kept.log.write(())
    for block in written[9:]:
        kept.log.write([block])
    kept.settle()
    for log in kept.lives():
        assert log.last_height() == 24
        encoded = [block.encoded for block in written]
        assert log.records(1, 100, 10**9) == encoded
        assert log.records(5, 7, 10**9) == encoded[4:11]
        assert log.headers(23, 10) == [encode(b.record.header) for b in written[22:]]
        two = len(encoded[2]) + len(encoded[3])
        assert log.records(3, 10, two) == encoded[2:4]
        assert log.records(3, 10, two - 1) == encoded[2:3]
        assert log.records(3, 10, 0) == encoded[2:3]
        assert log.records(25, 10, 10**9) == []
        for height, block in enumerate(written, 1):
            assert log.height_of(block.block_hash) == height
            for position, receipt in enumerate(block.record.receipts):
                assert log.find_transaction(receipt_id(receipt)) == Place(height, position)
        assert log.find_transaction(b"\x01" * 32) is None


def test_an_id_that_only_begins_alike_is_not_found(kept):
    kept.log.write(blocks()[:3])
    id_ = receipt_id(blocks()[1].record.receipts[0])
    for log in kept.lives():
        assert log.find_transaction(id_[:8] + bytes(24)) is None
        assert log.height_of(blocks()[1].block_hash[:8] + bytes(24)) is None


def test_certificates(kept):
    made = certificates()
    heights = [certificate.checkpoint.height for certificate in made]
    assert len(made) >= 6
    for block in blocks():
        kept.log.write([block])
        height = block.record.header.height
        # A certificate comes a few blocks after its checkpoint.
        kept.log.write(
            [
                CertificateWrite(c)
                for c in made
                if c.checkpoint.height == height - 3 and c != made[2]
            ]
        )
    kept.settle()
    stored = [c for c in made if c.checkpoint.height <= 21 and c != made[2]]
    for log in kept.lives():
        assert log.newest_certificate() == stored[-1]
        assert log.certificate_within(1, heights[2]) == made[1]
        assert log.certificate_within(heights[2], heights[2]) is None
        assert log.certificate_within(heights[1], heights[1]) == made[1]
        assert log.certificate_within(1, 24) == stored[-1]
        for height in range(25):
            above = [c for c in stored if c.checkpoint.height >= height]
            assert log.certificate_from(height) == (above[0] if above else None)


@pytest.mark.parametrize("damage", ["cut", "gone", "other bytes"])
def test_a_damaged_run_has_the_index_made_anew(tmp_path, damage):
    kept = Kept(tmp_path)
    for block in blocks():
        kept.log.write([block])
    kept.settle()
    kept.log.close()
    runs = sorted(tmp_path.glob("index-*.run"))
    assert len(runs) > 2
    if damage == "gone":
        runs[1].unlink()
    else:
        data = runs[1].read_bytes()
        runs[1].write_bytes(data[:-1] if damage == "cut" else b"x" + data[1:])
    log = kept.reopen()
    for height, block in enumerate(blocks(), 1):
        for position, receipt in enumerate(block.record.receipts):
            assert log.find_transaction(receipt_id(receipt)) == Place(height, position)
    assert log.find_transaction(bytes(32)) is None
    log.close()


def test_heights_follow_one_another(kept):
    kept.log.write(blocks()[:2])
    for wrong in (blocks()[1], blocks()[3]):
        with pytest.raises(QnetError, match="was due"):
            kept.log.write([wrong])
    kept.log.write(blocks()[2:3])
    assert kept.reopen().last_height() == 3


def test_unknown_writes_are_refused(kept):
    with pytest.raises(TypeError, match="does not write"):
        kept.log.write([object()])


def test_snapshots_newest_first_and_two_at_most(kept):
    state = State()
    state.load(0, genesis_write_set(GENESIS))
    for block in blocks()[:9]:
        kept.log.write([block])
        state.apply(block.record.header.height, block.record.write_set)
        if block.record.checkpoint is not None:
            kept.log.write([snapshot_of(state)])
    kept.settle()
    for log in kept.lives():
        assert log.snapshot_heights() == [9, 6]
        found = log.snapshot(9)
        assert found is not None
        assert sections_root(found.sections) == found.state_root == state.root()
        assert found.commits == commits_to(9)
        other = State()
        other.replace(9, all_parts(found.part, found.sections))
        assert other.root() == state.root()
        assert found.part(0) is found.part(99) is log.snapshot(3) is None
        assert recover(log, GENESIS).tip.height == 9


def test_segments_rotate_and_stay_few_open(tmp_path):
    log = DuckLog(tmp_path, CHAIN_ID, SMALL)
    for block in blocks():
        log.write([block])
    log.flush()
    names = sorted(path.name for path in tmp_path.iterdir())
    segments = [name for name in names if name.startswith("blocks-")]
    assert len([name for name in segments if name.endswith(".duckdb")]) > 5
    # Written to, made ahead, and two that were read.
    assert len(log._segments._open) <= 4
    log.close()
    # What is sealed needs no write-ahead log; nothing half-made is left.
    names = [path.name for path in tmp_path.iterdir()]
    assert not [name for name in names if name.endswith((".wal", ".new", ".building"))]


def test_the_segment_made_ahead_is_not_kept_empty(tmp_path):
    for _ in range(3):
        log = DuckLog(tmp_path, CHAIN_ID, SMALL)
        log.close()
        assert len(list(tmp_path.glob("blocks-*.duckdb"))) == 2
    log = DuckLog(tmp_path, CHAIN_ID, SMALL)
    log.write(blocks()[:3])
    sequence = log._current[0]
    log.close()
    log = DuckLog(tmp_path, CHAIN_ID, SMALL)
    assert log._current[0] == sequence
    log.write(blocks()[3:4])
    assert log.records(1, 10, 10**9) == [block.encoded for block in blocks()[:4]]
    log.close()


def test_a_certificate_alone_makes_a_segment_used(tmp_path):
    log = DuckLog(tmp_path, CHAIN_ID, SMALL)
    while log._current[0] == 1:
        log.write([blocks()[log.last_height()]])
    log.write([CertificateWrite(certificates()[0])])
    sequence = log._current[0]
    log.close()
    log = DuckLog(tmp_path, CHAIN_ID, SMALL)
    assert log._current[0] == sequence
    assert log.newest_certificate() == certificates()[0]
    log.close()


def test_the_index_is_made_again_from_the_segments(tmp_path):
    log = DuckLog(tmp_path, CHAIN_ID, SMALL)
    log.write(blocks())
    for block in blocks():
        assert log.height_of(block.block_hash) == block.record.header.height
    log.close()
    (tmp_path / "index.duckdb").write_bytes(b"not a database")
    log = DuckLog(tmp_path, CHAIN_ID, SMALL)
    for block in blocks():
        height = block.record.header.height
        assert log.height_of(block.block_hash) == height
        id_ = receipt_id(block.record.receipts[1])
        assert log.find_transaction(id_) == Place(height, 1)
    log.close()


def test_a_sealed_segment_is_in_its_file_alone(tmp_path):
    log = DuckLog(tmp_path, CHAIN_ID, LogOptions(segment_size_bytes=4_000))
    while log._current[0] < 3:
        log.write([blocks()[log.last_height()]])
    log.flush()
    assert not log.sealing
    assert not log.snapshotting
    assert not (tmp_path / "blocks-00000001.duckdb.wal").exists()
    assert (tmp_path / "blocks-00000001.duckdb").stat().st_size > 500_000
    log.close()


def test_a_write_ahead_log_becomes_the_file_of_a_later_segment(tmp_path):
    log = DuckLog(tmp_path, CHAIN_ID, SMALL)
    log.write(blocks()[:1])
    used = (tmp_path / "blocks-00000001.duckdb.wal").stat().st_ino
    for block in blocks()[1:]:
        log.write([block])
        log.flush()
    files = [path for path in tmp_path.glob("blocks-*.duckdb") if path.stat().st_ino == used]
    assert len(files) == 1
    assert files[0].name > "blocks-00000001.duckdb"
    log.close()
    assert not (tmp_path / "spare").exists()
    log = DuckLog(tmp_path, CHAIN_ID, SMALL)
    assert log.records(1, 100, 10**9) == [block.encoded for block in blocks()]
    log.close()


def test_a_spare_that_is_a_needed_log_by_another_name_is_not_written_over(tmp_path):
    log = DuckLog(tmp_path / "live", CHAIN_ID, SMALL)
    log.write(blocks()[:3])
    sequence = log._current[0]
    # What a kill leaves between the second name and the end of the checkpoint.
    shutil.copytree(tmp_path / "live", tmp_path / "killed")
    log.close()
    needed = tmp_path / "killed" / f"blocks-{sequence:08d}.duckdb.wal"
    (tmp_path / "killed" / "spare").hardlink_to(needed)
    template, fresh = b"template", tmp_path / "killed" / "fresh"
    before = needed.read_bytes()
    copy_database(template, fresh, tmp_path / "killed" / "spare")
    assert fresh.read_bytes() == template
    assert needed.read_bytes() == before
    log = DuckLog(tmp_path / "killed", CHAIN_ID, SMALL)
    assert not (tmp_path / "killed" / "spare").exists()
    for block in blocks()[3:]:
        log.write([block])
    assert log.records(1, 100, 10**9) == [block.encoded for block in blocks()]
    log.close()


def test_a_missing_segment_is_noticed(tmp_path):
    log = DuckLog(tmp_path, CHAIN_ID, SMALL)
    for block in blocks():
        log.write([block])
    log.close()
    (tmp_path / "blocks-00000003.duckdb").unlink()
    (tmp_path / "index.duckdb").unlink()
    with pytest.raises(QnetError, match="was due") as caught:
        DuckLog(tmp_path, CHAIN_ID, SMALL)
    assert caught.value.code is Code.DATA_CORRUPT


def test_a_damaged_segment_is_refused_with_advice(tmp_path):
    log = DuckLog(tmp_path, CHAIN_ID, LogOptions(fsync=False))
    log.write(blocks()[:4])
    log.close()
    path = tmp_path / "blocks-00000001.duckdb"
    data = bytearray(path.read_bytes())
    data[4096:8192] = os.urandom(4096)
    path.write_bytes(data)
    with pytest.raises(QnetError, match="resync") as caught:
        DuckLog(tmp_path, CHAIN_ID, SMALL)
    assert caught.value.code is Code.DATA_CORRUPT


def test_damage_anywhere_in_a_segment_is_no_fault_of_the_node(tmp_path):
    log = DuckLog(tmp_path, CHAIN_ID, LogOptions(fsync=False))
    log.write(blocks()[:4])
    log.close()
    path = tmp_path / "blocks-00000001.duckdb"
    sound = path.read_bytes()
    refused = []
    for at in range(0, len(sound), len(sound) // 24):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :])
        try:
            damaged = DuckLog(tmp_path, CHAIN_ID, SMALL)
        except QnetError as error:
            refused.append(error.code)
            continue
        try:
            assert damaged.records(1, 100, 10**9) == [block.encoded for block in blocks()[:4]]
        except QnetError as error:
            refused.append(error.code)
        finally:
            damaged.close()
    assert len(refused) > 3
    assert set(refused) == {Code.DATA_CORRUPT}


def test_a_log_of_another_format_is_refused(tmp_path):
    DuckLog(tmp_path, CHAIN_ID, SMALL).close()
    path = min(tmp_path.glob("blocks-*.duckdb"))
    connection = duckdb.connect(str(path))
    connection.execute("UPDATE meta SET version = 2")
    connection.close()
    with pytest.raises(QnetError, match="start the release that wrote it") as caught:
        DuckLog(tmp_path, CHAIN_ID, SMALL)
    assert caught.value.code is Code.DATA_VERSION


def test_another_networks_log_is_refused(tmp_path):
    DuckLog(tmp_path, CHAIN_ID, SMALL).close()
    with pytest.raises(QnetError) as caught:
        DuckLog(tmp_path, bytes(32), SMALL)
    assert caught.value.code is Code.WRONG_CHAIN


def test_a_damaged_snapshot_is_passed_over(tmp_path):
    log = DuckLog(tmp_path, CHAIN_ID, SMALL)
    log.write(blocks()[:6])
    state = State()
    state.load(0, genesis_write_set(GENESIS))
    log.write([SnapshotWrite(3, bytes(32), (), state.snapshot())])
    log.flush()
    (tmp_path / "state-000000000006.duckdb").write_bytes(b"junk")
    assert log.snapshot(6) is None
    assert log.snapshot(3) is not None
    assert recover(log, GENESIS).tip.height == 6
    log.close()


def test_a_part_of_a_snapshot_that_goes_while_it_is_served_is_one_that_lacks(tmp_path):
    log = DuckLog(tmp_path, CHAIN_ID, SMALL)
    log.write(blocks()[:6])
    state = State()
    state.load(0, genesis_write_set(GENESIS))
    log.write([SnapshotWrite(3, bytes(32), (), state.snapshot())])
    log.flush()
    held = log.snapshot(3)
    assert held is not None
    assert held.part(1)
    (tmp_path / "state-000000000003.duckdb").unlink()
    assert held.part(1) is None
    # Nor does a damaged one stop whoever serves it.
    (tmp_path / "state-000000000003.duckdb").write_bytes(b"junk")
    log._snapshots._reader.path = None
    assert held.part(1) is None
    log.close()


def test_a_fault_behind_the_writers_back_stops_the_next_write(tmp_path):
    log = DuckLog(tmp_path, CHAIN_ID, SMALL)
    (tmp_path / "state-000000000003.building").mkdir()
    state = State()
    log.write([*blocks()[:3], SnapshotWrite(3, bytes(32), (), state.snapshot())])
    log._snapshot_thread.submit(int).result()
    with pytest.raises(QnetError, match="could not be created"):
        log.write(blocks()[3:4])
    log.close()


# Gets its blocks from a file: making them would load every kernel of execution.
_WRITER = """
import sys
from pathlib import Path
import msgspec
from qnet_actors.ledger import DuckLog, LogOptions
from qnet_actors.ledger.writes import BlockWrite
from qnet_actors.wire.blocks import BLOCK_RECORD_CODEC
directory, chain, mode = sys.argv[1:]
options = LogOptions(fsync=mode == "fsync", memory_limit_mb=128, segment_size_bytes=4_000)
encoded = msgspec.msgpack.decode(Path(chain).read_bytes(), type=list[bytes])
records = [BLOCK_RECORD_CODEC.decode(data) for data in encoded]
log = DuckLog(Path(directory), records[0].header.chain_id, options)
for record, data in zip(records, encoded):
    log.write([BlockWrite(record, record.header.hash(), data)])
    print(record.header.height, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("mode", "stop"), [("none", 1), ("fsync", 11), ("none", 24)])
def test_what_was_acknowledged_survives_kill(tmp_path, mode, stop):
    root = Path(__file__).parents[2]
    chain = tmp_path / "chain"
    chain.write_bytes(encode([block.encoded for block in blocks()]))
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path / "log"), str(chain), mode],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        acknowledged = 0
        while acknowledged < stop:
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    log = DuckLog(tmp_path / "log", CHAIN_ID, SMALL)
    assert log.last_height() >= acknowledged
    recovered = recover(log, GENESIS)
    assert recovered.tip.block_hash == blocks()[log.last_height() - 1].block_hash
    log.write(blocks()[log.last_height() :])
    for block in blocks():
        id_ = RECEIPT_CODEC.decode(block.record.receipts[0]).transaction_id
        assert log.find_transaction(id_) == Place(block.record.header.height, 0)
    log.close()


def test_a_log_that_cannot_grow_says_that_the_disk_is_full(tmp_path):
    log = DuckLog(tmp_path, CHAIN_ID)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    written = blocks()
    log.write(written[:1])
    # The limit is on the whole process: nothing else may be under way.
    log.flush()
    wal = next(tmp_path.glob("blocks-*.wal"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size, hard))
    try:
        with pytest.raises(QnetError) as refusal:
            log.write(written[1:2])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refusal.value.code == Code.DISK_FULL
    log.close()
    again = DuckLog(tmp_path, CHAIN_ID)
    assert again.last_height() == 1
    again.close()
