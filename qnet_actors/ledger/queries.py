"""What a gateway reads: blocks, transactions and accounts.

Everything here comes from the durable log, but for accounts, which are those of the newest
executed state.  Calls may wait for a disk and belong on a thread; they never hold up a write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from qnet_actors.ledger.writes import BlockQueries, Place
from qnet_actors.light import HEADERS_MAX, ProvedTransaction, prove_transaction
from qnet_actors.rooms import AccountColumns
from qnet_actors.wire.blocks import (
    BLOCK_HEADER_CODEC,
    BLOCK_RECORD_CODEC,
    BlockHeader,
    BlockRecord,
    Certificate,
)
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import BLOCK, hash32

PAGE_BLOCKS_MAX = 100


@dataclass(frozen=True, slots=True)
class FoundTransaction:
    """An included transaction, with the block that it stands in."""

    place: Place
    header: BlockHeader
    block_hash: bytes
    body: bytes
    receipt: bytes


@dataclass(frozen=True, slots=True)
class FoundAccount:
    """An account at `height`; one that does not exist reads as zeros."""

    height: int
    nonce: int
    balance: int
    key_id: bytes


class AccountsAt(Protocol):
    """The newest executed accounts, with their height."""

    def read_at(self, addresses: npt.NDArray[np.uint8]) -> tuple[int, AccountColumns]: ...


class LedgerQueries:
    """Reads of one validator's ledger; safe to call from any thread."""

    def __init__(self, log: BlockQueries, state: AccountsAt | None = None) -> None:
        """`state` None: accounts are read elsewhere, and `account` raises RuntimeError."""
        self._log = log
        self._state = state

    def last_height(self) -> int:
        """The height of the last durable block; 0: none."""
        return self._log.last_height()

    def block(self, selector: int | bytes | None) -> BlockRecord | None:
        """A block by height or hash, or the latest; None where there is none.

        Raises `QnetError(PRUNED)` where it is below those that are kept.
        """
        height = self._height(selector)
        records = self._log.records(height, 1, 0) if height else []
        if height and not records:
            first = self._log.first_height()
            if height < first:
                raise QnetError(
                    Code.PRUNED, f"blocks are kept here from height {first} on, not {height}"
                )
        return BLOCK_RECORD_CODEC.decode(records[0]) if records else None

    def header(self, selector: int | bytes | None) -> BlockHeader | None:
        """The header alone, which costs far less to read than the block."""
        height = self._height(selector)
        headers = self._log.headers(height, 1) if height else []
        return BLOCK_HEADER_CODEC.decode(headers[0]) if headers else None

    def headers_before(self, before: int | None, count_max: int) -> list[tuple[BlockHeader, bytes]]:
        """(header, block hash) by falling height from just below `before`, or from the latest."""
        end = self._log.last_height() + 1 if before is None else before
        end = min(end, self._log.last_height() + 1)
        first = max(self._log.first_header_height(), end - min(count_max, PAGE_BLOCKS_MAX))
        headers = self._log.headers(first, max(0, end - first))
        return [(BLOCK_HEADER_CODEC.decode(h), hash32(BLOCK, h)) for h in reversed(headers)]

    def transaction(self, id_: bytes) -> FoundTransaction | None:
        """An included transaction by its id; None where it is in no durable block.

        Raises `QnetError(PRUNED)` where its block is not kept any more.
        """
        place = self._log.find_transaction(id_)
        record = self.block(place.height) if place else None
        if place is None or record is None:
            return None
        return FoundTransaction(
            place,
            record.header,
            record.header.hash(),
            record.bodies[place.position],
            record.receipts[place.position],
        )

    def proved_transaction(self, id_: bytes) -> ProvedTransaction | None:
        """An included transaction with its proof; None where it is in no durable block.

        Raises `QnetError`: NOT_FOUND where no certificate covers its block yet, PRUNED where its
        block is not kept any more.
        """
        place = self._log.find_transaction(id_)
        record = self.block(place.height) if place else None
        if place is None or record is None:
            return None
        certificate = self._log.certificate_from(place.height)
        if certificate is None:
            raise QnetError(Code.NOT_FOUND, "the transaction is not final yet; wait for it")
        count = certificate.checkpoint.height - place.height + 1
        headers = self._log.headers(place.height, min(count, HEADERS_MAX))
        if len(headers) != count:
            raise QnetError(Code.NOT_FOUND, "no certificate near its block is kept here")
        decoded = [BLOCK_HEADER_CODEC.decode(header) for header in headers]
        return prove_transaction(certificate, decoded, record, place.position)

    def account(self, address: bytes) -> FoundAccount:
        """An account in the newest executed state."""
        if self._state is None:
            raise RuntimeError("these queries read no accounts")
        height, values = self._state.read_at(np.frombuffer(address, dtype=np.uint8).reshape(1, 32))
        return FoundAccount(
            height, int(values.nonces[0]), int(values.balances[0]), values.key_ids[0].tobytes()
        )

    def certificate(self) -> Certificate | None:
        """The newest certificate."""
        return self._log.newest_certificate()

    def _height(self, selector: int | bytes | None) -> int | None:
        if selector is None:
            return self._log.last_height()
        if isinstance(selector, bytes):
            return self._log.height_of(selector)
        return selector if 1 <= selector <= self._log.last_height() else None
