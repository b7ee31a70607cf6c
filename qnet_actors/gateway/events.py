"""A validator's event stream to its gateways: what happened, in columns, behind a cursor."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import Annotated, Final

import msgspec

from qnet_actors.gateway.queries import Fault
from qnet_actors.wire.blocks import BlockHeader, BlockRecord, Checkpoint
from qnet_actors.wire.codec import Codec, Digest, Struct, Unsigned, encode

LOG_SIZE_BYTES_MAX: Final = 32 * 1024 * 1024
POLL_SIZE_BYTES_MAX: Final = 4 * 1024 * 1024
POLL_EVENTS_MAX: Final = 1_024
POLL_TIMEOUT_MS_MAX: Final = 3_600_000
_EVENT_SIZE_BYTES_MAX: Final = 8 * 1024 * 1024


class MissedEvents(Struct, frozen=True, tag=1):
    """The reader fell behind the bounded backlog: events before the next one are lost to it."""


class StatusEvent(Struct, frozen=True, tag=2):
    """Transactions reached a status short of execution: `rooms.StatusChanged` as it travels."""

    status: Annotated[str, msgspec.Meta(max_length=32)]
    ids: bytes
    """32 bytes each."""


class BlockEvent(Struct, frozen=True, tag=3):
    """A block is executed and durable; columns in the order of its transactions."""

    header: BlockHeader
    block_hash: Digest
    ids: bytes
    """32 bytes each."""
    statuses: bytes
    """uint16 little-endian each: the receipts' codes."""
    gas_used: bytes
    """uint64 little-endian each."""


class CheckpointEvent(Struct, frozen=True, tag=4):
    """A quorum certified the checkpoint: all up to its height is final."""

    checkpoint: Checkpoint


Event = MissedEvents | StatusEvent | BlockEvent | CheckpointEvent


class PollFrame(Struct, frozen=True):
    """Asks for events: see `EventLog.poll`."""

    after: Unsigned
    timeout_ms: Annotated[int, msgspec.Meta(ge=0, le=POLL_TIMEOUT_MS_MAX)]


class PollAnswer(Struct, frozen=True, tag=1):
    cursor: Unsigned
    """What to pass as `after` next."""
    events: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=POLL_EVENTS_MAX)]


EVENT_CODEC: Final = Codec[Event](Event, _EVENT_SIZE_BYTES_MAX)
POLL_FRAME_CODEC: Final = Codec[PollFrame](PollFrame, 64)
POLL_CODEC: Final = Codec["PollAnswer | Fault"](PollAnswer | Fault, 16 * 1024 * 1024)

# Receipts of the own ledger: the first three fields are wanted, the rest is only stepped over.
_RECEIPT_HEAD: Final = msgspec.msgpack.Decoder(tuple[bytes, int, int, msgspec.Raw, msgspec.Raw])


def receipt_head(receipt: bytes) -> tuple[int, int]:
    """The status and the gas used of an encoded receipt of the own ledger."""
    head = _RECEIPT_HEAD.decode(receipt)
    return head[1], head[2]


def block_event(record: BlockRecord, block_hash: bytes) -> BlockEvent:
    """The event of an executed block of the own ledger."""
    heads = [_RECEIPT_HEAD.decode(receipt) for receipt in record.receipts]
    count = len(heads)
    return BlockEvent(
        header=record.header,
        block_hash=block_hash,
        ids=b"".join(head[0] for head in heads),
        statuses=struct.pack(f"<{count}H", *(head[1] for head in heads)),
        gas_used=struct.pack(f"<{count}Q", *(head[2] for head in heads)),
    )


class EventLog:
    """The bounded backlog of one validator's events, read by cursor; one event loop only.

    Cursors rise by one an event from `first`, which a restarted validator sets above all that it
    gave out before (its start time in microseconds will do), so a reader that was there before
    the restart is told that it missed something.
    """

    def __init__(self, first: int = 1, size_bytes_max: int = LOG_SIZE_BYTES_MAX) -> None:
        self._oldest = first
        self._size_bytes_max = size_bytes_max
        self._size_bytes = 0
        self._events: deque[bytes] = deque()
        self._more = asyncio.Event()

    @property
    def cursor(self) -> int:
        """The cursor after the newest event."""
        return self._oldest + len(self._events)

    def append(self, event: Event) -> None:
        """Adds an event; the oldest go where the backlog is full."""
        encoded = encode(event)
        self._events.append(encoded)
        self._size_bytes += len(encoded)
        while self._size_bytes > self._size_bytes_max:
            self._size_bytes -= len(self._events.popleft())
            self._oldest += 1
        self._more.set()
        self._more = asyncio.Event()

    def read(self, after: int) -> tuple[int, list[bytes]]:
        """What came after the cursor `after`, bounded, and the cursor to go on from.

        A cursor that the log does not hold any more, or never gave out, gets `MissedEvents` and
        the whole backlog.  0: from now on.
        """
        if after == 0:
            return self.cursor, []
        events: list[bytes] = []
        size_bytes = 0
        position = after
        if not self._oldest <= after <= self.cursor:
            events.append(encode(MissedEvents()))
            position = self._oldest
        for offset in range(position - self._oldest, len(self._events)):
            event = self._events[offset]
            size_bytes += len(event)
            if events and (size_bytes > POLL_SIZE_BYTES_MAX or len(events) >= POLL_EVENTS_MAX):
                break
            events.append(event)
            position += 1
        return position, events

    async def poll(self, after: int, timeout_ms: int) -> tuple[int, list[bytes]]:
        """`read`, which waits up to `timeout_ms` for something to be there."""
        more = self._more
        cursor, events = self.read(after)
        if events or after == 0:
            return cursor, events
        try:
            async with asyncio.timeout(timeout_ms / 1_000):
                await more.wait()
        except TimeoutError:
            return cursor, []
        return self.read(after)
