from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.validators import synchronizer as module
from qnet_actors.validators.dag import Dag
from qnet_actors.validators.synchronizer import (
    REQUESTS_MAX,
    RETRY_MS,
    RETRY_MS_MAX,
    WAITING_PER_AUTHOR_MAX,
    Synchronizer,
)
from qnet_actors.wire.dag import BlockRef, DagBlock
from tests.validators.drawing import Drawing
from tests.validators.support import batch_ref, genesis_blocks, make_block, make_genesis

FULL = "A->* B->* C->* D->*"
COMMITTEE = make_genesis().committee()
NOW = 10_000


def fresh(gc_round: int = 0) -> tuple[Dag, Synchronizer]:
    dag = Dag(COMMITTEE)
    dag.collect(gc_round)
    return dag, Synchronizer(dag, 0, 4)


def drawn(count: int) -> dict[str, DagBlock]:
    text = "\n".join(f"R{i + 1}: {FULL}" for i in range(count))
    return Drawing(COMMITTEE, text).blocks


def fabricated(author: int, round_: int, salt: int = 0) -> DagBlock:
    """A valid block on ancestors that do not exist."""
    below = [BlockRef(round_ - 1, a, bytes([a, salt]) * 16) for a in range(4)]
    return make_block(round_, author, below)


def test_a_block_with_all_its_ancestors_is_admitted_at_once() -> None:
    dag, synchronizer = fresh()
    blocks = drawn(1)
    assert synchronizer.offer(blocks["B1"], 1, NOW) == [blocks["B1"]]
    assert blocks["B1"].digest in dag
    assert synchronizer.offer(blocks["B1"], 1, NOW) == []


def test_a_block_waits_for_its_ancestors_which_are_asked_of_its_sender() -> None:
    _, synchronizer = fresh()
    blocks = drawn(2)
    synchronizer.offer(blocks["A1"], 1, NOW)
    assert synchronizer.offer(blocks["B2"], 3, NOW) == []
    assert synchronizer.waiting_count == 1
    missing = sorted(blocks[name].ref for name in ("B1", "C1", "D1"))
    assert synchronizer.requests(NOW) == [(3, missing)]
    assert synchronizer.requests(NOW) == []
    synchronizer.offer(blocks["B1"], 1, NOW)
    synchronizer.offer(blocks["C1"], 1, NOW)
    admitted = synchronizer.offer(blocks["D1"], 1, NOW)
    assert admitted == [blocks["D1"], blocks["B2"]]
    assert synchronizer.waiting_count == 0
    assert synchronizer.wake_ms() in (None, NOW + RETRY_MS)
    assert synchronizer.requests(NOW + 60_000) == []
    assert synchronizer.wake_ms() is None


def test_requests_rotate_through_all_peers_with_back_off() -> None:
    _, synchronizer = fresh()
    synchronizer.offer(fabricated(2, 2), 2, NOW)
    asked, times, now_ms = [], [], NOW
    for _ in range(7):
        ((peer, refs),) = synchronizer.requests(now_ms)
        assert len(refs) == 4
        asked.append(peer)
        wake_ms = synchronizer.wake_ms()
        assert wake_ms is not None
        times.append(wake_ms - now_ms)
        assert synchronizer.requests(wake_ms - 1) == []
        now_ms = wake_ms
    assert asked == [2, 3, 1, 2, 3, 1, 2]
    assert times == [min(RETRY_MS << i, RETRY_MS_MAX) for i in range(7)]


def test_an_ancestor_that_waits_itself_is_not_asked_for() -> None:
    _, synchronizer = fresh()
    blocks = drawn(3)
    for name in "ABCD":
        synchronizer.offer(blocks[f"{name}2"], 1, NOW)
    synchronizer.requests(NOW)
    synchronizer.offer(blocks["A3"], 1, NOW)
    assert synchronizer.requests(NOW) == []


def test_batches_that_are_not_held_are_fetched_and_waited_for() -> None:
    dag, synchronizer = fresh()
    refs = [batch_ref(1), batch_ref(2)]
    block = make_block(1, 3, genesis_blocks(make_genesis()), batches=refs)
    assert synchronizer.offer(block, 2, NOW) == []
    assert synchronizer.requests(NOW) == []
    assert synchronizer.fetches(NOW) == [(2, [(3, refs[0]), (3, refs[1])])]
    assert synchronizer.fetches(NOW + RETRY_MS_MAX - 1) == []
    assert synchronizer.held([refs[0].digest]) == []
    # What is still missing is asked for again, in case the mempool has been restarted.
    assert synchronizer.fetches(NOW + RETRY_MS_MAX) == [(3, [(3, refs[1])])]
    assert synchronizer.held([refs[1].digest]) == [block]
    assert block.digest in dag


def test_batches_held_before_their_block_comes_do_not_hold_it_up() -> None:
    _, synchronizer = fresh()
    synchronizer.held([batch_ref(1).digest])
    block = make_block(1, 3, genesis_blocks(make_genesis()), batches=[batch_ref(1)])
    assert synchronizer.offer(block, 2, NOW) == [block]


def test_what_falls_to_gc_round_is_neither_waited_for_nor_fetched() -> None:
    dag, synchronizer = fresh()
    blocks = drawn(3)
    for name in ("A2", "B2", "C2", "D2", "A3"):
        synchronizer.offer(blocks[name], 1, NOW)
    assert synchronizer.requests(NOW)
    dag.collect(1)
    admitted = synchronizer.collected()
    assert admitted[-1] == blocks["A3"]
    assert {b.digest for b in admitted} == {b.digest for b in dag.blocks()}
    assert len(admitted) == 5
    assert synchronizer.requests(NOW + 60_000) == []
    assert synchronizer.waiting_count == 0


def test_waiting_blocks_at_or_below_gc_round_are_dropped() -> None:
    dag, synchronizer = fresh()
    synchronizer.offer(fabricated(2, 5), 2, NOW)
    dag.collect(5)
    assert synchronizer.collected() == []
    assert synchronizer.waiting_count == 0
    assert synchronizer.requests(NOW) == []
    assert synchronizer.offer(fabricated(2, 5), 2, NOW) == []


def test_two_variants_of_a_slot_are_kept_unsolicited_and_more_when_named() -> None:
    _, synchronizer = fresh()
    zero = genesis_blocks(make_genesis())
    variants = [make_block(1, 3, zero, timestamp_ms=i) for i in range(4)]
    assert [len(synchronizer.offer(v, 1, NOW)) for v in variants] == [1, 1, 0, 0]
    assert synchronizer.dropped == 2
    others = [make_block(1, author, zero) for author in (0, 1, 2)]
    for block in others:
        synchronizer.offer(block, 1, NOW)
    block = make_block(2, 1, [b.ref for b in (*others, variants[2])])
    assert synchronizer.offer(block, 1, NOW) == []
    assert synchronizer.requests(NOW) == [(1, [variants[2].ref])]
    assert synchronizer.offer(variants[2], 1, NOW) == [variants[2], block]
    assert synchronizer.offer(variants[3], 1, NOW) == []


def test_waiting_is_bounded_for_each_author_and_the_highest_rounds_give_way() -> None:
    _, synchronizer = fresh()
    for round_ in range(2, WAITING_PER_AUTHOR_MAX + 12):
        synchronizer.offer(fabricated(3, round_), 3, NOW)
    assert synchronizer.waiting_count == WAITING_PER_AUTHOR_MAX
    assert synchronizer.dropped == 10
    assert synchronizer.waiting_at(2, 3)
    assert not synchronizer.waiting_at(WAITING_PER_AUTHOR_MAX + 5, 3)
    # A lower round pushes the highest out; another author is not touched.
    synchronizer.offer(fabricated(3, 2, salt=1), 3, NOW)
    assert synchronizer.waiting_count == WAITING_PER_AUTHOR_MAX
    assert len(synchronizer.waiting_at(2, 3)) == 2
    synchronizer.offer(fabricated(1, 900), 3, NOW)
    assert synchronizer.waiting_count == WAITING_PER_AUTHOR_MAX + 1


def test_a_block_that_others_wait_for_is_not_pushed_out_by_its_author() -> None:
    _, synchronizer = fresh()
    needed = fabricated(3, 700)
    child = make_block(
        701, 1, [*(BlockRef(700, a, bytes([a]) * 32) for a in (0, 1, 2)), needed.ref]
    )
    synchronizer.offer(child, 1, NOW)
    synchronizer.offer(needed, 3, NOW)
    for round_ in range(2, WAITING_PER_AUTHOR_MAX + 50):
        synchronizer.offer(fabricated(3, round_), 3, NOW)
    assert synchronizer.knows(needed.digest)


def test_requests_are_bounded_and_the_rest_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUESTS_MAX", 6)
    dag, synchronizer = fresh()
    synchronizer.offer(fabricated(1, 3), 1, NOW)
    synchronizer.offer(fabricated(2, 9, salt=1), 1, NOW)
    ((_, refs),) = synchronizer.requests(NOW)
    assert len(refs) == 6
    # The first block is given up with what it lacked, which makes room for the rest.
    dag.collect(4)
    synchronizer.collected()
    asked = {ref for _, more in synchronizer.requests(NOW) for ref in more}
    assert len(asked) == 2
    assert all(ref.round == 8 for ref in asked)
    assert REQUESTS_MAX > 6


@pytest.mark.parametrize("arrives_first", [True, False])
def test_a_digest_under_a_wrong_round_or_author_is_of_no_block(arrives_first: bool) -> None:
    """It would pass for a parent, or a vote for a leader, that it is not."""
    dag, synchronizer = fresh()
    blocks = drawn(2)
    real = [blocks[name] for name in ("A1", "B1", "C1", "D1", "A2", "B2", "C2")]
    wrong_author = BlockRef(2, 3, blocks["A2"].digest)
    wrong_round = BlockRef(2, 3, blocks["D1"].digest)
    parents = [blocks[name].ref for name in ("B2", "A2")]
    hostile = [
        make_block(3, 1, [*parents, wrong_author]),
        make_block(3, 1, [*parents, wrong_round]),
    ]
    offered = [*real, *hostile] if arrives_first else [*hostile, *real]
    admitted = [b for block in offered for b in synchronizer.offer(block, 1, NOW)]
    assert set(admitted) == set(real)
    assert not any(block.digest in dag for block in hostile)
    assert {ref for _, refs in synchronizer.requests(NOW) for ref in refs} >= {
        wrong_author,
        wrong_round,
    }
    # Like a block that does not exist, it is waited for no longer once it falls to gc_round.
    dag.collect(2)
    assert set(synchronizer.collected()) == set(hostile)
    assert synchronizer.waiting_count == 0
    for leftover in (synchronizer._children, synchronizer._absent, synchronizer._requests):
        assert not leftover


def test_wanted_blocks_need_no_batches() -> None:
    _, synchronizer = fresh()
    zero = genesis_blocks(make_genesis())
    named = [make_block(1, author, zero, batches=[batch_ref(author)]) for author in range(4)]
    synchronizer.offer(named[2], 1, NOW)
    assert synchronizer.waiting_count == 1
    assert synchronizer.want([block.ref for block in named], 1, NOW) == [named[2]]
    assert synchronizer.exempt_count == 3
    assert synchronizer.requests(NOW) == [(1, sorted(named[i].ref for i in (0, 1, 3)))]
    for i in (0, 1, 3):
        assert synchronizer.offer(named[i], 1, NOW) == [named[i]]
    assert synchronizer.exempt_count == 0
    assert synchronizer.fetches(NOW) == []


def test_wanted_blocks_that_fall_to_gc_round_are_wanted_no_more() -> None:
    dag, synchronizer = fresh()
    synchronizer.want([drawn(1)["A1"].ref], 1, NOW)
    assert synchronizer.exempt_count == 1
    dag.collect(1)
    synchronizer.collected()
    assert synchronizer.exempt_count == 0


def test_a_validator_alone_asks_nobody() -> None:
    committee = make_genesis((1,)).committee()
    synchronizer = Synchronizer(Dag(committee), 0, 1)
    synchronizer.want([BlockRef(1, 0, bytes(32))], 0, NOW)
    assert synchronizer.requests(NOW) == []
    assert synchronizer.wake_ms() is None


@given(st.integers(0, 2**32))
@settings(max_examples=60)
def test_any_order_of_arrival_admits_the_same_with_ancestors_first(seed: int) -> None:
    rng = Random(seed)
    zero = genesis_blocks(make_genesis())
    below, blocks = list(zero), []
    for round_ in range(1, 7):
        made = [
            make_block(
                round_,
                author,
                below,
                batches=[batch_ref(10 * round_ + author)] if rng.random() < 0.3 else [],
            )
            for author in range(4)
        ]
        blocks += made
        below = [block.ref for block in made]
    dag, synchronizer = fresh()
    arrivals: list[DagBlock | bytes] = [*blocks]
    arrivals += [ref.digest for block in blocks for ref in block.header.batches]
    rng.shuffle(arrivals)
    admitted: list[DagBlock] = []
    for arrival in arrivals:
        if isinstance(arrival, bytes):
            admitted += synchronizer.held([arrival])
        else:
            admitted += synchronizer.offer(arrival, rng.randrange(4), NOW)
        synchronizer.requests(NOW)
        synchronizer.fetches(NOW)
    assert len(admitted) == len(blocks) == len(dag)
    seen = {ref.digest for ref in zero}
    for block in admitted:
        assert all(a.digest in seen for a in block.header.ancestors)
        seen.add(block.digest)
    assert synchronizer.waiting_count == 0
    assert synchronizer.requests(NOW + 10**6) == []
    assert synchronizer.fetches(NOW + 10**6) == []
    assert synchronizer.wake_ms() is None
    for leftover in (synchronizer._children, synchronizer._absent, synchronizer._slots):
        assert not leftover
