"""A development network shown at work: real signed transfers, followed to their receipts."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from qnet_actors.client import AsyncClient, Message, build, sign
from qnet_actors.crypto import Signer
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import SUBMISSION_TRANSACTIONS_MAX
from qnet_actors.wire.transactions import Transfer

TICK_SECONDS: Final = 0.05
RECEIPT_TIMEOUT_SECONDS: Final = 30.0
RECENT_SECONDS: Final = 5.0
LATENCIES_KEPT: Final = 100_000


@dataclass(slots=True)
class Figures:
    """What was sent and what came of it; times are of time.monotonic()."""

    transactions: int = 0
    executed: int = 0
    failed: int = 0
    refused: int = 0
    height: int = 0
    final_height: int = 0
    latency_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))
    recent: list[float] = field(default_factory=list)
    """When the last ones were executed."""
    first_sent: float = 0.0
    last_executed: float = 0.0

    @property
    def tps(self) -> float:
        """Executed a second, from the first that was sent to the last receipt."""
        span = self.last_executed - self.first_sent
        return self.executed / span if span > 0 else 0.0

    def recent_tps(self, now: float) -> float:
        """Executed a second within the last seconds."""
        self.recent = [at for at in self.recent if at > now - RECENT_SECONDS]
        return len(self.recent) / RECENT_SECONDS


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that `share` of `values` do not exceed; 0 of none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Demonstration:
    """Sends transfers among the accounts of `signers`, in turn, and follows their blocks."""

    def __init__(self, url: str, signers: Sequence[Signer]) -> None:
        self.figures: Final = Figures()
        self._url = url
        self._signers = list(signers)
        self._nonces = [0] * len(self._signers)
        self._sent: dict[str, float] = {}
        self._done = asyncio.Event()

    async def run(
        self, count: int, rate_per_second: float, on_first: Callable[[], None]
    ) -> Figures:
        """Sends `count` transfers at a rate, and waits for their receipts.

        `on_first` is called at the first receipt.  Raises `QnetError(WAIT_TIMEOUT)` where receipts
        stay out for `RECEIPT_TIMEOUT_SECONDS`.
        """
        async with AsyncClient(self._url) as client:
            await self._begin(client)
            async with client.subscribe(blocks=True, transactions=True) as messages:
                follower = asyncio.create_task(self._follow(messages))
                try:
                    await self._send(client, 1)
                    await self._receipts()
                    on_first()
                    await self._send_at_rate(client, count - 1, rate_per_second)
                    await self._receipts()
                finally:
                    follower.cancel()
                    await asyncio.gather(follower, return_exceptions=True)
        return self.figures

    async def _begin(self, client: AsyncClient) -> None:
        # Of an earlier run, what has no receipt by now may never have one.
        self._sent.clear()
        chain_id, _ = await client.network()
        self._chain_id = chain_id
        for number, signer in enumerate(self._signers):
            self._nonces[number] = await client.next_nonce(signer.key_id)

    async def _send_at_rate(self, client: AsyncClient, count: int, rate_per_second: float) -> None:
        begin = time.monotonic()
        sent = 0
        while sent < count:
            due = min(count, int((time.monotonic() - begin) * rate_per_second) + 1) - sent
            # A machine that slept, or a rate that is too high, makes more due than one may carry.
            due = min(due, SUBMISSION_TRANSACTIONS_MAX)
            if due > 0:
                await self._send(client, due)
                sent += due
            await asyncio.sleep(TICK_SECONDS)

    async def _send(self, client: AsyncClient, count: int) -> None:
        """Signs and submits the next `count`."""
        signed = await asyncio.to_thread(self._sign, count)
        now = time.monotonic()
        self._done.clear()
        self.figures.first_sent = self.figures.first_sent or now
        self.figures.transactions += count
        for id_, _ in signed:
            self._sent[id_.hex()] = now
        results = await client.submit_many([data for _, data in signed])
        for result in results:
            if result.code != Code.SUCCESS.label:
                self.figures.refused += 1
                self._sent.pop(result.id or "", None)
        if not self._sent:
            self._done.set()

    def _sign(self, count: int) -> list[tuple[bytes, bytes]]:
        signed = []
        for _ in range(count):
            number = min(range(len(self._signers)), key=lambda n: (self._nonces[n], n))
            signer, nonce = self._signers[number], self._nonces[number]
            payee = self._signers[(number + 1 + nonce) % len(self._signers)]
            body = build(
                chain_id=self._chain_id,
                sender=signer.key_id,
                signer=signer,
                nonce=nonce,
                action=Transfer(payee.key_id, 1 + nonce),
            )
            transaction = sign(body, signer, with_key=nonce == 0)
            self._nonces[number] += 1
            signed.append((transaction.id, transaction.data))
        return signed

    async def _receipts(self) -> None:
        try:
            async with asyncio.timeout(RECEIPT_TIMEOUT_SECONDS):
                await self._done.wait()
        except TimeoutError:
            raise QnetError(
                Code.WAIT_TIMEOUT, f"{len(self._sent)} transactions have no receipt yet"
            ) from None

    async def _follow(self, messages: AsyncIterator[Message]) -> None:
        async for message in messages:
            self._take(message)

    def _take(self, message: Message) -> None:
        figures, now = self.figures, time.monotonic()
        if message.type == "final" and message.height is not None:
            figures.final_height = message.height
        if message.type != "block" or message.header is None:
            return
        figures.height = message.header.height
        for outcome in message.transactions or ():
            sent = self._sent.pop(outcome.id, None)
            if sent is None:
                continue
            figures.executed += 1
            figures.failed += outcome.code != Code.SUCCESS.label
            figures.latency_ms.append((now - sent) * 1_000)
            figures.recent.append(now)
            figures.last_executed = now
        if not self._sent:
            self._done.set()
