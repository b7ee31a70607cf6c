"""Answering peers that catch up or join, one read of the log at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from qnet_actors.ledger.writes import BlockReader, HeldSnapshot
from qnet_actors.rooms import Effect, Run, ToPeers
from qnet_actors.wire.blocks import BLOCK_RECORD_CODEC
from qnet_actors.wire.codec import encode
from qnet_actors.wire.limits import (
    MESSAGE_LEDGER_BLOCKS_MAX,
    SNAPSHOT_PART_SIZE_BYTES_MAX,
    VALIDATORS_MAX,
)
from qnet_actors.wire.messages import LedgerBlocks, LedgerRequest, SnapshotPart, SnapshotRequest
from qnet_actors.wire.snapshots import SnapshotManifest

ANSWER_SIZE_BYTES_MAX: Final = 6 * 1024 * 1024
"""Of records in one message; one that is larger goes alone."""
RECORD_SIZE_BYTES_MAX: Final = 15 * 1024 * 1024
"""What fits into a frame beside a certificate; cutting keeps blocks far below."""

SERVED_BYTES_PER_SECOND: Final = 48 * 1024 * 1024

Request = LedgerRequest | SnapshotRequest
Reply = LedgerBlocks | SnapshotPart


class Serving:
    """The newest request of each peer, answered in turn, at a bounded rate.

    Reading takes time on the thread that executes blocks; so peers that join, or only ask, get no
    more of it than `SERVED_BYTES_PER_SECOND`.
    """

    def __init__(self, log: BlockReader) -> None:
        self._log = log
        self._waiting: dict[int, Request] = {}
        self._reading = False
        self._second = 0
        self._bytes = 0
        """Served in this second."""

    def asked(self, peer: int, request: Request, now_ms: int) -> Sequence[Effect]:
        """Takes a request; one that waits already is replaced."""
        if peer in self._waiting or len(self._waiting) < VALIDATORS_MAX:
            self._waiting[peer] = request
        return self.tick(now_ms)

    def tick(self, now_ms: int) -> Sequence[Effect]:
        """Answers the request that is due."""
        if self._reading or not self._waiting:
            return ()
        if now_ms // 1_000 != self._second:
            self._second, self._bytes = now_ms // 1_000, 0
        if self._bytes >= SERVED_BYTES_PER_SECOND:
            return ()
        peer, request = next(iter(self._waiting.items()))
        del self._waiting[peer]
        self._reading = True
        return (Run(partial(read_reply, self._log, request), partial(self._read, peer)),)

    def wake_ms(self) -> int | None:
        """When something may be answered again."""
        return (self._second + 1) * 1_000 if self._waiting and not self._reading else None

    def _read(self, peer: int, reply: Reply, now_ms: int) -> Sequence[Effect]:
        self._reading = False
        self._bytes += sum(map(len, _payload(reply)))
        return (ToPeers(reply, (peer,)), *self.tick(now_ms))


def _payload(reply: Reply) -> Sequence[bytes]:
    return reply.records if isinstance(reply, LedgerBlocks) else (reply.data,)


def read_reply(log: BlockReader, request: Request) -> Reply:
    """The answer to a request.  Reads the log."""
    if isinstance(request, LedgerRequest):
        return read_answer(log, request)
    return read_part(log, request)


def read_answer(log: BlockReader, request: LedgerRequest) -> LedgerBlocks:
    """Durable blocks of one epoch from the height asked for on, with the best certificate of them.

    That is the one which covers most of them.
    Where none covers any of them it is the newest one, from which the peer sees how far it has to
    go.  Reads the log.  What is of the next epoch waits: the committee of this one proves nothing
    of it.
    """
    count = min(request.count_max, MESSAGE_LEDGER_BLOCKS_MAX)
    first = request.first_height
    records: list[bytes] = []
    if count and 1 <= first <= log.last_height():
        records = _of_one_epoch(log.records(first, count, ANSWER_SIZE_BYTES_MAX))
    if records and len(records[0]) > RECORD_SIZE_BYTES_MAX:
        # Whoever lacks it joins from a snapshot above.
        records = []
    certificate = log.certificate_within(first, first + len(records) - 1) if records else None
    return LedgerBlocks(tuple(records), certificate or log.newest_certificate())


def read_part(log: BlockReader, request: SnapshotRequest) -> SnapshotPart:
    """A part of a snapshot, without bytes where it is not held.  Reads the log."""
    if request.part:
        snapshot = log.snapshot(request.height)
        data = None if snapshot is None else snapshot.part(request.part)
        return SnapshotPart(request.height, request.part, data or b"")
    for height in log.snapshot_heights():
        if request.height in (0, height):
            snapshot = log.snapshot(height)
            data = None if snapshot is None else _manifest(log, snapshot)
            if data is not None:
                return SnapshotPart(height, 0, data)
    return SnapshotPart(request.height, 0, b"")


def _manifest(log: BlockReader, snapshot: HeldSnapshot) -> bytes | None:
    """The manifest of a snapshot; None where it is not certified, or larger than a frame."""
    height = snapshot.height
    certificate = log.certificate_within(height, height)
    records = log.records(height, 1, 0)
    if certificate is None or not records:
        return None
    manifest = SnapshotManifest(certificate, records[0], snapshot.commits, snapshot.sections)
    data = encode(manifest)
    return data if len(data) <= SNAPSHOT_PART_SIZE_BYTES_MAX else None


def _of_one_epoch(records: list[bytes]) -> list[bytes]:
    """The records of the same epoch as the first."""

    def epoch(record: bytes) -> int:
        return BLOCK_RECORD_CODEC.decode(record).header.epoch

    first = epoch(records[0]) if records else 0
    while len(records) > 1 and epoch(records[-1]) != first:
        records = records[:-1]
    return records
