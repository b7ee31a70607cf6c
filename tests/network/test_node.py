"""The router over the rooms of one validator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from qnet_actors.network import node as node_module
from qnet_actors.network.node import Deliver, Node, RoomKey, Send, Start, Stop, Write
from qnet_actors.rooms import (
    BatchesDropped,
    BatchesHeld,
    Effect,
    FetchBatches,
    FromPeer,
    Halt,
    PeerUp,
    Persist,
    Room,
    Run,
    ToPeers,
    ToRoom,
)
from qnet_actors.wire.batches import BatchHeader, BatchRef
from qnet_actors.wire.codec import encode
from qnet_actors.wire.dag import BlockRef
from qnet_actors.wire.messages import (
    BatchAcks,
    Batches,
    BatchRequest,
    DagBlocks,
    DagRequest,
    KeyRequest,
    Keys,
    LedgerBlocks,
    LedgerRequest,
    Message,
    PeerStatus,
)

ZERO = bytes(32)


@dataclass
class Probe:
    """A core that notes its events and answers with what the test wants."""

    answer: Callable[[Any], Sequence[Effect]] = lambda event: ()
    wake: int | None = None
    at_tick: Sequence[Effect] = ()
    events: list[Any] = field(default_factory=list)
    ticks: list[int] = field(default_factory=list)

    def handle(self, event: Any, now_ms: int) -> Sequence[Effect]:
        self.events.append(event)
        return self.answer(event)

    def tick(self, now_ms: int) -> Sequence[Effect]:
        self.ticks.append(now_ms)
        return self.at_tick

    def wake_ms(self) -> int | None:
        return self.wake


def network(shards: int = 1) -> tuple[Node, list[Probe], Probe, Probe]:
    mempools, validator, ledger = [Probe() for _ in range(shards)], Probe(), Probe()
    rooms: dict[RoomKey, Probe] = {RoomKey(Room.MEMPOOL, i): p for i, p in enumerate(mempools)}
    rooms |= {RoomKey(Room.VALIDATOR): validator, RoomKey(Room.LEDGER): ledger}
    return Node(rooms), mempools, validator, ledger


def test_peer_messages_reach_their_room():
    node, (mempool,), validator, ledger = network()
    ref = BlockRef(1, 0, ZERO)
    of_mempool: list[Message] = [
        Batches((b"x",)),
        BatchAcks((ZERO,)),
        BatchRequest((ZERO,)),
        Keys(()),
        KeyRequest((ZERO,)),
    ]
    of_validator: list[Message] = [
        DagBlocks((b"x",)),
        DagRequest((ref,)),
        PeerStatus(0, 1, 2, 3, 4, 5),
    ]
    of_ledger: list[Message] = [LedgerRequest(1, 2), LedgerBlocks((), None)]
    for message in (*of_mempool, *of_validator, *of_ledger):
        assert node.from_peer(3, message, 10) == []
    assert mempool.events == [FromPeer(3, message) for message in of_mempool]
    assert validator.events == [FromPeer(3, message) for message in of_validator]
    assert ledger.events == [FromPeer(3, message) for message in of_ledger]


def test_a_link_that_stands_is_told_to_every_room():
    node, mempools, validator, ledger = network(2)
    node.peer_up(1, 0)
    assert all(probe.events == [PeerUp(1)] for probe in (*mempools, validator, ledger))


def test_every_event_is_followed_by_a_tick():
    node, (mempool,), _, _ = network()
    node.handle(Room.MEMPOOL, "event", 7)
    assert mempool.ticks == [7]


def test_local_events_arrive_in_order_and_outer_effects_surface():
    node, (mempool,), validator, ledger = network()
    mempool.answer = lambda event: [
        ToRoom(Room.VALIDATOR, 1),
        ToPeers(Keys(()), (2,)),
        ToRoom(Room.LEDGER, 2),
        ToRoom(Room.VALIDATOR, 3),
        ToRoom(Room.GATEWAY, "told"),
    ]
    ledger.answer = lambda event: [Halt("broken")]
    actions = node.handle(Room.MEMPOOL, "event", 0)
    assert actions == [Send(Keys(()), (2,)), Deliver("told"), Stop("broken")]
    assert validator.events == [1]
    assert node.stopped == "broken"
    assert node.handle(Room.VALIDATOR, "after", 0) == []
    assert node.tick(0) == []
    assert node.wake_ms() is None
    assert validator.events == [1]


def test_a_local_event_waits_for_the_write_before_it():
    node, (mempool,), validator, _ = network()
    mempool.answer = lambda event: [Persist(("row",)), ToRoom(Room.VALIDATOR, "held")]
    key = RoomKey(Room.MEMPOOL)
    assert node.handle(Room.MEMPOOL, "event", 0) == [Write(key, ("row",))]
    assert validator.events == []
    assert node.persisted(key, 1) == []
    assert validator.events == ["held"]


def test_a_job_is_called_back_into_its_room():
    node, _, validator, ledger = network()
    validator.answer = lambda event: [
        Run(lambda: 42, lambda result, now_ms: [ToRoom(Room.LEDGER, (result, now_ms))])
    ]
    (start,) = node.handle(Room.VALIDATOR, "event", 0)
    assert isinstance(start, Start)
    assert node.ran(start, start.call(), 5) == []
    assert ledger.events == [(42, 5)]
    assert validator.ticks == [0, 5]


def test_wake_is_the_earliest_and_tick_reaches_only_who_is_due():
    node, (mempool,), validator, ledger = network()
    validator.wake, ledger.wake = 30, 20
    validator.at_tick = [ToRoom(Room.GATEWAY, "validator")]
    ledger.at_tick = [ToRoom(Room.MEMPOOL, "from ledger")]
    assert node.wake_ms() == 20
    assert node.tick(25) == []
    assert (mempool.events, validator.ticks, ledger.ticks) == (["from ledger"], [], [25])
    assert node.tick(30) == [Deliver("validator")]


def test_a_room_is_asked_for_its_wake_after_whatever_it_took_in():
    node, (mempool,), validator, _ = network()
    assert node.wake_ms() is None
    mempool.wake = 7
    node.handle(Room.MEMPOOL, "event", 0)
    assert node.wake_ms() == 7
    mempool.wake = 9
    node.tick(8)
    assert node.wake_ms() == 9
    validator.answer = lambda event: [Run(lambda: None, lambda result, now_ms: [])]
    (start,) = node.handle(Room.VALIDATOR, "event", 8)
    validator.wake = 5
    assert isinstance(start, Start)
    node.ran(start, None, 8)
    assert node.wake_ms() == 5


def test_start_ticks_every_room():
    node, (mempool,), validator, ledger = network()
    node.start(3)
    assert mempool.ticks == validator.ticks == ledger.ticks == [3]


def test_rooms_that_answer_each_other_for_ever_do_not_hold_the_driver(monkeypatch):
    monkeypatch.setattr(node_module, "EVENTS_PER_CALL_MAX", 10)
    node, _, validator, ledger = network()
    validator.answer = lambda event: [ToRoom(Room.LEDGER, event + 1)]
    ledger.answer = lambda event: [ToRoom(Room.VALIDATOR, event + 1)]
    node.handle(Room.VALIDATOR, 0, 0)
    assert len(validator.events) + len(ledger.events) == 10
    assert node.wake_ms() == 0
    node.tick(1)
    assert sorted(validator.events + ledger.events) == list(range(20))


def test_a_message_to_a_room_that_is_not_there_is_an_error():
    node, (mempool,), _, _ = network()
    mempool.answer = lambda event: [ToRoom(Room.MEMPOOL, "lost", shard=3)]
    with pytest.raises(KeyError):
        node.handle(Room.MEMPOOL, "event", 0)


def test_shards_are_numbered_without_a_gap():
    with pytest.raises(ValueError, match="shards"):
        Node({RoomKey(Room.MEMPOOL, 1): Probe()})


def batch_bytes(shard: int, chain: bytes = ZERO) -> bytes:
    header = BatchHeader(1, chain, 0, 0, shard, 1, 255, 1, 1, ZERO, ZERO)
    return encode([encode(header), b"bodies", b"witnesses"])


def test_batches_are_parted_by_the_shard_in_their_header():
    node, shards, _, _ = network(3)
    junk = (b"", b"\x93", b"\x93\xc4", b"\x93\xc4\xff\x91", b"\x93\xc5\x00", b"\xc0junk")
    named = tuple(batch_bytes(shard) for shard in range(7))
    node.from_peer(1, Batches((*junk, *named)), 0)
    assert [shard.events for shard in shards] == [
        [FromPeer(1, Batches((*junk, named[0], named[3], named[6])))],
        [FromPeer(1, Batches((named[1], named[4])))],
        [FromPeer(1, Batches((named[2], named[5])))],
    ]


def test_with_shards_acknowledgements_go_to_all_and_requests_to_the_first():
    node, shards, _, _ = network(2)
    node.from_peer(1, BatchAcks((ZERO,)), 0)
    node.from_peer(1, BatchRequest((ZERO,)), 0)
    assert [len(shard.events) for shard in shards] == [2, 1]


def test_with_shards_what_names_batches_is_parted_and_the_rest_addressed():
    node, shards, validator, _ = network(2)
    refs = [BatchRef(shard, 1, bytes([shard]) * 32) for shard in range(4)]
    validator.answer = lambda event: [
        ToRoom(Room.MEMPOOL, FetchBatches(tuple((0, ref) for ref in refs[:3]), 9)),
        ToRoom(Room.MEMPOOL, BatchesDropped((refs[3],))),
        ToRoom(Room.MEMPOOL, BatchesHeld((ZERO,)), shard=1),
    ]
    node.handle(Room.VALIDATOR, "event", 0)
    assert shards[0].events == [FetchBatches(((0, refs[0]), (0, refs[2])), 9)]
    assert shards[1].events == [
        FetchBatches(((0, refs[1]),), 9),
        BatchesDropped((refs[3],)),
        BatchesHeld((ZERO,)),
    ]
