"""Framed files: what is whole comes back, what is torn is cut, nothing else is believed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from qnet_actors.mempool.frames import HEAD_BYTES, FrameFile, FrameReader, read_frame, rewrite
from qnet_actors.wire.codes import Code, QnetError

PAYLOADS = [b"a", b"bb" * 100, bytes(5_000), b"end"]


def written(path: Path) -> list[int]:
    file = FrameFile(path, 0)
    offsets = file.append(PAYLOADS[:2]) + file.append(PAYLOADS[2:])
    file.sync()
    file.close()
    return offsets


def test_frames_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "f"
    offsets = written(path)
    reader = FrameReader(path, 10_000)
    assert list(reader) == list(zip(offsets, PAYLOADS, strict=True))
    assert not reader.torn
    assert reader.end == path.stat().st_size
    assert [read_frame(path, at, len(p)) for at, p in zip(offsets, PAYLOADS, strict=True)] == (
        PAYLOADS
    )


def test_a_file_cut_anywhere_gives_the_whole_frames_before(tmp_path: Path) -> None:
    path = tmp_path / "f"
    offsets = written(path)
    whole = path.read_bytes()
    ends = [*offsets[1:], len(whole)]
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        reader = FrameReader(path, 10_000)
        found = [payload for _, payload in reader]
        count = sum(end <= size for end in ends)
        assert found == PAYLOADS[:count]
        assert reader.end == (ends[count - 1] if count else 0)
        assert reader.torn == (reader.end < size)


def test_any_flipped_bit_ends_the_file_there(tmp_path: Path) -> None:
    path = tmp_path / "f"
    offsets = written(path)
    whole = path.read_bytes()
    for at in (*range(HEAD_BYTES + 4), offsets[1], offsets[1] + 5, offsets[3] + HEAD_BYTES):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        reader = FrameReader(path, 10_000)
        assert len(list(reader)) == sum(offset <= at for offset in offsets) - 1
        assert reader.torn


def test_a_length_over_the_bound_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    written(path)
    reader = FrameReader(path, 4_999)
    assert [payload for _, payload in reader] == PAYLOADS[:2]
    assert reader.torn


def test_appending_goes_on_after_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "f"
    offsets = written(path)
    file = FrameFile(path, offsets[2])
    assert path.stat().st_size == offsets[2]
    assert file.append([b"new"]) == [offsets[2]]
    file.close()
    assert [payload for _, payload in FrameReader(path, 10_000)] == [*PAYLOADS[:2], b"new"]


@pytest.mark.parametrize("case", ["moved", "shorter", "gone", "damaged"])
def test_a_frame_that_is_not_what_was_written(tmp_path: Path, case: str) -> None:
    path = tmp_path / "f"
    offset, length = written(path)[1], len(PAYLOADS[1])
    if case == "moved":
        offset += 1
    elif case == "shorter":
        length -= 1
    elif case == "gone":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[offset + HEAD_BYTES] ^= 1
        path.write_bytes(data)
    with pytest.raises(QnetError) as error:
        read_frame(path, offset, length)
    assert error.value.code == Code.DATA_CORRUPT


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = os.writev

    def grudging(fd: int, buffers: list) -> int:
        return true(fd, [memoryview(buffers[0])[:3]])

    monkeypatch.setattr(os, "writev", grudging)
    path = tmp_path / "f"
    written(path)
    assert [payload for _, payload in FrameReader(path, 10_000)] == PAYLOADS


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_has_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(fd: int, buffers: list) -> int:
        raise OSError(number, "no space")

    file = FrameFile(tmp_path / "f", 0)
    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(QnetError) as error:
        file.append([b"x"])
    assert error.value.code == Code.DISK_FULL
    file.close()


def test_rewrite_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f.log"
    written(path)
    file = rewrite(path, [b"only"])
    file.append([b"more"])
    file.close()
    assert [payload for _, payload in FrameReader(path, 10_000)] == [b"only", b"more"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["f.log"]
    assert path.stat().st_mode & 0o777 == 0o600
