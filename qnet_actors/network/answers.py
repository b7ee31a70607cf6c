"""What a validator answers its gateways: from state, block log and what it remembers."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import numpy as np

from qnet_actors import __version__
from qnet_actors.gateway.events import BlockEvent, CheckpointEvent, StatusEvent
from qnet_actors.gateway.queries import (
    PAGE_SIZE_BYTES_MAX,
    AccountAnswer,
    AccountQuery,
    Answer,
    BlockAnswer,
    BlockQuery,
    BlocksAnswer,
    BlocksQuery,
    BlockSummary,
    CheckpointAnswer,
    CheckpointQuery,
    Query,
    StatusAnswer,
    StatusQuery,
    TransactionAnswer,
    TransactionQuery,
    ValidatorInfo,
    ValidatorsAnswer,
    ValidatorsQuery,
)
from qnet_actors.gateway.tracker import EXECUTED, FINAL, Tracker
from qnet_actors.links import Links
from qnet_actors.network.compose import Validator
from qnet_actors.wire.blocks import (
    BLOCK_HEADER_CODEC,
    BLOCK_RECORD_CODEC,
    BlockHeader,
    BlockRecord,
)
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.limits import BLOCK_RECORD_SIZE_BYTES_MAX


class Answers:
    """Reads one validator for gateways.  Reads of the block log run in threads."""

    def __init__(self, genesis: Genesis, index: int, validator: Validator, links: Links) -> None:
        self._genesis: Final = genesis
        self._chain_id: Final = genesis.chain_id()
        self._index: Final = index
        self._validator: Final = validator
        self._links: Final = links
        self._tracker: Final = Tracker()
        self._log: Final = validator.stores.log
        height = self._log.last_height()
        self._latest: BlockHeader | None = self._header(height) if height else None
        certificate = self._log.newest_certificate()
        self._certificate = certificate
        self._tracker.height = height
        if certificate is not None:
            self._tracker.final_height = certificate.checkpoint.height

    def note(self, event: BlockEvent | StatusEvent | CheckpointEvent) -> None:
        """Keeps up with what happens."""
        self._tracker.apply(event, _now_ms())
        if isinstance(event, BlockEvent):
            self._latest = event.header

    def received(self, ids: list[bytes]) -> None:
        """Notes transactions that the pool took."""
        self._tracker.received(ids, _now_ms())

    async def answer(self, request: Query, *, ready: bool) -> Answer:
        """The answer of the same name; raises `QnetError(NOT_FOUND)` where there is nothing."""
        match request:
            case StatusQuery():
                return self._status(ready)
            case ValidatorsQuery():
                return self._validators()
            case AccountQuery(address=address):
                return self._account(address)
            case TransactionQuery(id=id_):
                return await asyncio.to_thread(self._transaction, id_)
            case BlockQuery():
                return await asyncio.to_thread(self._block, request)
            case BlocksQuery(before=before, count_max=count_max):
                return await asyncio.to_thread(self._blocks, before, count_max)
            case CheckpointQuery():
                return await asyncio.to_thread(self._checkpoint)

    def _status(self, ready: bool) -> StatusAnswer:
        consensus, latest = self._validator.consensus.status, self._latest
        return StatusAnswer(
            chain_id=self._chain_id,
            name=self._genesis.name,
            development=self._genesis.development,
            index=self._index,
            version=__version__,
            ready=ready and not consensus.catching_up,
            epoch=self._validator.committee.epoch,
            round=consensus.round,
            commit_index=consensus.commit_index,
            height=latest.height if latest else 0,
            block_hash=latest.hash() if latest else self._chain_id,
            timestamp_ms=latest.timestamp_ms if latest else self._genesis.timestamp_ms,
            final_height=self._tracker.final_height,
            pool_transactions=sum(s.metrics.pool_transactions for s in self._validator.shards),
            gas_price_min=1,
        )

    def _validators(self) -> ValidatorsAnswer:
        committee, up = self._validator.committee, {self._index, *self._links.up}
        return ValidatorsAnswer(
            epoch=committee.epoch,
            quorum=committee.quorum,
            validators=tuple(
                ValidatorInfo(
                    index=index,
                    scheme=member.scheme,
                    key_id=committee.key_id(index),
                    stake=member.stake,
                    reward=member.reward,
                    connected=index in up,
                )
                for index, member in enumerate(committee.members)
            ),
        )

    def _account(self, address: bytes) -> AccountAnswer:
        state = self._validator.state
        height = state.height
        columns = state.read(np.frombuffer(address, dtype=np.uint8).reshape(1, 32))
        nonce = int(columns.nonces[0])
        return AccountAnswer(
            height=height,
            balance=int(columns.balances[0]),
            nonce=nonce,
            next_nonce=max(s.next_nonce(address, nonce) for s in self._validator.shards),
            key_id=columns.key_ids[0].tobytes(),
        )

    def _transaction(self, id_: bytes) -> TransactionAnswer:
        place = self._log.find_transaction(id_)
        if place is None:
            tracked = self._tracker.status(id_)
            if tracked is None or tracked.status in (EXECUTED, FINAL):
                raise QnetError(Code.NOT_FOUND, f"no transaction {id_.hex()} is known here")
            return TransactionAnswer(tracked.status, 0, 0, b"", b"", b"")
        record = self._record(place.height)
        return TransactionAnswer(
            status=FINAL if place.height <= self._tracker.final_height else EXECUTED,
            height=place.height,
            index=place.position,
            block_hash=record.header.hash(),
            body=record.bodies[place.position],
            receipt=record.receipts[place.position],
        )

    def _block(self, request: BlockQuery) -> BlockAnswer:
        height = self._height(request.selector)
        if not request.count_max:
            header = self._header(height)
            return BlockAnswer(header, header.hash(), height <= self._tracker.final_height, (), ())
        record = self._record(height)
        end = request.first
        size_bytes = 0
        while end < min(len(record.bodies), request.first + request.count_max):
            size_bytes += len(record.bodies[end]) + len(record.receipts[end])
            if size_bytes > PAGE_SIZE_BYTES_MAX and end > request.first:
                break
            end += 1
        return BlockAnswer(
            header=record.header,
            block_hash=record.header.hash(),
            final=height <= self._tracker.final_height,
            bodies=record.bodies[request.first : end],
            receipts=record.receipts[request.first : end],
        )

    def _height(self, selector: int | bytes | None) -> int:
        height: int | None
        if isinstance(selector, bytes):
            height = self._log.height_of(selector)
        else:
            last = self._log.last_height()
            height = last if selector is None else selector
            if not 1 <= height <= last:
                height = None
        if height is None:
            raise QnetError(Code.NOT_FOUND, "no such block is known here")
        return height

    def _blocks(self, before: int | None, count_max: int) -> BlocksAnswer:
        last = self._log.last_height()
        end = last + 1 if before is None else min(before, last + 1)
        first = max(1, end - count_max)
        if end <= first:
            return BlocksAnswer(())
        headers = [
            BLOCK_HEADER_CODEC.decode(data) for data in self._log.headers(first, end - first)
        ]
        return BlocksAnswer(
            tuple(BlockSummary(header, header.hash()) for header in reversed(headers))
        )

    def _checkpoint(self) -> CheckpointAnswer:
        certificate = self._log.newest_certificate()
        if certificate is None:
            raise QnetError(Code.NOT_FOUND, "no checkpoint is certified yet")
        return CheckpointAnswer(certificate)

    def _header(self, height: int) -> BlockHeader:
        headers = self._log.headers(height, 1)
        if not headers:
            raise QnetError(Code.NOT_FOUND, f"no block {height} is known here")
        return BLOCK_HEADER_CODEC.decode(headers[0])

    def _record(self, height: int) -> BlockRecord:
        records = self._log.records(height, 1, BLOCK_RECORD_SIZE_BYTES_MAX)
        if not records:
            raise QnetError(Code.NOT_FOUND, f"no block {height} is known here")
        return BLOCK_RECORD_CODEC.decode(records[0])


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
