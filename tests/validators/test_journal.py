from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.validators.journal import FileJournal, MemoryJournal, frame, read_frames
from qnet_actors.validators.journal_entries import BlockEntry, Entry, RoundMinEntry
from qnet_actors.validators.recovery import first_snapshot, recover
from qnet_actors.wire.batches import BatchRef
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.dag import DagBlock
from tests.validators.support import VERIFIER, genesis_blocks, make_block, make_genesis

GENESIS = make_genesis()
COMMITTEE = GENESIS.committee()
SNAPSHOT = first_snapshot(GENESIS, COMMITTEE, 2)


def chain(length: int) -> list[DagBlock]:
    """Rounds of four blocks."""
    below = list(genesis_blocks(GENESIS))
    blocks: list[DagBlock] = []
    for round_ in range(1, length + 1):
        made = [make_block(round_, author, below) for author in range(4)]
        blocks += made
        below = [block.ref for block in made]
    return blocks


BLOCKS = chain(4)
ENTRIES: list[Entry] = [BlockEntry(block.encoded) for block in BLOCKS]


def written(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def refused(code: Code):
    return pytest.raises(QnetError, check=lambda error: error.code == code)


def test_a_new_journal_is_empty_and_must_begin_with_a_snapshot(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal")
    assert journal.journalled.snapshot is None
    with refused(Code.DATA_CORRUPT):
        journal.write(ENTRIES[:1])
    journal.close()


def test_what_was_written_is_read_back_in_order(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    journal.write([SNAPSHOT])
    journal.write(ENTRIES[:3])
    journal.write([RoundMinEntry(9), *ENTRIES[3:5]])
    journal.close()
    again = FileJournal(tmp_path)
    again.write(ENTRIES[5:])
    again.close()
    final = FileJournal(tmp_path)
    assert final.journalled.snapshot == SNAPSHOT
    assert list(final.journalled.entries) == [
        *ENTRIES[:3],
        RoundMinEntry(9),
        *ENTRIES[3:],
    ]
    assert final.journalled.torn_bytes == 0
    final.close()


def test_a_snapshot_begins_a_segment_and_removes_the_older_ones(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    journal.write([SNAPSHOT])
    journal.write(ENTRIES[:4])
    newer = msgspec.structs.replace(SNAPSHOT, round_min=5)
    journal.write([ENTRIES[4], newer, ENTRIES[5]])
    journal.write([ENTRIES[6]])
    journal.close()
    assert [path.name for path in written(tmp_path)] == ["journal-0000000002.seg"]
    again = FileJournal(tmp_path)
    assert again.journalled.snapshot == newer
    assert list(again.journalled.entries) == ENTRIES[5:7]
    again.close()


def test_a_crash_while_rotating_leaves_the_old_segment_or_the_new(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    journal.write([SNAPSHOT])
    journal.write(ENTRIES[:2])
    journal.close()
    # Before the rename: a temporary file, whatever is in it.
    (tmp_path / "journal-0000000002.tmp").write_bytes(b"half")
    old = FileJournal(tmp_path)
    assert list(old.journalled.entries) == ENTRIES[:2]
    old.close()
    assert [path.name for path in written(tmp_path)] == ["journal-0000000001.seg"]
    # After the rename, before the old one is removed.
    newer = msgspec.structs.replace(SNAPSHOT, round_min=5)
    (tmp_path / "journal-0000000002.seg").write_bytes(frame([newer]))
    new = FileJournal(tmp_path)
    assert new.journalled.snapshot == newer
    new.close()
    assert [path.name for path in written(tmp_path)] == ["journal-0000000002.seg"]


def test_a_torn_tail_is_cut_at_every_byte_and_writing_goes_on(tmp_path: Path) -> None:
    sound = frame([SNAPSHOT]) + frame(ENTRIES[:2])
    torn = frame([RoundMinEntry(7), RoundMinEntry(8)])
    for cut in range(1, len(torn)):
        path = tmp_path / str(cut)
        path.mkdir()
        segment = path / "journal-0000000001.seg"
        segment.write_bytes(sound + torn[:cut])
        journal = FileJournal(path, sync=False)
        assert list(journal.journalled.entries) == ENTRIES[:2]
        assert journal.journalled.torn_bytes == cut
        journal.write([RoundMinEntry(9)])
        journal.close()
        assert segment.read_bytes() == sound + frame([RoundMinEntry(9)])


def test_a_tail_of_zeros_is_torn() -> None:
    data = frame([SNAPSHOT]) + frame(ENTRIES[:1])
    journalled, sound_bytes = read_frames(data + bytes(4_096))
    assert sound_bytes == len(data)
    assert journalled.torn_bytes == 4_096


def test_the_likeness_of_a_frame_inside_a_torn_one_does_not_count() -> None:
    inner = frame([RoundMinEntry(5)])
    assert len(inner) <= 32
    header = msgspec.structs.replace(
        BLOCKS[0].header, batches=(BatchRef(0, 0, inner.ljust(32, b"x")),)
    )
    whole = frame([SNAPSHOT]) + frame([BlockEntry(DagBlock(header, b"").encoded)])
    assert inner in whole
    journalled, _ = read_frames(whole[:-1])
    assert journalled.torn_bytes > 0
    assert journalled.entries == ()


@given(st.data())
@settings(max_examples=100)
def test_damage_that_sound_frames_follow_is_refused(data: st.DataObject) -> None:
    first = frame([SNAPSHOT])
    frames = [frame([entry]) for entry in ENTRIES[:3]]
    whole = bytearray(first + b"".join(frames))
    at = data.draw(st.integers(0, len(whole) - len(frames[-1]) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with refused(Code.DATA_CORRUPT):
        read_frames(bytes(whole))


def test_a_damaged_segment_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    journal.write([SNAPSHOT])
    journal.write(ENTRIES[:1])
    journal.write(ENTRIES[1:2])
    journal.close()
    (segment,) = written(tmp_path)
    data = bytearray(segment.read_bytes())
    data[len(frame([SNAPSHOT])) + 40] ^= 1
    segment.write_bytes(data)
    with refused(Code.DATA_CORRUPT):
        FileJournal(tmp_path)
    assert segment.read_bytes() == data


def test_a_segment_without_its_snapshot_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal-0000000003.seg").write_bytes(frame(ENTRIES[:1]))
    with refused(Code.DATA_CORRUPT):
        FileJournal(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_after_a_failed_write_none_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    journal = FileJournal(tmp_path)
    journal.write([SNAPSHOT])

    def full(descriptor: int) -> None:
        raise OSError(number, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with refused(Code.DISK_FULL):
            journal.write(ENTRIES[:1])
    with refused(Code.DATA_CORRUPT):
        journal.write(ENTRIES[:1])
    journal.close()


def test_every_write_is_synced_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for sync in (True, False):
        synced.clear()
        journal = FileJournal(tmp_path / str(sync), sync=sync)
        journal.write([SNAPSHOT])
        rotated = len(synced)
        journal.write(ENTRIES[:3])
        assert len(synced) - rotated == (1 if sync else 0)
        # A new segment: the file and its directory.
        assert rotated == (2 if sync else 0)
        journal.close()


def test_the_memory_journal_loses_what_it_is_told_to() -> None:
    journal = MemoryJournal()
    journal.write([SNAPSHOT])
    for entry in ENTRIES[:3]:
        journal.write([entry])
    found = journal.crash()
    assert list(found.journalled.entries) == ENTRIES[:3]
    with refused(Code.DATA_CORRUPT):
        journal.write(ENTRIES[3:4])
    found = found.crash(lost_writes=1, torn_bytes=5)
    assert list(found.journalled.entries) == ENTRIES[:1]
    assert found.journalled.torn_bytes > 0
    newer = msgspec.structs.replace(SNAPSHOT, round_min=3)
    found.write([ENTRIES[1], newer, ENTRIES[2]])
    assert found.journalled.snapshot == newer
    assert list(found.journalled.entries) == ENTRIES[2:3]


def test_recovery_checks_blocks_again_and_knows_the_last_own_one() -> None:
    journal = MemoryJournal()
    journal.write([SNAPSHOT, *ENTRIES, RoundMinEntry(40)])
    recovered = recover(journal.journalled, GENESIS, COMMITTEE, 2, VERIFIER)
    assert recovered.blocks == tuple(BLOCKS)
    assert recovered.own == next(b.ref for b in BLOCKS if b.ref.author == 2 and b.ref.round == 4)
    assert recovered.round_min == 40
    assert not recovered.is_new


def test_recovery_of_nothing_is_new() -> None:
    recovered = recover(MemoryJournal().journalled, GENESIS, COMMITTEE, 2, VERIFIER)
    assert recovered.is_new
    assert recovered.own == genesis_blocks(GENESIS)[2]


def test_recovery_refuses_bad_signatures_and_bad_blocks() -> None:
    bad = DagBlock(BLOCKS[0].header, bytes(32))
    header = msgspec.structs.replace(BLOCKS[0].header, ancestors=())
    for block in (bad, DagBlock(header, BLOCKS[0].signature)):
        journal = MemoryJournal()
        journal.write([SNAPSHOT, BlockEntry(block.encoded)])
        with refused(Code.DATA_CORRUPT):
            recover(journal.journalled, GENESIS, COMMITTEE, 2, VERIFIER)


def test_recovery_refuses_the_journal_of_another() -> None:
    journal = MemoryJournal()
    journal.write([SNAPSHOT])
    other = make_genesis((2, 1, 1, 1))
    with refused(Code.WRONG_CHAIN):
        recover(journal.journalled, other, other.committee(), 2, VERIFIER)
    with refused(Code.CONFIGURATION_INVALID):
        recover(journal.journalled, GENESIS, COMMITTEE, 1, VERIFIER)
    journal.write([msgspec.structs.replace(SNAPSHOT, epoch=1)])
    with refused(Code.WRONG_EPOCH):
        recover(journal.journalled, GENESIS, COMMITTEE, 2, VERIFIER)


def test_a_large_write_is_parted_into_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qnet_actors.validators.journal.FRAME_BLOCKS_BYTES_MAX", 1_000)
    entries = [BlockEntry(block.encoded) for block in BLOCKS]
    assert sum(len(entry.block) for entry in entries) > 3_000
    journal = FileJournal(tmp_path)
    journal.write([SNAPSHOT, *entries])
    journal.close()
    (segment,) = tmp_path.glob("*.seg")
    assert segment.read_bytes().count(b"QJ01") > 2
    again = FileJournal(tmp_path)
    again.close()
    found = again.journalled
    assert (found.snapshot, found.entries) == (SNAPSHOT, tuple(entries))
