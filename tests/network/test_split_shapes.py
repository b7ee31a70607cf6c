"""Rooms in processes of their own, without the processes: the same blocks as a packed ledger."""

from __future__ import annotations

from collections import deque
from dataclasses import is_dataclass
from typing import Any

import pytest

from qnet_actors import rooms
from qnet_actors.ledger import Executor, MemoryLog
from qnet_actors.network.node import LEDGER, AskedBatches, Forward, Node, RoomKey
from qnet_actors.network.split.bodies import BodiesRouter
from qnet_actors.network.split.events import _TYPES, EventEncoder, Stopped, decode_event
from qnet_actors.network.split.ledger import LedgerRoom
from qnet_actors.network.split.reads import LogServer, RemoteLog
from qnet_actors.rooms import (
    BatchesExpiring,
    BatchesReleased,
    BlockExecuted,
    Bodies,
    BodiesWanted,
    CheckpointMade,
    CommitReady,
    CommitsExecuted,
    FromPeer,
    PeerUp,
    Room,
)
from qnet_actors.state import PartitionServer
from qnet_actors.wire.batches import Batch, build_batch
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.messages import Batches, BatchRequest, KeyRequest
from tests.ledger.chain import STEP_MS, chain_genesis
from tests.ledger.rig import VERIFIER, Rig
from tests.ledger.world import GENESIS_MS, Commits, a_transaction, refs
from tests.network.test_node import Probe

GENESIS = chain_genesis()
BLOCKS = 10


def batch_of(block: int, author: int, shard: int) -> Batch:
    sender = (2 * block + shard) % 8
    nonce = (2 * block + shard) // 8
    return build_batch(
        [a_transaction(GENESIS, sender, nonce)],
        chain_id=GENESIS.chain_id(),
        epoch=0,
        author=author,
        shard=shard,
        sequence=block + 1,
    )


def commits() -> list[tuple[Commit, list[Batch]]]:
    """Ordered commits with a batch of each of two shards, which are dealt out to any number."""
    chain = Commits()
    made = []
    for block in range(BLOCKS):
        batches = [batch_of(block, (block + shard) % 4, shard) for shard in range(2)]
        made.append((chain.next(GENESIS_MS + STEP_MS * (block + 1), batches), batches))
    return made


class Split:
    """A ledger room and shards that hold batches; all that passes between them is encoded."""

    def __init__(self, shards: int, partitions: int, executors: int) -> None:
        self.stores: list[dict[bytes, Batch]] = [{} for _ in range(shards)]
        self.events: list[Any] = []
        self._encoder = EventEncoder()
        self._queue: deque[bytes] = deque()
        self.log = MemoryLog()
        self.room = LedgerRoom(
            GENESIS,
            VERIFIER,
            self.log,
            shards,
            [PartitionServer() for _ in range(partitions)],
            [Executor() for _ in range(executors)],
            self._forward,
            rows_min=1,
        )
        self.room.start()

    def commit(self, commit: Commit, batches: list[Batch]) -> None:
        for batch in batches:
            self.stores[batch.header.shard % len(self.stores)][batch.digest] = batch
        self._queue.append(self._encoder.encode(LEDGER, CommitReady(commit, refs(batches))))
        while self._queue:
            self.room.handle([decode_event(self._queue.popleft())])

    def _forward(self, key: RoomKey, event: Any) -> None:
        # Over the wire and back, as between processes.
        key, event = decode_event(self._encoder.encode(key, event))
        if isinstance(event, BodiesWanted):
            store = self.stores[key.shard]
            bodies = Bodies(event.commit_index, tuple(store[digest] for digest in event.digests))
            here = RoomKey(Room.LEDGER, key.shard)
            self._queue.append(self._encoder.encode(here, bodies))
        elif key.room != Room.MEMPOOL or key.shard == 0:
            self.events.append(event)

    def blocks(self) -> list[BlockExecuted]:
        seen = {e.record.header.height: e for e in self.events if isinstance(e, BlockExecuted)}
        return [event for _, event in sorted(seen.items())]


@pytest.fixture(scope="module")
def packed() -> Rig:
    rig = Rig(GENESIS)
    for commit, batches in commits():
        rig.commit(commit, batches)
    return rig


@pytest.mark.parametrize("executors", [1, 2, 4])
@pytest.mark.parametrize("partitions", [1, 2, 4])
@pytest.mark.parametrize("shards", [1, 2, 4])
def test_the_same_commits_give_the_same_blocks_and_roots(packed, shards, partitions, executors):
    split = Split(shards, partitions, executors)
    for commit, batches in commits():
        split.commit(commit, batches)
    assert len(packed.executed) == BLOCKS
    assert sum(event.record.checkpoint is not None for event in packed.executed) >= 3
    assert split.blocks() == packed.executed
    made = [e for e in split.events if isinstance(e, CheckpointMade | CommitsExecuted)]
    assert made == packed.to_validator
    assert split.log.records(1, 99, 10**9) == packed.log.records(1, 99, 10**9)


def test_a_room_whose_rules_break_stops_the_validator():
    split = Split(2, 2, 2)
    commit, batches = commits()[1]
    split.commit(commit, batches)
    (stopped,) = [event for event in split.events if isinstance(event, Stopped)]
    assert "does not follow" in stopped.reason
    split.commit(*commits()[0])
    assert not split.blocks()


def test_gateways_read_the_log_through_frames():
    split = Split(1, 1, 1)
    for commit, batches in commits()[:3]:
        split.commit(commit, batches)
    server = LogServer(split.log)
    remote = RemoteLog(server.handle)
    assert remote.last_height() == split.log.last_height() == 3
    assert remote.headers(1, 9) == split.log.headers(1, 9)
    assert remote.records(2, 9, 10**9) == split.log.records(2, 9, 10**9)
    assert remote.newest_certificate() is None
    assert remote.certificate_from(1) is None
    first = split.blocks()[0]
    assert remote.height_of(first.block_hash) == 1
    assert remote.height_of(bytes(32)) is None
    found = remote.find_transaction(first.record.receipts[0][3:35])
    assert found is not None
    assert (found.height, found.position) == (1, 0)
    with pytest.raises(KeyError):
        RemoteLog(server.handle)._ask("close")


def test_bodies_are_put_together_in_the_order_asked():
    (commit, batches) = commits()[0]
    router = BodiesRouter(2)
    router.commit(CommitReady(commit, refs(batches)))
    wanted = BodiesWanted(commit.index, tuple(batch.digest for batch in batches))
    parts = router.wanted(wanted)
    assert [(shard, part.digests) for shard, part in parts] == [
        (shard, (batches[shard].digest,)) for shard in range(2)
    ]
    assert router.arrived(1, Bodies(commit.index, (batches[1],))) is None
    whole = router.arrived(0, Bodies(commit.index, (batches[0],)))
    assert whole is not None
    assert whole.batches == tuple(batches)


def shards_node(asked: AskedBatches | None = None) -> Node:
    remote = [LEDGER, *(RoomKey(Room.MEMPOOL, shard) for shard in range(2))]
    return Node({RoomKey(Room.VALIDATOR): Probe()}, remote, asked)


def forwarded(actions: Any) -> list[tuple[int, Any]]:
    return [(action.key.shard, action.event) for action in actions if isinstance(action, Forward)]


def test_what_is_for_rooms_elsewhere_is_forwarded():
    node = shards_node()
    assert len(forwarded(node.peer_up(1, 0))) == 3
    digest = bytes(32)
    for request in (BatchRequest((digest,)), KeyRequest((digest,))):
        event = FromPeer(1, request)
        assert forwarded(node.from_peer(1, request, 0)) == [(0, event), (1, event)]
    assert PeerUp(1) in node.rooms[RoomKey(Room.VALIDATOR)].events  # type: ignore[attr-defined]


def test_a_batch_goes_to_the_shard_that_asked_for_it():
    asked = AskedBatches()
    node = shards_node(asked)
    batch = batch_of(0, 1, 1)
    message = Batches((batch.encode(),))
    assert forwarded(node.from_peer(1, message, 0)) == [(1, FromPeer(1, message))]
    asked.note(0, BatchRequest((batch.digest,)))
    assert forwarded(node.from_peer(1, message, 0)) == [(0, FromPeer(1, message))]
    assert forwarded(node.from_peer(1, message, 0)) == [(1, FromPeer(1, message))]


def test_every_event_between_rooms_has_a_number():
    """One that has none stops the validator when it is first sent."""
    effects = {"ToPeers", "ToRoom", "Persist", "Run", "Halt", "NextEpoch", "AccountColumns"}
    events = {
        name
        for name, kind in vars(rooms).items()
        if is_dataclass(kind) and getattr(kind, "__module__", "") == "qnet_actors.rooms"
    }
    # Bodies travel without their witnesses, in a shape of their own.
    assert events - effects - {"Bodies"} <= {kind.__name__ for kind in _TYPES}
    encoder = EventEncoder()
    for event in (BatchesExpiring((bytes(32),), 1), BatchesReleased((bytes(32),))):
        key = RoomKey(Room.MEMPOOL, 1)
        assert decode_event(encoder.encode(key, event)) == (key, event)
