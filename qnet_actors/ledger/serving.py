"""Answering peers that catch up, one read of the log at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from qnet_actors.ledger.writes import BlockReader
from qnet_actors.rooms import Effect, Run, ToPeers
from qnet_actors.wire.limits import MESSAGE_LEDGER_BLOCKS_MAX, VALIDATORS_MAX
from qnet_actors.wire.messages import LedgerBlocks, LedgerRequest

ANSWER_SIZE_BYTES_MAX: Final = 6 * 1024 * 1024
"""A record may be larger by itself; a frame still holds it."""


class Serving:
    """The newest request of each peer, answered in turn."""

    def __init__(self, log: BlockReader) -> None:
        self._log = log
        self._waiting: dict[int, LedgerRequest] = {}
        self._reading = False

    def asked(self, peer: int, request: LedgerRequest) -> Sequence[Effect]:
        """Takes a request; one that waits already is replaced."""
        if peer in self._waiting or len(self._waiting) < VALIDATORS_MAX:
            self._waiting[peer] = request
        return self._next()

    def _next(self) -> Sequence[Effect]:
        if self._reading or not self._waiting:
            return ()
        peer, request = next(iter(self._waiting.items()))
        del self._waiting[peer]
        self._reading = True
        return (Run(partial(read_answer, self._log, request), partial(self._read, peer)),)

    def _read(self, peer: int, answer: LedgerBlocks, now_ms: int) -> Sequence[Effect]:
        self._reading = False
        return (ToPeers(answer, (peer,)), *self._next())


def read_answer(log: BlockReader, request: LedgerRequest) -> LedgerBlocks:
    """Durable blocks from the height asked for on, with the certificate that covers most of them.

    Where none covers any of them it is the newest one, from which the peer sees how far it has to
    go.  Reads the log.
    """
    count = min(request.count_max, MESSAGE_LEDGER_BLOCKS_MAX)
    first = request.first_height
    records: list[bytes] = []
    if count and 1 <= first <= log.last_height():
        records = log.records(first, count, ANSWER_SIZE_BYTES_MAX)
    certificate = log.certificate_within(first, first + len(records) - 1) if records else None
    return LedgerBlocks(tuple(records), certificate or log.newest_certificate())
