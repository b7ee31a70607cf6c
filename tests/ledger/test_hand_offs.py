"""What a validator keeps of the ends of epochs."""

from __future__ import annotations

import pytest

from qnet_actors.ledger import DuckLog, HandOffs, LogOptions, MemoryLog, hand_offs, recover
from qnet_actors.ledger.hand_offs import make_hand_off
from qnet_actors.ledger.writes import BlockWrite, CertificateWrite
from qnet_actors.light import HandOff
from qnet_actors.wire.codec import Codec, encode
from tests.ledger.epochs import GENESIS, drive_epochs, told


@pytest.fixture(params=["memory", "disk"])
def log(request, tmp_path):
    made: MemoryLog | DuckLog
    if request.param == "memory":
        made = MemoryLog()
    else:
        options = LogOptions(fsync=False, segment_size_bytes=9_000)
        made = DuckLog(tmp_path / "ledger", GENESIS.chain_id(), options)
    yield made
    made.close()


def test_the_last_end_can_be_shown_at_any_time_of_the_next_epoch(log, tmp_path):
    assert drive_epochs(log).hand_offs == told().hand_offs
    # The log is well into the last epoch.
    state = recover(log, GENESIS).state
    assert make_hand_off(log, state, GENESIS) == told().hand_offs[-1]
    kept = HandOffs(tmp_path / "hand-offs")
    kept.keep(log, state, GENESIS)
    assert [kept.read(epoch) for epoch in range(5)] == [None] * 3 + [told().hand_offs[-1], None]


def test_a_damaged_file_is_made_anew(log, tmp_path):
    drive_epochs(log)
    state = recover(log, GENESIS).state
    kept = HandOffs(tmp_path / "hand-offs")
    kept.keep(log, state, GENESIS)
    (file,) = (tmp_path / "hand-offs").iterdir()
    whole = file.read_bytes()
    assert whole == encode(told().hand_offs[-1])
    for damaged in (whole[:-1], b"", whole + b"\0"):
        file.write_bytes(damaged)
        file.with_suffix(".new").write_bytes(b"left by a crash")
        assert kept.read(3) is None
        kept.keep(log, state, GENESIS)
        assert kept.read(3) == told().hand_offs[-1]
    assert list((tmp_path / "hand-offs").iterdir()) == [file]


def test_nothing_is_kept_that_cannot_be_shown(tmp_path):
    whole = MemoryLog()
    drive_epochs(whole)
    end = told().hand_offs[0].header.height
    kept = HandOffs(tmp_path / "hand-offs")
    log = MemoryLog()
    kept.keep(log, recover(log, GENESIS).state, GENESIS)
    blocks: list[BlockWrite] = list(whole._disk.blocks)
    log.write(blocks[: end - 1])
    # The epoch goes on.
    kept.keep(log, recover(log, GENESIS).state, GENESIS)
    log.write(blocks[end - 1 : end])
    # It has ended, and no quorum has signed for that.
    state = recover(log, GENESIS).state
    kept.keep(log, state, GENESIS)
    assert make_hand_off(log, state, GENESIS) is None
    assert not (tmp_path / "hand-offs").exists()
    log.write([CertificateWrite(told().hand_offs[0].certificate)])
    kept.keep(log, state, GENESIS)
    assert kept.read(0) == told().hand_offs[0]


def test_an_end_that_is_too_large_is_not_kept_without_a_word(tmp_path, monkeypatch, caplog):
    log = MemoryLog()
    drive_epochs(log)
    small = Codec[HandOff](HandOff, len(encode(told().hand_offs[-1])) - 1)
    monkeypatch.setattr(hand_offs, "HAND_OFF_CODEC", small)
    HandOffs(tmp_path / "hand-offs").keep(log, recover(log, GENESIS).state, GENESIS)
    assert not (tmp_path / "hand-offs").exists()
    assert "the end of epoch 3" in caplog.text
