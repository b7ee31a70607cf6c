"""Events between the rooms of one validator, as bytes.

Both ends are of one validator and of one version: what does not decode is a fault of the node, and
no bound of a client's or a peer's input is checked here again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from qnet_actors.network.node import RoomKey
from qnet_actors.rooms import (
    BatchesDropped,
    BatchesExpiring,
    BatchesHeld,
    BatchesReleased,
    BatchReady,
    BlockExecuted,
    Bodies,
    BodiesWanted,
    CatchUp,
    CaughtUp,
    CheckpointCertified,
    CheckpointMade,
    CommitReady,
    CommitsExecuted,
    EpochEnds,
    FetchBatches,
    FromPeer,
    Joined,
    JoinProgress,
    PeerUp,
    Room,
    StatusChanged,
    Submit,
    SubmitResult,
)
from qnet_actors.wire.batches import Batch, BatchHeader
from qnet_actors.wire.codec import Struct, encode
from qnet_actors.wire.messages import Message


@dataclass(frozen=True, slots=True)
class SendToPeers:
    """A room that holds no links wants this sent; `peers` None: to all."""

    message: Message
    peers: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Stopped:
    """A room stopped the validator."""

    reason: str


@dataclass(frozen=True, slots=True)
class EpochOver:
    """The ledger's epoch is over, and durable: all rooms are to be made anew."""

    number: int
    """Of the epoch that begins."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The ledger's word on who may link: (scheme, public key) of each."""

    keys: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class _Bare:
    """A batch as execution needs it, without the witnesses, which are most of its bytes."""

    header: BatchHeader
    bodies: bytes
    witnesses_size_bytes: int


@dataclass(frozen=True, slots=True)
class _BareBodies:
    commit_index: int
    batches: tuple[_Bare, ...]


class _Item(Struct, frozen=True):
    room: int
    shard: int
    tag: int
    payload: bytes


# The order is the numbering.  Both ends are started together, so it may change between versions.
_TYPES: Final[tuple[type, ...]] = (
    SendToPeers,
    Stopped,
    EpochOver,
    Registered,
    _BareBodies,
    BatchReady,
    BatchesDropped,
    BatchesExpiring,
    BatchesHeld,
    BatchesReleased,
    BlockExecuted,
    BodiesWanted,
    CatchUp,
    CaughtUp,
    CheckpointCertified,
    CheckpointMade,
    CommitReady,
    CommitsExecuted,
    EpochEnds,
    FetchBatches,
    FromPeer,
    Joined,
    JoinProgress,
    PeerUp,
    StatusChanged,
    Submit,
    SubmitResult,
)
_TAGS: Final = {type_: tag for tag, type_ in enumerate(_TYPES)}
_DECODERS: Final[list[msgspec.msgpack.Decoder[Any]]] = [
    msgspec.msgpack.Decoder(type_) for type_ in _TYPES
]
_ITEM: Final[msgspec.msgpack.Decoder[_Item]] = msgspec.msgpack.Decoder(_Item)


class EventEncoder:
    """Encodes events; one that goes to several rooms in a row is encoded once."""

    def __init__(self) -> None:
        self._last: Any = None
        self._payload = b""

    def encode(self, key: RoomKey, event: Any) -> bytes:
        """An event for a room; raises TypeError for what is no event between rooms."""
        if event is not self._last:
            if type(event) not in _TAGS and not isinstance(event, Bodies):
                raise TypeError(f"{type(event).__name__} does not pass between processes")
            self._payload = encode(_bare(event) if isinstance(event, Bodies) else event)
            self._last = event
        tag = _TAGS[_BareBodies if isinstance(event, Bodies) else type(event)]
        return encode(_Item(key.room, key.shard, tag, self._payload))


def decode_event(data: bytes) -> tuple[RoomKey, Any]:
    """(whom it is for, event)."""
    item = _ITEM.decode(data)
    event = _DECODERS[item.tag].decode(item.payload)
    if isinstance(event, _BareBodies):
        event = Bodies(event.commit_index, tuple(_whole(batch) for batch in event.batches))
    return RoomKey(Room(item.room), item.shard), event


def _bare(event: Bodies) -> _BareBodies:
    return _BareBodies(
        event.commit_index,
        tuple(_Bare(batch.header, batch.bodies, len(batch.witnesses)) for batch in event.batches),
    )


def _whole(bare: _Bare) -> Batch:
    """Zeros stand for the witnesses: the mempool has checked them, and nobody reads them again."""
    return Batch(bare.header, bare.bodies, bytes(bare.witnesses_size_bytes))
