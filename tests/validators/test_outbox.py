from __future__ import annotations

from qnet_actors.validators.outbox import LedgerQueue, Naming, OwnBatches
from qnet_actors.wire.batches import BatchRef
from qnet_actors.wire.dag import BlockRef, Commit, DagBlock
from qnet_actors.wire.limits import DAG_BLOCK_BATCHES_MAX
from tests.validators.support import batch_ref, genesis_blocks, make_block, make_genesis

ZERO = genesis_blocks(make_genesis())


def block(round_: int, author: int, *batches: BatchRef) -> DagBlock:
    below = [BlockRef(round_ - 1, a, bytes([a]) * 32) for a in range(4)]
    return make_block(round_, author, below if round_ > 1 else ZERO, batches=batches)


def commit(index: int) -> Commit:
    return Commit(0, index, bytes(32), 0, BlockRef(index, 0, bytes(32)), ())


B = [batch_ref(i) for i in range(10)]


def test_a_batch_named_twice_counts_the_first_time() -> None:
    naming = Naming()
    first = naming.commit([block(1, 0, B[1]), block(2, 0, B[1]), block(2, 2, B[2])], 0)
    assert first == ((0, B[1]), (2, B[2]))
    assert naming.commit([block(3, 2, B[2], B[3])], 0) == ((2, B[3]),)
    assert naming.named_round(0, B[1]) is not None
    assert naming.named_round(1, B[1]) is None


def test_a_batch_that_another_names_or_under_another_sequence_is_still_its_authors() -> None:
    naming = Naming()
    other = BatchRef(0, 9, B[1].digest)
    naming.commit([block(1, 3, B[1]), block(1, 0, other)], 0)
    assert naming.commit([block(2, 0, B[1])], 0) == ((0, B[1]),)


def test_a_batch_may_be_named_again_once_its_last_naming_fell_to_gc_round() -> None:
    naming = Naming()
    naming.commit([block(1, 0, B[1])], 0)
    # Naming it again renews the memory, though the ledger does not get it.
    assert naming.commit([block(5, 0, B[1])], 0) == ()
    assert naming.commit([block(6, 0, B[1])], 4) == ()
    assert naming.commit([block(20, 0, B[1])], 6) == ((0, B[1]),)


def test_naming_restarts_from_the_committed_blocks_above_gc_round() -> None:
    blocks = [block(1, 0, B[1]), block(5, 0, B[2]), block(6, 0, B[1])]
    whole, again = Naming(), Naming()
    whole.commit(blocks, 0)
    again.restart(b for b in blocks if b.ref.round > 3)
    following = [block(8, 0, B[1], B[2], B[3])]
    assert whole.commit(following, 3) == again.commit(following, 3) == ((0, B[3]),)


def test_commits_wait_until_the_one_a_lag_before_is_executed() -> None:
    queue = LedgerQueue(lag=4, executed_index=0)
    for index in range(1, 11):
        queue.add(commit(index), ((0, B[0]),) if index == 3 else ())
    assert [item.commit.index for item in queue.take()] == [1, 2, 3, 4]
    assert queue.take() == []
    assert queue.loaded_index == 3
    queue.executed(2)
    assert [item.commit.index for item in queue.take()] == [5, 6]
    assert [item.commit.index for item in queue.unexecuted] == list(range(3, 11))
    assert (queue.emitted_index, queue.emitted_count) == (6, 6)
    assert queue.is_lagging
    assert not queue.is_full
    queue.executed(1)
    assert queue.executed_index == 2


def test_the_queue_is_full_three_lags_ahead() -> None:
    queue = LedgerQueue(lag=4, executed_index=0)
    for index in range(1, 13):
        assert not queue.is_full
        queue.add(commit(index), ())
    assert queue.is_full
    queue.executed(1)
    assert not queue.is_full


def test_a_gap_before_the_first_commit_is_never_jumped() -> None:
    queue = LedgerQueue(lag=4, executed_index=5)
    queue.add(commit(8), ())
    assert queue.has_gap
    assert queue.take() == []
    queue.executed(7)
    assert not queue.has_gap
    assert [item.commit.index for item in queue.take()] == [8]


def test_a_ledger_that_is_ahead_is_shown_commits_to_compare() -> None:
    queue = LedgerQueue(lag=4, executed_index=0)
    queue.executed(10)
    queue.add(commit(9), ())
    assert [item.commit.index for item in queue.take()] == [9]


def test_own_batches_go_oldest_first_in_sequence_order_and_once() -> None:
    own = OwnBatches()
    for ref in (B[5], B[3], batch_ref(9, shard=1), B[5], B[4]):
        own.ready(ref)
    assert len(own) == 4
    taken = own.take()
    assert taken == (B[3], B[4], B[5], batch_ref(9, shard=1))
    made = block(1, 0, *taken)
    own.proposed(made)
    own.ready(B[4])
    assert own.take() == ()


def test_a_block_takes_a_bounded_number_and_no_sequence_twice() -> None:
    own = OwnBatches()
    for number in range(DAG_BLOCK_BATCHES_MAX + 5):
        own.ready(batch_ref(number))
    assert len(own.take()) == DAG_BLOCK_BATCHES_MAX
    assert len(own.take()) == 5
    own.ready(B[1])
    own.ready(BatchRef(0, 1, bytes(32)))
    assert own.take() == (B[1],)
    assert own.take() == (BatchRef(0, 1, bytes(32)),)


def test_batches_of_a_block_that_was_not_made_go_first_again() -> None:
    own = OwnBatches()
    own.ready(B[1])
    own.ready(B[2])
    taken = own.take()
    own.ready(B[3])
    own.put_back(taken)
    assert own.take() == (B[1], B[2], B[3])


def test_own_batches_that_fall_to_gc_round_uncommitted_are_lost_once() -> None:
    own = OwnBatches()
    own.proposed(block(3, 0, B[1], B[2]))
    own.proposed(block(4, 0, B[3]))
    own.committed([B[1]])
    assert own.collect(2) == ()
    assert own.collect(3) == (B[2],)
    assert own.collect(3) == ()
    assert own.collect(9) == (B[3],)
    own.ready(B[2])
    assert own.take() == (B[2],)


def test_a_batch_that_an_older_block_committed_is_not_proposed() -> None:
    own = OwnBatches()
    own.ready(B[1])
    own.ready(B[2])
    own.committed([B[1]])
    assert own.take() == (B[2],)


def test_a_batch_that_is_named_already_waits_until_that_lapses() -> None:
    own = OwnBatches()
    own.ready(B[1])
    own.proposed(block(4, 0, B[2]))
    own.wait([B[1], B[2]], 4)
    own.ready(B[1])
    assert own.take() == ()
    assert B[1].digest in own
    assert B[2].digest in own
    assert own.collect(3) == ()
    assert set(own.collect(4)) == {B[1], B[2]}
    own.ready(B[1])
    assert own.take() == (B[1],)
