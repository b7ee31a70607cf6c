"""The validators behind a gateway: coalesced calls, home validators, fail-over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

from qnet_actors.gateway.backend import Backend, Result
from qnet_actors.gateway.metrics import Metrics
from qnet_actors.gateway.patience import Patience
from qnet_actors.gateway.queries import Answer, Query
from qnet_actors.gateway.settings import Settings
from qnet_actors.gateway.submission import terms_of
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import HOME, hash32
from qnet_actors.wire.limits import (
    SUBMISSION_SIZE_BYTES_MAX,
    SUBMISSION_TRANSACTIONS_MAX,
    U64_MAX,
)

T = TypeVar("T")
UNTAKEN: Final = frozenset({Code.NODE_UNREACHABLE, Code.NOT_READY, Code.DISK_FULL})
"""What makes a gateway offer a transaction to another validator."""
ABSENT: Final = frozenset({Code.NODE_UNREACHABLE, Code.NOT_READY})
"""What makes a gateway turn to another validator: it does not answer, or has not started."""
ELSEWHERE: Final = frozenset({Code.NOT_FOUND, Code.PRUNED})
"""What one validator does not have, and another may."""
logger: Final = logging.getLogger(__name__)


class _Entry(NamedTuple):
    transactions: list[bytes]
    size_bytes: int
    gas_price: int
    at_s: float
    done: asyncio.Future[list[Result]]


class Upstream:
    """One validator: whether it lives, and one submission in flight at a time.

    What arrives while a call is in flight goes with the next one, up to 1,000 transactions; where
    none is, a call starts at once.
    """

    def __init__(self, backend: Backend, settings: Settings, metrics: Metrics) -> None:
        self.backend = backend
        self.height = 0
        """The latest executed height seen in its event stream."""
        self._settings = settings
        self._label = str(backend.index)
        self._batch_transactions = metrics.batch_transactions.labels(self._label)
        self._queue_transactions = metrics.queue_transactions.labels(self._label)
        self._validator_up = metrics.validator_up.labels(self._label)
        self.on_down: Callable[[Upstream], None] = lambda _: None
        """Called when it is held for dead, not having been so before."""
        self._failures = 0
        self._limits: set[asyncio.Timeout] = set()
        """Of the calls under way."""
        self._retry_at_s = 0.0
        self._busy_until_s = 0.0
        self._busy_gas_price = -1
        """The highest that its last call offered for nothing, if it took none of that; else -1."""
        self._room_at_s = 0.0
        """When it may have room on its disk again."""
        self._waiting: deque[_Entry] = deque()
        self._waiting_count = 0
        self._waiting_bytes = 0
        self._sender: asyncio.Task[None] | None = None
        self._validator_up.set(1)

    @property
    def live(self) -> bool:
        """False while it is held for dead.

        One that stands still, or is being started again, costs whoever tries it a whole time-out,
        so no client's request does: it is dead until it answers who follows its events.
        """
        return self._failures == 0

    @property
    def takes(self) -> bool:
        """Whether it is offered transactions: it lives, and its disk has room as far as known."""
        return self.live and time.monotonic() >= self._room_at_s

    @property
    def retry_in_s(self) -> float:
        """How long a caller should leave it alone."""
        return max(0.0, self._retry_at_s - time.monotonic()) if self._failures else 0.0

    @property
    def refused_gas_price(self) -> int:
        """What pays no more than this need not be offered now; -1: all may be."""
        if self._waiting and self._waiting_count >= self._settings.queue_waiting_min:
            waited_s = time.monotonic() - self._waiting[0].at_s
            if waited_s * 1_000 > self._settings.queue_wait_ms_max:
                return U64_MAX
        # Once the pause is over one call finds out, and what comes during it need not wait for it.
        resting = self._sender is not None or time.monotonic() < self._busy_until_s
        return self._busy_gas_price if resting else -1

    async def call(self, request: Awaitable[T], timeout_ms: int | None = None) -> T:
        """Awaits an answer of the backend; notes whether there was one.

        Raises `QnetError`: NODE_UNREACHABLE after a time-out, or what the backend raised.
        """
        limit = asyncio.timeout(None)
        patience = Patience(limit, (timeout_ms or self._settings.call_timeout_ms) / 1_000)
        self._limits.add(limit)
        try:
            async with limit:
                answer = await request
        except TimeoutError:
            self._failed()
            raise QnetError(
                Code.NODE_UNREACHABLE, f"validator {self._label} does not answer"
            ) from None
        except QnetError as error:
            if error.code in ABSENT:
                self._failed()
            else:
                self._answered()
            raise
        finally:
            patience.end()
            self._limits.discard(limit)
        self._answered()
        return answer

    async def poll(self, after: int) -> tuple[int, list[bytes]]:
        """Its events after a cursor, or none after a while: see `events.EventLog`.

        A validator that lives says so twice a second at the least, whatever else it has to do.
        One that stands still keeps its connections, so its silence is all there is to go by: what
        it was asked meanwhile is not waited for any longer.  Raises as `call`.
        """
        settings = self._settings
        # Nobody waits for one that is dead, and being started again takes it a while.
        patience_ms = settings.silence_timeout_ms if self.live else settings.start_timeout_ms
        try:
            return await self.call(
                self.backend.poll(after, settings.poll_timeout_ms),
                settings.poll_timeout_ms + patience_ms,
            )
        except QnetError:
            if not self.live:
                self._give_up()
            raise

    async def submit(self, transactions: list[bytes], gas_price: int) -> list[Result]:
        """Offers at most 1,000 transactions; a result for each, in order.

        `gas_price` is the highest of theirs.  A validator with too much to do refuses who pays no
        more than others, and for a while after that the gateway refuses them by itself.

        Raises `QnetError`: BUSY for that, or where too much waits already, or as `call`.
        """
        size_bytes = sum(map(len, transactions))
        if (
            self.refused_gas_price >= gas_price
            or self._waiting_count + len(transactions) > self._settings.queue_transactions_max
            or self._waiting_bytes + size_bytes > self._settings.queue_size_bytes_max
        ):
            raise QnetError(Code.BUSY, f"{self._waiting_count} transactions wait for the validator")
        answer: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        entry = _Entry(transactions, size_bytes, gas_price, time.monotonic(), answer)
        self._waiting.append(entry)
        self._count(len(transactions), size_bytes)
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())
        return await entry.done

    async def close(self) -> None:
        """Ends the call in flight; who waits is told NOT_READY."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])

    async def _send(self) -> None:
        entries: list[_Entry] = []
        try:
            while self._waiting:
                entries = self._take()
                await self._send_once(entries)
                if not self.live:
                    # What waits would wait for the same again; another validator may take it.
                    self._refuse_all(QnetError(Code.NODE_UNREACHABLE, "it does not answer"))
                elif self._busy_gas_price >= 0:
                    self._refuse_all(QnetError(Code.BUSY), self._busy_gas_price)
        finally:
            self._sender = None
            gone = QnetError(Code.NOT_READY, "the gateway is closing")
            for entry in entries:
                _fail(entry, gone)
            self._refuse_all(gone)

    def _refuse_all(self, error: QnetError, gas_price: int = U64_MAX) -> None:
        """Tells those who wait and pay no more than `gas_price`."""
        left = deque[_Entry]()
        for entry in self._waiting:
            if entry.gas_price > gas_price:
                left.append(entry)
                continue
            _fail(entry, error)
            self._count(-len(entry.transactions), -entry.size_bytes)
        self._waiting = left

    async def _send_once(self, entries: list[_Entry]) -> None:
        transactions = [transaction for entry in entries for transaction in entry.transactions]
        self._batch_transactions.observe(len(transactions))
        try:
            results = await self.call(self.backend.submit(transactions))
        except QnetError as error:
            if error.code is Code.DISK_FULL:
                self._room_at_s = time.monotonic() + self._settings.retry_last_ms / 1_000
            for entry in entries:
                _fail(entry, error)
            return
        except Exception:
            logger.exception("the call to validator %s failed", self._label)
            for entry in entries:
                _fail(entry, QnetError(Code.INTERNAL))
            return
        self._busy_gas_price = -1
        if all(code != Code.SUCCESS for code, _, _ in results):
            # Other refusals say nothing of the price: a dear transaction with a fault of its own
            # must not keep out all that pay less.
            busy = [
                terms_of(data)[1]
                for data, (code, _, _) in zip(transactions, results, strict=True)
                if code == Code.BUSY
            ]
            if busy:
                self._busy_until_s = time.monotonic() + self._settings.busy_pause_ms / 1_000
                self._busy_gas_price = max(busy)
        start = 0
        for entry in entries:
            end = start + len(entry.transactions)
            if not entry.done.done():
                entry.done.set_result(results[start:end])
            start = end

    def _take(self) -> list[_Entry]:
        entries: list[_Entry] = []
        count = size_bytes = 0
        while self._waiting:
            entry = self._waiting[0]
            count += len(entry.transactions)
            size_bytes += entry.size_bytes
            if entries and (
                count > SUBMISSION_TRANSACTIONS_MAX or size_bytes > SUBMISSION_SIZE_BYTES_MAX
            ):
                break
            entries.append(self._waiting.popleft())
            self._count(-len(entry.transactions), -entry.size_bytes)
        return entries

    def _count(self, transactions: int, size_bytes: int) -> None:
        self._waiting_count += transactions
        self._waiting_bytes += size_bytes
        self._queue_transactions.set(self._waiting_count)

    def _failed(self) -> None:
        first = self._failures == 0
        if not first and time.monotonic() < self._retry_at_s:
            # All calls under way end with a validator, and are one death.
            return
        if first:
            logger.warning("validator %s does not answer", self._label)
        backoff_ms = min(
            self._settings.retry_first_ms * 2 ** min(self._failures, 16),
            self._settings.retry_last_ms,
        )
        self._failures += 1
        self._retry_at_s = time.monotonic() + backoff_ms / 1_000
        self._validator_up.set(0)
        if first:
            self.on_down(self)

    def _give_up(self) -> None:
        """Ends the calls under way, as if each had timed out."""
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

    def _answered(self) -> None:
        if self._failures:
            logger.info("validator %s answers again", self._label)
            self._validator_up.set(1)
        self._failures = 0


def _fail(entry: _Entry, error: QnetError) -> None:
    if not entry.done.done():
        entry.done.set_exception(error)


@lru_cache(maxsize=65_536)
def home(sender: bytes, count: int) -> tuple[int, int]:
    """Which of `count` validators a sender's transactions go to, and what is left of its hash."""
    turn, position = divmod(int.from_bytes(hash32(HOME, sender)[:8], "big"), count)
    return position, turn


class Upstreams:
    """All validators of the operator."""

    def __init__(self, backends: Sequence[Backend], settings: Settings, metrics: Metrics) -> None:
        if not backends:
            raise QnetError(Code.CONFIGURATION_INVALID, "a gateway needs a validator")
        self.all: Final = tuple(Upstream(backend, settings, metrics) for backend in backends)

    def home(self, sender: bytes) -> Upstream:
        """The validator that a sender's transactions go to.

        By hash over all; where that one is dead or its disk has no room, by the rest of the hash
        over those that take some, so a death moves its own senders alone.  Raises `QnetError`:
        NOT_READY where none lives, DISK_FULL where none has room.
        """
        position, turn = home(sender, len(self.all))
        if self.all[position].takes:
            return self.all[position]
        # In one order for all its transactions: the next ones wait for those before.
        taking = [upstream for upstream in self.all if upstream.takes]
        if not taking:
            raise self.refusal()
        return taking[turn % len(taking)]

    def refusal(self) -> QnetError:
        """Why nobody took a transaction."""
        living = [upstream for upstream in self.all if upstream.live]
        if living and not any(upstream.takes for upstream in living):
            return QnetError(Code.DISK_FULL, "no validator of this gateway has room on its disk")
        return QnetError(Code.NOT_READY, "no validator answers; try again")

    def living(self) -> list[Upstream]:
        """Those that answer, the furthest ahead first; raises `QnetError(NOT_READY)` for none."""
        living = [upstream for upstream in self.all if upstream.live]
        if not living:
            raise QnetError(Code.NOT_READY, "no validator of this gateway answers; try again")
        return sorted(living, key=lambda upstream: -upstream.height)

    @property
    def refused_gas_price(self) -> int:
        """What pays no more than this no validator takes now; -1: somebody may."""
        living = [upstream for upstream in self.all if upstream.live]
        return min((upstream.refused_gas_price for upstream in living), default=-1)

    async def query(self, request: Query, first: Upstream | None = None) -> Answer:
        """The answer of `first`, or of the next living one that has it.

        NOT_FOUND, PRUNED and absence of one leave it to the next; raises the last refusal, or that
        it is pruned: whoever said so knew of it.
        """
        living = self.living()
        order: Iterable[Upstream] = living
        if first is not None:
            order = (first, *(upstream for upstream in living if upstream is not first))
        refusal = QnetError(Code.NOT_READY, "no validator of this gateway answers; try again")
        for upstream in order:
            try:
                return await upstream.call(upstream.backend.query(request))
            except QnetError as error:
                if error.code in ELSEWHERE:
                    refusal = refusal if refusal.code is Code.PRUNED else error
                elif error.code not in ABSENT:
                    raise
        raise refusal

    async def close(self) -> None:
        for upstream in self.all:
            await upstream.close()
