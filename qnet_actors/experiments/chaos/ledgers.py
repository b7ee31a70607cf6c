"""The ledgers of all validators, read block by block and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from qnet_actors.gateway.queries import BlockAnswer, BlockQuery, Fault, StatusAnswer, StatusQuery
from qnet_actors.network.launch import Network
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.transactions import transaction_id

QUERIES_AT_ONCE: Final = 64
PAGE_TRANSACTIONS: Final = 1_000


@dataclass(slots=True)
class _Ledger:
    """What was read of one validator's."""

    hashes: list[bytes] = field(default_factory=list)
    """Of the blocks from height 1 on."""
    heights: dict[bytes, int] = field(default_factory=dict)
    """Transaction id -> height of its block."""


class Ledgers:
    """Raises `QnetError(DIVERGED)` where a transaction stands twice, or two ledgers differ."""

    def __init__(self, network: Network) -> None:
        self._network: Final = network
        self._read = [_Ledger() for _ in range(network.settings.validators)]

    def missing(self, ids: Sequence[bytes]) -> dict[bytes, list[int]]:
        """For each of `ids` that a validator has not executed, the validators that have not."""
        found: dict[bytes, list[int]] = {}
        for index, ledger in enumerate(self._read):
            for id_ in ids:
                if id_ not in ledger.heights:
                    found.setdefault(id_, []).append(index)
        return found

    def forget(self, index: int, newest: int | None = None) -> None:
        """Has a validator's newest blocks read anew; None: all from the first on."""
        ledger = self._read[index]
        kept = 0 if newest is None else max(0, len(ledger.hashes) - newest)
        heights = {id_: height for id_, height in ledger.heights.items() if height <= kept}
        self._read[index] = _Ledger(ledger.hashes[:kept], heights)

    def update(self) -> None:
        """Reads what is new.  Raises `QnetError(NODE_UNREACHABLE)` where a validator is down."""
        for index, ledger in enumerate(self._read):
            (status,) = self._network.ask(index, [StatusQuery()])
            if not isinstance(status, StatusAnswer):
                raise QnetError(Code.NODE_UNREACHABLE, f"validator {index} has no status")
            while len(ledger.hashes) < status.height:
                first = len(ledger.hashes) + 1
                self._read_blocks(index, first, min(status.height, first + QUERIES_AT_ONCE - 1))
        self._compare()

    def _read_blocks(self, index: int, first: int, last: int) -> None:
        queries = [BlockQuery(height, 0, PAGE_TRANSACTIONS) for height in range(first, last + 1)]
        for query, answer in zip(queries, self._network.ask(index, queries), strict=True):
            block = _block(index, answer)
            bodies = list(block.bodies)
            while len(bodies) < block.header.transaction_count:
                more = BlockQuery(query.selector, len(bodies), PAGE_TRANSACTIONS)
                (answer,) = self._network.ask(index, [more])
                bodies += _block(index, answer).bodies
            self._take(index, block, bodies)

    def _take(self, index: int, block: BlockAnswer, bodies: Sequence[bytes]) -> None:
        ledger, height = self._read[index], block.header.height
        if height != len(ledger.hashes) + 1:
            raise QnetError(Code.DIVERGED, f"validator {index} answered with block {height}")
        ledger.hashes.append(block.block_hash)
        for body in bodies:
            id_ = transaction_id(body)
            before = ledger.heights.setdefault(id_, height)
            if before != height or bodies.count(body) > 1:
                raise QnetError(
                    Code.DIVERGED,
                    f"validator {index} executed {id_.hex()} in block {before} and {height}",
                )

    def _compare(self) -> None:
        height = min(len(ledger.hashes) for ledger in self._read)
        if height and len({ledger.hashes[height - 1] for ledger in self._read}) > 1:
            raise QnetError(Code.DIVERGED, f"the validators have different blocks {height}")


def _block(index: int, answer: object) -> BlockAnswer:
    if isinstance(answer, BlockAnswer):
        return answer
    reason = answer.detail if isinstance(answer, Fault) else type(answer).__name__
    raise QnetError(Code.NODE_UNREACHABLE, f"validator {index} does not give a block: {reason}")
