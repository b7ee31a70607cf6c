"""Both batch stores keep the same promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qnet_actors.mempool.segments import FileBatchStore
from qnet_actors.mempool.store import (
    BatchCache,
    DropBatches,
    Executed,
    MemoryBatchStore,
    PutBatch,
    PutKeys,
    Recovered,
)
from qnet_actors.wire.batches import Batch, build_batch
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.messages import PublicKey
from tests.mempool.world import CHAIN_ID, SCHEME, Client

ALICE = Client(1)


def batch(sequence: int, author: int = 0, shard: int = 0, count: int = 2) -> Batch:
    transactions = [ALICE.transaction(100 * sequence + n) for n in range(count)]
    return build_batch(
        transactions, chain_id=CHAIN_ID, epoch=0, author=author, shard=shard, sequence=sequence
    )


def put(made: Batch) -> PutBatch:
    return PutBatch(made.digest, made.encode())


class Kind:
    """Opens a store, and opens it again as after a crash."""

    def __init__(self, directory: Path | None, power: bool) -> None:
        self._directory = directory
        self._power = power
        self.store: Any = MemoryBatchStore() if directory is None else None
        self.recovered = Recovered()
        self.open()

    def open(self) -> None:
        if self._directory is not None:
            self.store = FileBatchStore(
                self._directory, power=self._power, segment_size_bytes=1_500, cache_size_bytes=800
            )
        self.recovered = self.store.load()

    def crash(self) -> None:
        if self._directory is None:
            self.store.crash()
        else:
            self.store.close()
        self.open()


@pytest.fixture(params=["memory", "process", "power"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    made = Kind(None if request.param == "memory" else tmp_path, request.param == "power")
    yield made
    made.store.close()


def test_a_batch_is_read_before_and_after_it_is_written(kind: Kind) -> None:
    made = batch(1)
    assert made.digest not in kind.store
    assert kind.store.get(made.digest) is None
    assert kind.store.encoded(made.digest) is None
    kind.store.put(made)
    for _ in range(2):
        assert made.digest in kind.store
        assert kind.store.get(made.digest).digest == made.digest
        assert kind.store.encoded(made.digest) == made.encode()
        kind.store.write([put(made)])


def test_what_was_written_survives_and_what_was_not_does_not(kind: Kind) -> None:
    written, lost = batch(1), batch(2)
    kind.store.put(written)
    kind.store.put(lost)
    kind.store.write([put(written)])
    kind.crash()
    assert [b.digest for b in kind.recovered.batches] == [written.digest]
    assert kind.recovered.batches[0].header == written.header
    assert kind.recovered.batches[0].size_bytes == len(written.encode())
    assert lost.digest not in kind.store
    assert kind.store.get(written.digest).encode() == written.encode()


def test_many_batches_over_segments_and_out_of_the_cache(kind: Kind) -> None:
    made = [batch(n) for n in range(1, 30)]
    for each in made:
        kind.store.put(each)
    for at in range(0, len(made), 4):
        kind.store.write([put(each) for each in made[at : at + 4]])
    for _ in range(2):
        for each in made:
            assert kind.store.get(each.digest).encode() == each.encode()
            assert kind.store.encoded(each.digest) == each.encode()
        kind.crash()
    assert [b.header.sequence for b in kind.recovered.batches] == list(range(1, 30))


def test_marks_of_execution_survive(kind: Kind) -> None:
    first, second = batch(1), batch(2)
    kind.store.write([put(first), put(second), Executed((first.digest,), 7, 9)])
    kind.crash()
    assert [b.executed for b in kind.recovered.batches] == [(7, 9), None]
    kind.crash()
    assert [b.executed for b in kind.recovered.batches] == [(7, 9), None]


def test_dropped_batches_are_gone(kind: Kind) -> None:
    first, second = batch(1), batch(2)
    for each in (first, second):
        kind.store.put(each)
    kind.store.write([put(first), put(second)])
    kind.store.discard(first.digest)
    assert first.digest not in kind.store
    assert kind.store.get(first.digest) is None
    assert kind.store.encoded(first.digest) is None
    kind.store.write([DropBatches((first.digest,))])
    assert first.digest not in kind.store
    assert kind.store.get(second.digest).digest == second.digest


def test_a_batch_that_comes_back_after_it_was_dropped(kind: Kind) -> None:
    made = batch(1)
    kind.store.put(made)
    kind.store.write([put(made)])
    kind.store.discard(made.digest)
    kind.store.put(made)
    assert made.digest in kind.store
    kind.store.write([DropBatches((made.digest,)), put(made)])
    assert kind.store.get(made.digest).digest == made.digest
    kind.crash()
    assert kind.store.get(made.digest).digest == made.digest


def test_the_highest_sequence_outlives_its_batch(kind: Kind) -> None:
    made = [batch(n, author=n % 2, shard=3) for n in range(1, 20)]
    for each in made:
        kind.store.put(each)
        kind.store.write([put(each)])
    for each in made:
        kind.store.discard(each.digest)
    kind.store.write([DropBatches(tuple(each.digest for each in made))])
    for _ in range(2):
        kind.crash()
        assert kind.recovered.sequences == ((0, 3, 18), (1, 3, 19))


def test_keys_survive(kind: Kind) -> None:
    keys = [PublicKey(SCHEME, Client(n).public_key) for n in range(3)]
    kind.store.write([PutKeys(tuple(keys[:2]))])
    kind.store.write([PutKeys(tuple(keys[1:]))])
    kind.crash()
    assert sorted(k.public_key for k in kind.recovered.keys) == sorted(k.public_key for k in keys)


def test_what_is_no_write_is_refused(kind: Kind) -> None:
    with pytest.raises(QnetError) as error:
        kind.store.write(["a write"])
    assert error.value.code == Code.INTERNAL


def test_a_cache_is_bounded_and_keeps_what_is_not_written() -> None:
    made = [batch(n) for n in range(1, 6)]
    cache = BatchCache(2 * made[0].size_bytes + 1)
    for each in made:
        cache.pin(each)
    assert all(cache.get(each.digest) is each for each in made)
    for each in made:
        cache.written(each.digest)
    assert [cache.get(each.digest) is not None for each in made] == [False] * 3 + [True] * 2
    cache.get(made[3].digest)
    cache.add(made[0])
    assert cache.get(made[3].digest) is not None
    assert cache.get(made[4].digest) is None
    cache.remove(made[3].digest)
    cache.remove(made[0].digest)
    cache.add(made[1])
    cache.add(made[2])
    assert cache.get(made[1].digest) is not None


def test_a_cache_keeps_one_batch_whatever_its_size() -> None:
    made = batch(1)
    cache = BatchCache(1)
    cache.add(made)
    cache.add(made)
    assert cache.get(made.digest) is made
