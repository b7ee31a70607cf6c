"""The store's files: torn tails, damage, segments that go, logs that are rewritten."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from qnet_actors.mempool import logs
from qnet_actors.mempool.frames import HEAD_BYTES, FrameFile, FrameReader
from qnet_actors.mempool.segments import FileBatchStore
from qnet_actors.mempool.store import DropBatches, Executed, PutKeys
from qnet_actors.wire.batches import Batch
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.messages import PublicKey
from tests.mempool.test_store import batch, put
from tests.mempool.world import SCHEME, digest_of

MADE = [batch(n) for n in range(1, 10)]
SIZE = len(MADE[0].encode())


def opened(directory: Path, **fields: Any) -> FileBatchStore:
    terms: dict[str, Any] = {
        "power": False,
        "segment_size_bytes": 3 * SIZE,
        "cache_size_bytes": 1,
        "disk_free_bytes_min": 0,
    }
    return FileBatchStore(directory, **(terms | fields))


def loaded(directory: Path, **fields: Any) -> FileBatchStore:
    store = opened(directory, **fields)
    store.load()
    return store


def fill(store: FileBatchStore, made: list[Batch]) -> None:
    for each in made:
        store.put(each)
        store.write([put(each)])


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("segment-*"))


def drop(store: FileBatchStore, made: list[Batch]) -> None:
    for each in made:
        store.discard(each.digest)
    store.write([DropBatches(tuple(each.digest for each in made))])


def test_writing_before_loading_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QnetError):
        opened(tmp_path).write([])


def test_segments_are_unlinked_when_all_their_batches_are_dropped(tmp_path: Path) -> None:
    store = loaded(tmp_path)
    fill(store, MADE)
    assert len(files(tmp_path)) == 3
    drop(store, MADE[3:5])
    assert len(files(tmp_path)) == 3
    drop(store, MADE[5:6])
    assert files(tmp_path) == ["segment-000000000001.log", "segment-000000000003.log"]
    assert store.get(MADE[0].digest) is not None
    # The one that is appended to goes once it is full and another one takes its place.
    drop(store, MADE[6:9])
    assert len(files(tmp_path)) == 2
    fill(store, [batch(20)])
    assert files(tmp_path) == ["segment-000000000001.log", "segment-000000000004.log"]
    store.close()
    again = opened(tmp_path)
    digests = {b.digest for b in again.load().batches}
    assert digests == {*(each.digest for each in MADE[:3]), batch(20).digest}
    again.close()


def test_marks_of_unlinked_segments_are_forgotten(tmp_path: Path) -> None:
    store = loaded(tmp_path)
    fill(store, MADE)
    store.write([Executed(tuple(each.digest for each in MADE), 1, 1)])
    drop(store, MADE[:3])
    store.close()
    again = loaded(tmp_path)
    assert again._marks is not None
    assert set(again._marks.executed) == {each.digest for each in MADE[3:]}
    again.close()


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("cut", [1, HEAD_BYTES, SIZE // 2, SIZE])
def test_a_torn_tail_is_cut(tmp_path: Path, cut: int, power: bool) -> None:
    store = loaded(tmp_path, power=power)
    fill(store, MADE[:5])
    store.close()
    path = tmp_path / files(tmp_path)[-1]
    os.truncate(path, path.stat().st_size - cut)
    again = opened(tmp_path, power=power)
    recovered = again.load()
    assert [b.digest for b in recovered.batches] == [each.digest for each in MADE[:4]]
    assert again.bytes_cut == SIZE + HEAD_BYTES - cut
    fill(again, MADE[4:6])
    again.close()
    third = opened(tmp_path, power=power)
    assert [b.digest for b in third.load().batches] == [each.digest for each in MADE[:6]]
    assert third.bytes_cut == 0
    third.close()


def damage(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_damage_before_the_tail_stops_who_relies_on_the_disk(tmp_path: Path) -> None:
    store = loaded(tmp_path, power=True)
    fill(store, MADE)
    store.close()
    damage(tmp_path / files(tmp_path)[0], HEAD_BYTES + 100)
    with pytest.raises(QnetError) as error:
        loaded(tmp_path, power=True)
    assert error.value.code == Code.DATA_CORRUPT
    # Without `power` nothing is promised after a loss of power: what is whole is kept.
    again = opened(tmp_path)
    assert len(again.load().batches) == len(MADE) - 3
    again.close()


def test_damage_that_comes_later_is_noticed_on_reading(tmp_path: Path) -> None:
    store = loaded(tmp_path)
    fill(store, MADE[:3])
    damage(tmp_path / files(tmp_path)[0], HEAD_BYTES + 100)
    for read in (store.get, store.encoded):
        with pytest.raises(QnetError) as error:
            read(MADE[0].digest)
        assert error.value.code == Code.DATA_CORRUPT
    assert store.get(MADE[2].digest) is not None
    store.close()


def test_a_good_frame_of_something_else(tmp_path: Path) -> None:
    for name in ("segment-000000000001.log", "marks.log", "keys.log"):
        directory = tmp_path / name.partition(".")[0]
        directory.mkdir()
        file = FrameFile(directory / name, 0)
        file.append([b"\xc0 something else"])
        file.close()
        with pytest.raises(QnetError) as error:
            loaded(directory)
        assert error.value.code == Code.DATA_CORRUPT


def test_power_syncs_what_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    true = FrameFile.sync

    def noted(self: FrameFile) -> None:
        synced.append(self.path.name)
        true(self)

    monkeypatch.setattr(FrameFile, "sync", noted)
    key = PutKeys((PublicKey(SCHEME, digest_of(1)),))
    for power in (False, True):
        directory = tmp_path / str(power)
        store = loaded(directory, power=power)
        synced.clear()
        # Gathered writes share one sync a file.
        store.write([put(MADE[0]), put(MADE[1]), key, Executed((MADE[0].digest,), 1, 1)])
        expected = ["keys.log", "marks.log", "segment-000000000001.log"] if power else []
        assert sorted(synced) == expected
        store.close()


def test_keys_are_bounded_and_the_newest_stay(tmp_path: Path) -> None:
    keys = [PublicKey(SCHEME, digest_of(n)) for n in range(50)]
    store = loaded(tmp_path, keys_max=10)
    for key in keys:
        store.write([PutKeys((key,))])
    assert len(list(FrameReader(tmp_path / "keys.log", 1_000))) <= 20
    store.close()
    again = opened(tmp_path, keys_max=10)
    assert again.load().keys == tuple(keys[-10:])
    again.close()


def test_a_torn_key_is_cut(tmp_path: Path) -> None:
    keys = [PublicKey(SCHEME, digest_of(n)) for n in range(3)]
    store = loaded(tmp_path)
    store.write([PutKeys(tuple(keys))])
    store.close()
    path = tmp_path / "keys.log"
    os.truncate(path, path.stat().st_size - 1)
    again = opened(tmp_path)
    assert again.load().keys == tuple(keys[:2])
    again.write([PutKeys((keys[2],))])
    again.close()
    third = opened(tmp_path)
    assert third.load().keys == tuple(keys)
    third.close()


def test_marks_are_rewritten_when_they_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_MARKS_REWRITE_BYTES", 2_000)
    store = loaded(tmp_path)
    fill(store, MADE)
    for height in range(200):
        store.write([Executed((MADE[0].digest,), height, height)])
    assert (tmp_path / "marks.log").stat().st_size < 2_200
    store.close()
    again = opened(tmp_path)
    recovered = again.load()
    assert recovered.batches[0].executed == (199, 199)
    assert recovered.sequences == ((0, 0, 9),)
    again.close()


def test_the_watermark(tmp_path: Path) -> None:
    store = loaded(tmp_path, size_bytes_max=2 * SIZE)
    assert not store.full
    fill(store, MADE[:3])
    assert store.full
    fill(store, MADE[3:4])
    drop(store, MADE[:3])
    assert not store.full
    store.close()
    free = loaded(tmp_path, disk_free_bytes_min=2**62)
    assert free.full
    free.close()


def test_segments_without_a_batch_are_cleared_away_at_the_start(tmp_path: Path) -> None:
    store = loaded(tmp_path)
    fill(store, MADE)
    store.close()
    # One lost all it had in a loss of power.
    os.truncate(tmp_path / files(tmp_path)[0], 5)
    again = loaded(tmp_path)
    assert files(tmp_path)[0] == "segment-000000000002.log"
    assert again.get(MADE[0].digest) is None
    assert again.get(MADE[3].digest) is not None
    drop(again, MADE[3:6])
    fill(again, MADE[3:6])
    again.close()
    third = opened(tmp_path)
    recovered = third.load()
    assert [b.digest for b in recovered.batches] == [each.digest for each in MADE[6:9] + MADE[3:6]]
    assert recovered.sequences == ((0, 0, 9),)
    third.close()


def test_sequences_that_only_a_segment_showed_are_written_before_it_goes(tmp_path: Path) -> None:
    store = loaded(tmp_path)
    others = [batch(n, author=3) for n in (5, 6, 7)]
    fill(store, [*others, *MADE[:1]])
    drop(store, others)
    assert files(tmp_path) == ["segment-000000000002.log"]
    store.close()
    again = opened(tmp_path)
    assert again.load().sequences == ((0, 0, 1), (3, 0, 7))
    again.close()


def test_files_belong_to_their_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "batches"
    store = loaded(directory)
    fill(store, MADE[:1])
    store.write([PutKeys((PublicKey(SCHEME, digest_of(1)),))])
    store.close()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_marks_with_many_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MARK_DIGESTS", 2)
    store = loaded(tmp_path)
    fill(store, MADE)
    store.write([Executed(tuple(each.digest for each in MADE), 3, 4)])
    store.close()
    again = opened(tmp_path)
    assert {b.executed for b in again.load().batches} == {(3, 4)}
    again.close()
