"""How long batches are held, and how many."""

from __future__ import annotations

from collections.abc import Container

import pytest

from qnet_actors.mempool.retention import Retention
from qnet_actors.wire.batches import BatchHeader
from qnet_actors.wire.codes import Code, QnetError
from tests.mempool.world import ZERO, digest_of, settings

DEPTH = 10
NONE: frozenset[bytes] = frozenset()


def header(sequence: int, author: int = 1, shard: int = 0) -> BatchHeader:
    return BatchHeader(1, ZERO, 0, author, shard, sequence, 255, 1, 0, ZERO, ZERO)


def held(count: int = 3, **fields) -> Retention:
    retention = Retention(DEPTH, settings(**fields))
    for n in range(count):
        retention.add(header(n), digest_of(n), 100, 0)
    return retention


def pruned_of(retention: Retention, now_ms: int, kept: Container[bytes]) -> tuple[bytes, ...]:
    """What is due, once the validator has let it go."""
    due = retention.due(now_ms, kept)
    assert retention.due(now_ms, kept) == due
    return retention.drop(due, now_ms, kept)


def code_of(retention: Retention, made: BatchHeader, digest: bytes, size: int = 1) -> Code | None:
    try:
        retention.check_quota(made, digest, size)
    except QnetError as error:
        return error.code
    return None


def test_pruned_when_final_and_below_gc_round() -> None:
    retention = held()
    assert retention.executed([digest_of(0)], 5, 20, 0) == (digest_of(0),)
    for height, commit in ((4, 100), (4, 30), (5, 29)):
        retention.certified(height, commit)
        # Neither an older certificate nor one of a commit too near prunes.
        if (height, commit) != (5, 29):
            assert pruned_of(retention, 10, NONE) == ()
    retention.certified(5, 20)
    assert pruned_of(retention, 10, NONE) == (digest_of(0),)
    assert pruned_of(retention, 10, NONE) == ()
    assert len(retention) == 2


@pytest.mark.parametrize(("height", "commit", "pruned"), [(5, 30, 1), (5, 29, 0), (4, 30, 0)])
def test_both_conditions_are_needed(height: int, commit: int, pruned: int) -> None:
    retention = held()
    retention.executed([digest_of(0)], 5, 20, 0)
    retention.certified(height, commit)
    assert len(pruned_of(retention, 10, NONE)) == pruned


def test_witnesses_are_kept_longer_where_asked() -> None:
    for keep_ms, times in ((500, (1_499, 1_500)), (None, (1_499, 599_999))):
        retention = held(witness_retention_ms=keep_ms)
        retention.executed([digest_of(0)], 1, 1, 1_000)
        retention.certified(100, 100)
        pruned = [pruned_of(retention, at, NONE) for at in times]
        assert pruned == [(), () if keep_ms is None else (digest_of(0),)]


def test_what_no_commit_names_is_dropped_after_its_lifetime() -> None:
    retention = held(unexecuted_lifetime_ms=1_000)
    retention.add(header(9), digest_of(9), 100, 600)
    retention.executed([digest_of(2)], 1, 1, 0)
    assert pruned_of(retention, 999, NONE) == ()
    assert pruned_of(retention, 1_000, {digest_of(0)}) == (digest_of(1),)
    assert pruned_of(retention, 1_600, NONE) == (digest_of(0), digest_of(9))


def test_what_is_due_no_more_when_it_is_let_go_is_kept() -> None:
    retention = held(unexecuted_lifetime_ms=1_000)
    due = retention.due(1_000, NONE)
    assert len(due) == 3
    retention.executed([digest_of(0)], 1, 1, 1_000)
    unknown = digest_of(50)
    assert retention.drop((unknown, *due), 1_000, {digest_of(1)}) == (digest_of(2),)
    assert len(retention) == 2


def test_a_restart_begins_the_lifetime_anew() -> None:
    retention = held(unexecuted_lifetime_ms=1_000)
    retention.started(5_000)
    assert pruned_of(retention, 5_999, NONE) == ()
    assert len(pruned_of(retention, 6_000, NONE)) == 3


def test_a_sequence_belongs_to_the_batch_that_had_it_first() -> None:
    retention = held()
    assert code_of(retention, header(0), digest_of(0)) is None
    assert code_of(retention, header(0), digest_of(77)) == Code.BAD_SEQUENCE
    assert code_of(retention, header(0, shard=1), digest_of(77)) is None
    assert code_of(retention, header(0, author=2), digest_of(77)) is None
    # A second one, which a block names, is held and never acknowledged.
    retention.add(header(0), digest_of(77), 100, 0)
    assert not retention.is_first(header(0), digest_of(77))
    assert retention.is_first(header(0), digest_of(0))
    # Once the first is executed the sequence is free: an author may have lost its memory.
    retention.executed([digest_of(0)], 1, 1, 0)
    assert code_of(retention, header(0), digest_of(88)) is None


def test_an_author_has_a_bound_by_count_and_by_bytes() -> None:
    retention = held(author_batches_max=3)
    assert code_of(retention, header(5), digest_of(5)) == Code.BUSY
    assert code_of(retention, header(5, shard=1), digest_of(5)) is None
    retention.executed([digest_of(1)], 1, 1, 0)
    assert code_of(retention, header(5), digest_of(5)) is None
    retention = held(author_size_bytes_max=350)
    assert code_of(retention, header(5), digest_of(5), 50) is None
    assert code_of(retention, header(5, shard=1), digest_of(5), 51) == Code.BUSY
    assert code_of(retention, header(5, author=2), digest_of(5), 51) is None


def test_unknown_and_executed_digests_are_passed_over() -> None:
    retention = held()
    assert retention.executed([digest_of(50), digest_of(1)], 1, 1, 0) == (digest_of(1),)
    assert retention.executed([digest_of(1)], 2, 2, 0) == ()
