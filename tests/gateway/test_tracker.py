from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.gateway.events import BlockEvent, CheckpointEvent, MissedEvents, StatusEvent
from qnet_actors.gateway.tracker import REFUSALS, STAGES, Tracked, Tracker
from qnet_actors.wire.blocks import BlockHeader, Checkpoint

ZERO = bytes(32)


def name(number: int) -> bytes:
    return number.to_bytes(32, "big")


def header(height: int, count: int) -> BlockHeader:
    return BlockHeader(1, ZERO, 0, height, ZERO, 1, ZERO, 0, ZERO, ZERO, ZERO, count, 0, 0)


def block(height: int, ids: list[bytes], code: int = 0) -> BlockEvent:
    count = len(ids)
    return BlockEvent(
        header(height, count),
        name(10_000 + height),
        b"".join(ids),
        struct.pack(f"<{count}H", *[code] * count),
        struct.pack(f"<{count}Q", *range(count)),
    )


def checkpoint(height: int) -> CheckpointEvent:
    return CheckpointEvent(Checkpoint(ZERO, height, ZERO, ZERO, 0, ZERO, ZERO, 0, 1))


def test_a_transaction_goes_its_way():
    tracker = Tracker()
    a, b = name(1), name(2)
    assert tracker.received([a, b], 5) == [a, b]
    assert tracker.received([a], 6) == []
    assert tracker.apply(StatusEvent("batched", a + b), 7) == [
        (a, Tracked("batched", 7)),
        (b, Tracked("batched", 7)),
    ]
    changes = tracker.apply(block(1, [name(9), b, a], code=1), 8)
    assert changes == [
        (b, Tracked("executed", 8, 1, 1, name(10_001), 1, 1)),
        (a, Tracked("executed", 8, 1, 2, name(10_001), 1, 2)),
    ]
    assert tracker.status(name(9)) is None
    assert [change[1].status for change in tracker.apply(checkpoint(1), 9)] == ["final", "final"]
    assert tracker.status(a) is None
    assert len(tracker) == 0


def test_streams_of_several_validators_may_be_mixed():
    tracker = Tracker()
    tracker.received([name(1)], 0)
    assert tracker.apply(block(3, [name(1)]), 1)
    assert tracker.apply(block(3, [name(1)]), 2) == []
    assert tracker.apply(StatusEvent("batched", name(1)), 3) == []
    assert tracker.apply(StatusEvent("evicted", name(1)), 3) == []
    assert tracker.status(name(1)) == Tracked("executed", 1, 3, 0, name(10_003), 0, 0)


def test_a_checkpoint_that_comes_before_its_block_makes_it_final_at_once():
    tracker = Tracker()
    tracker.received([name(1)], 0)
    assert tracker.apply(checkpoint(2), 1) == []
    statuses = [change[1].status for change in tracker.apply(block(2, [name(1)]), 2)]
    assert statuses == ["executed", "final"]


def test_a_refusal_is_kept_for_its_time_and_a_new_submission_takes_its_place():
    tracker = Tracker(retention_ms=100)
    tracker.received([name(1), name(2)], 0)
    tracker.apply(StatusEvent("evicted", name(1) + name(2)), 10)
    assert tracker.received([name(2)], 50) == [name(2)]
    tracker.apply(MissedEvents(), 109)
    assert tracker.status(name(1)) == Tracked("evicted", 10)
    tracker.apply(MissedEvents(), 110)
    assert tracker.status(name(1)) is None
    assert tracker.status(name(2)) == Tracked("received", 50)


def test_what_a_pool_refused_at_the_door_is_forgotten_but_not_what_it_has():
    tracker = Tracker()
    tracker.received([name(1), name(2)], 0)
    tracker.apply(StatusEvent("batched", name(2)), 0)
    tracker.forget([name(1), name(2), name(3)])
    assert tracker.status(name(1)) is None
    assert tracker.status(name(2)) == Tracked("batched", 0)


def test_what_stands_in_a_block_of_before_is_dropped_and_nothing_else():
    tracker = Tracker()
    tracker.received([name(1), name(2), name(3)], 0)
    tracker.apply(block(5, [name(1)]), 1)
    tracker.apply(StatusEvent("batched", name(4)), 2)
    for number, height in ((1, 5), (2, 6), (4, 5), (9, 5)):
        tracker.passed(name(number), height)
    kept = [tracker.status(name(number)) for number in (1, 2, 3, 4)]
    assert [tracked and tracked.status for tracked in kept] == [
        "executed",
        "received",
        "received",
        None,
    ]


def test_an_unknown_label_changes_nothing():
    tracker = Tracker()
    tracker.received([name(1)], 0)
    assert tracker.apply(StatusEvent("vanished", name(1)), 1) == []
    assert tracker.status(name(1)) == Tracked("received", 0)


events = st.one_of(
    st.tuples(st.just("received"), st.lists(st.integers(0, 9), max_size=4)),
    st.tuples(
        st.sampled_from(["batched", *sorted(REFUSALS)]), st.lists(st.integers(0, 9), max_size=4)
    ),
    st.tuples(st.just("block"), st.lists(st.integers(0, 9), max_size=4, unique=True)),
    st.tuples(st.just("final"), st.integers(0, 12)),
)


@given(st.lists(events, max_size=40), st.integers(1, 6), st.integers(1, 6))
def test_bounds_hold_and_no_status_goes_back(sequence, open_max, refused_max):
    tracker = Tracker(open_max=open_max, refused_max=refused_max, retention_ms=10)
    height = 0
    executed: set[bytes] = set()
    for now_ms, (kind, argument) in enumerate(sequence):
        before = {name(i): tracker.status(name(i)) for i in range(10)}
        if kind == "received":
            tracker.received([name(i) for i in argument], now_ms)
        elif kind == "final":
            tracker.apply(checkpoint(argument), now_ms)
        elif kind == "block":
            height += 1
            # A ledger includes a transaction once.
            ids = [name(i) for i in argument if name(i) not in executed]
            executed.update(ids)
            tracker.apply(block(height, ids), now_ms)
        else:
            tracker.apply(StatusEvent(kind, b"".join(name(i) for i in argument)), now_ms)
        assert len(tracker._open) <= open_max
        assert len(tracker._refused) <= refused_max
        assert tracker._unfinal_count == sum(len(ids) for _, ids in tracker._unfinal) <= open_max
        for id_, old in before.items():
            new = tracker.status(id_)
            if old is not None and new is not None and old.status in STAGES:
                assert new.refused or STAGES[new.status] >= STAGES[old.status]
