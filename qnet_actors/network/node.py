"""One validator: its rooms, and the way of events and messages between them.  Pure.

Both drivers, the packed host and the simulator, stand on this.  Each call takes an event and the
time, and returns what the driver carries out, in order:

- `Send`: to other validators, best effort;
- `Deliver`: an event for the gateway;
- `Forward`: an event for a room of this validator that lives elsewhere;
- `Start`: CPU work; the driver calls `ran` with its result;
- `Write`: to the room's storage; the driver calls `persisted` once it is durable;
- `Stop`: the validator stops, and every later call returns nothing.

The ordering rules of `rooms` are kept here: a driver that carries out one list after the other,
and starts nothing of a later list before an earlier one, keeps them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from qnet_actors.network.effects import EffectQueue
from qnet_actors.rooms import (
    BatchesDropped,
    BlockExecuted,
    CheckpointCertified,
    Core,
    Effect,
    FetchBatches,
    FromPeer,
    Halt,
    Joined,
    NextEpoch,
    PeerUp,
    Persist,
    Room,
    Run,
    ToPeers,
    ToRoom,
)
from qnet_actors.wire.batches import BatchHeader
from qnet_actors.wire.hashing import BATCH, hash32
from qnet_actors.wire.messages import (
    BatchAcks,
    Batches,
    BatchRequest,
    DagBlocks,
    DagRequest,
    Evidence,
    KeyRequest,
    Keys,
    LedgerBlocks,
    LedgerRequest,
    Message,
    PeerStatus,
    SnapshotPart,
    SnapshotRequest,
)

if TYPE_CHECKING:
    from qnet_actors.mempool import Entry

EVENTS_PER_CALL_MAX: Final = 4_096
"""Local events handled in one call; the rest stay queued, and `wake_ms` asks for a call at once."""


ASKED_MAX: Final = 65_536


class RoomKey(NamedTuple):
    """A room of the validator; `shard` is 0 but for mempool shards."""

    room: Room
    shard: int = 0


@dataclass(frozen=True, slots=True)
class Send:
    """`peers` None: to all others."""

    message: Message
    peers: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Deliver:
    event: Any


@dataclass(frozen=True, slots=True)
class Forward:
    key: RoomKey
    event: Any


@dataclass(frozen=True, slots=True)
class Start:
    key: RoomKey
    call: Callable[[], Any]
    then: Callable[[Any, int], Sequence[Effect]]


@dataclass(frozen=True, slots=True)
class Write:
    key: RoomKey
    writes: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    reason: str


@dataclass(frozen=True, slots=True)
class Reopen:
    """The epoch is over: the node does nothing more, and a new one is to be made from storage."""

    epoch: int
    """The one that begins."""


Action = Send | Deliver | Forward | Start | Write | Stop | Reopen

MEMPOOL: Final = RoomKey(Room.MEMPOOL)
VALIDATOR: Final = RoomKey(Room.VALIDATOR)
LEDGER: Final = RoomKey(Room.LEDGER)
GATEWAY: Final = RoomKey(Room.GATEWAY)
REPORTER: Final = RoomKey(Room.REPORTER)

_OF_VALIDATOR: Final = (DagBlocks, DagRequest, PeerStatus, Evidence)
_OF_LEDGER: Final = (LedgerRequest, LedgerBlocks, SnapshotRequest, SnapshotPart)
_OF_MEMPOOL: Final = (Batches, BatchAcks, BatchRequest, Keys, KeyRequest)
_HEADER: Final = msgspec.msgpack.Decoder(BatchHeader)


class Node:
    """The rooms of one validator; mempool shards are numbered from 0 without a gap.

    `remote` are rooms that live elsewhere: what is for them is forwarded.  Where there are any,
    each shard has a batch store of its own, and `asked` says which shard waits for a batch that
    its header would send to another.
    """

    def __init__(
        self,
        rooms: Mapping[RoomKey, Core],
        remote: Collection[RoomKey] = (),
        asked: AskedBatches | None = None,
        leftovers: Callable[[], list[list[Entry]]] = list,
        take_over: Callable[[Sequence[Sequence[Entry]]], None] | None = None,
    ) -> None:
        """`leftovers`: what waits in each of its mempool shards, for the epoch that follows, whose
        node is to `take_over` that before it starts."""
        self.leftovers: Final = leftovers
        self._take_over: Final = take_over
        self.rooms: Final = dict(rooms)
        self._remote: Final = frozenset(remote)
        self._keys: Final = (*rooms, *remote)
        self._asked: Final = asked
        shards = [key.shard for key in self._keys if key.room == Room.MEMPOOL]
        self.shard_count: Final = len(shards)
        if sorted(shards) != list(range(self.shard_count)):
            raise ValueError(f"mempool shards {sorted(shards)}")
        self.stopped: str | None = None
        """Why the validator stopped, once it has."""
        self._queues = {key: EffectQueue() for key in self.rooms}
        self._pending: deque[tuple[RoomKey, Any]] = deque()
        # A room's `wake_ms` changes by what the room takes in, so it is asked once after that.
        self._wakes: dict[RoomKey, int | None] = {}
        self._soonest: int | None = None

    def take_over(self, leftovers: Sequence[Sequence[Entry]]) -> None:
        """Takes what waited in the mempool shards of the epoch before; comes before `start`."""
        if leftovers and self._take_over is not None:
            self._take_over(leftovers)

    def start(self, now_ms: int) -> list[Action]:
        """The first call: every room does what is due at once."""
        actions: list[Action] = []
        for key in self.rooms:
            self._tick(key, now_ms, actions)
        return self._drain(now_ms, actions)

    def handle(self, room: Room, event: Any, now_ms: int, shard: int = 0) -> list[Action]:
        """An event from outside the rooms, such as the gateway's `Submit`."""
        if room != Room.MEMPOOL or self.shard_count:
            self._pending.append((RoomKey(room, shard), event))
        return self._drain(now_ms, [])

    def from_peer(self, peer: int, message: Message, now_ms: int) -> list[Action]:
        """A message of another validator, in the order in which its link delivered it."""
        if isinstance(message, _OF_VALIDATOR):
            self._pending.append((VALIDATOR, FromPeer(peer, message)))
        elif isinstance(message, _OF_MEMPOOL):
            for shard, part in self._split(message):
                self._pending.append((RoomKey(Room.MEMPOOL, shard), FromPeer(peer, part)))
        elif isinstance(message, _OF_LEDGER):
            self._pending.append((LEDGER, FromPeer(peer, message)))
        return self._drain(now_ms, [])

    def peer_up(self, peer: int, now_ms: int) -> list[Action]:
        """A link to `peer` stands (again)."""
        event = PeerUp(peer)
        self._pending.extend((key, event) for key in self._keys)
        return self._drain(now_ms, [])

    def ran(self, start: Start, result: Any, now_ms: int) -> list[Action]:
        """CPU work is done.  If it raised, the driver stops the validator instead."""
        if self.stopped is not None:
            return []
        actions: list[Action] = []
        self._take(start.key, start.then(result, now_ms), actions)
        self._tick(start.key, now_ms, actions)
        return self._drain(now_ms, actions)

    def persisted(self, key: RoomKey, now_ms: int) -> list[Action]:
        """The room's write is durable.  If it failed, the driver stops the validator instead."""
        if self.stopped is not None:
            return []
        actions: list[Action] = []
        self._route(key, self._queues[key].persisted(), actions)
        return self._drain(now_ms, actions)

    def tick(self, now_ms: int) -> list[Action]:
        """Does what is due; wanted at `wake_ms()`."""
        if self.stopped is not None:
            return []
        actions: list[Action] = []
        for key in self.rooms:
            wake_ms = self._wake_ms(key)
            if wake_ms is not None and wake_ms <= now_ms:
                self._tick(key, now_ms, actions)
        return self._drain(now_ms, actions)

    def wake_ms(self) -> int | None:
        """When the next `tick` is wanted; None: not until something happens."""
        if self.stopped is not None:
            return None
        if self._pending:
            return 0
        if len(self._wakes) < len(self.rooms):
            times = [wake for key in self.rooms if (wake := self._wake_ms(key)) is not None]
            self._soonest = min(times, default=None)
        return self._soonest

    def _wake_ms(self, key: RoomKey) -> int | None:
        if key not in self._wakes:
            self._wakes[key] = self.rooms[key].wake_ms()
        return self._wakes[key]

    def _tick(self, key: RoomKey, now_ms: int, actions: list[Action]) -> None:
        self._take(key, self.rooms[key].tick(now_ms), actions)
        self._wakes.pop(key, None)

    def _drain(self, now_ms: int, actions: list[Action]) -> list[Action]:
        """Handles local events in order until there are none, or the bound is reached."""
        pending = self._pending
        for _ in range(EVENTS_PER_CALL_MAX):
            if not pending or self.stopped is not None:
                break
            key, event = pending.popleft()
            if key in self._remote:
                actions.append(Forward(key, event))
                continue
            self._take(key, self.rooms[key].handle(event, now_ms), actions)
            self._tick(key, now_ms, actions)
        return actions

    def _take(self, key: RoomKey, effects: Sequence[Effect], actions: list[Action]) -> None:
        if effects:
            self._route(key, self._queues[key].add(effects), actions)

    def _route(self, key: RoomKey, effects: Sequence[Effect], actions: list[Action]) -> None:
        """Local events join the queue; all else is the driver's."""
        for effect in effects:
            if self.stopped is not None:
                return
            match effect:
                case ToRoom(room=Room.GATEWAY, event=event):
                    actions.append(Deliver(event))
                case ToRoom(room=Room.MEMPOOL, event=event, shard=shard):
                    self._to_mempool(event, shard)
                case ToRoom(room=room, event=event):
                    self._pending.append((RoomKey(room), event))
                case ToPeers(message=message, peers=peers):
                    actions.append(Send(message, peers))
                case Persist(writes=writes):
                    actions.append(Write(key, writes))
                case Run(call=call, then=then):
                    actions.append(Start(key, call, then))
                case NextEpoch(number=number):
                    self.stopped = f"epoch {number} begins"
                    self._pending.clear()
                    actions.append(Reopen(number))
                case Halt(reason=reason):
                    self.stopped = reason
                    self._pending.clear()
                    actions.append(Stop(reason))

    def _to_mempool(self, event: Any, shard: int) -> None:
        """What concerns every shard goes to all; what names batches, to the shards of those."""
        count = self.shard_count
        if not count:
            # Who is not of the committee has no mempool.
            return
        if count == 1 or not isinstance(
            event, BlockExecuted | Joined | CheckpointCertified | FetchBatches | BatchesDropped
        ):
            self._pending.append((RoomKey(Room.MEMPOOL, shard), event))
            return
        for own in range(count):
            part: Any = event
            if isinstance(event, FetchBatches):
                named = tuple(pair for pair in event.refs if pair[1].shard % count == own)
                part = FetchBatches(named, event.peer) if named else None
            elif isinstance(event, BatchesDropped):
                refs = tuple(ref for ref in event.refs if ref.shard % count == own)
                part = BatchesDropped(refs) if refs else None
            if part is not None:
                self._pending.append((RoomKey(Room.MEMPOOL, own), part))

    def _split(self, message: Message) -> list[tuple[int, Message]]:
        """Which shards a mempool message is for.

        Batches go by the author's shard.  Acknowledgements and keys go to every shard, since only
        the shard that waits for them knows them; requests to the first where the store is shared.
        """
        count = self.shard_count
        if not count:
            return []
        if count == 1:
            return [(0, message)]
        if isinstance(message, BatchRequest | KeyRequest) and not self._remote:
            return [(0, message)]
        if not isinstance(message, Batches):
            return [(shard, message) for shard in range(count)]
        parts: dict[int, list[bytes]] = {}
        for data in message.batches:
            header = _header_bytes(data)
            shards = {_author_shard(header) % count}
            if self._asked is not None:
                shards = self._asked.take(hash32(BATCH, header)) or shards
            for shard in shards:
                parts.setdefault(shard, []).append(data)
        return [(shard, Batches(tuple(batches))) for shard, batches in sorted(parts.items())]


class AskedBatches:
    """Which shards asked peers for which batches, bounded; the oldest are forgotten first.

    A validator may name a batch under another shard than the batch's header does.  The shard of
    the naming then asks for it, and has to get it.
    """

    def __init__(self) -> None:
        self._shards: OrderedDict[bytes, set[int]] = OrderedDict()

    def note(self, shard: int, request: BatchRequest) -> None:
        """A shard asks for these."""
        for digest in request.digests:
            self._shards.setdefault(digest, set()).add(shard)
            self._shards.move_to_end(digest)
        while len(self._shards) > ASKED_MAX:
            self._shards.popitem(last=False)

    def take(self, digest: bytes) -> set[int]:
        """The shards that asked for a batch, which are held to have it now."""
        return self._shards.pop(digest, set())


def _header_bytes(data: bytes) -> bytes:
    """The header of an encoded batch: the first of an array of three, at most 512 bytes.

    Empty where there is none, for a shard to refuse the whole.
    """
    if data[:2] == b"\x93\xc4":
        start, end = 3, 3 + data[2] if len(data) > 2 else 3
    elif data[:2] == b"\x93\xc5":
        start, end = 4, 4 + int.from_bytes(data[2:4], "big")
    else:
        return b""
    return data[start:end]


def _author_shard(header: bytes) -> int:
    """The shard that a batch's header names; 0 where it cannot be read."""
    try:
        return _HEADER.decode(header).shard
    except (msgspec.DecodeError, RecursionError):
        return 0
