"""Steady load through the gateways, which remembers what it was told about every transaction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Final, Literal

from qnet_actors.client import AsyncClient, Signed, build, sign
from qnet_actors.crypto import Signer
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.transactions import Transfer

Target = Literal["batched", "executed", "final"]
TARGETS: Final[tuple[Target, ...]] = ("batched", "batched", "executed", "final")
WAIT_TIMEOUT_MS: Final = 3_000
CALL_TIMEOUT_SECONDS: Final = 6.0
RETRY_SECONDS: Final = 0.1
RETRY_SECONDS_MAX: Final = 0.4
"""The pause doubles up to this: where nobody serves, the processor is for those who start."""
POLL_SECONDS: Final = 0.02
SLOW_SECONDS: Final = 4.0
"""An acknowledgement that takes longer is worth telling of."""

# The gateway took it earlier: what became of it is asked for by its id.
_TAKEN: Final = frozenset({Code.DUPLICATE, Code.NONCE_TOO_LOW})
# The same bytes may be sent again: nothing of it was acknowledged.
_REPEATED: Final = frozenset(
    {
        Code.NODE_UNREACHABLE,
        Code.NOT_READY,
        Code.BUSY,
        Code.POOL_FULL,
        Code.RATE_LIMITED,
        Code.WAIT_TIMEOUT,
        Code.NOT_FOUND,
        Code.NONCE_TOO_FAR,
        Code.EVICTED,
        Code.UNKNOWN_KEY,
    }
)


@dataclass(slots=True)
class Record:
    """What the gateways told."""

    acknowledged: dict[bytes, str] = field(default_factory=dict)
    """Id -> the furthest of batched, executed, final."""
    refusals: dict[str, int] = field(default_factory=dict)
    """Answers other than an acknowledgement, by code; each was tried again."""
    slowest_seconds: float = 0.0
    """The longest time from a first offer to the acknowledgement."""
    slow: list[str] = field(default_factory=list)
    """What was answered, and when, to those that waited long for an acknowledgement."""


@dataclass(slots=True)
class _Progress:
    """Of one client."""

    begun: float = 0.0
    """When the newest acknowledged transaction was offered first."""
    answers: list[tuple[float, str]] = field(default_factory=list)
    """(when, code) of the refusals of the transaction that is being offered."""


class Clients:
    """One task a signer: signs, offers until acknowledged, goes on with the next nonce.

    Which acknowledgement is waited for goes round with the nonce, so all three are seen.  A client
    whose gateway does not answer turns to the next one.
    """

    def __init__(
        self, urls: Sequence[str], chain_id: bytes, signers: Sequence[Signer], rate: float
    ) -> None:
        """`rate`: transactions a second of all clients together, while each is answered."""
        self.record: Final = Record()
        self._urls = list(urls)
        self._chain_id = chain_id
        self._signers = list(signers)
        self._interval = len(signers) / rate
        self._progress = [_Progress() for _ in signers]
        # The time that was last asked from, and how long the first client took from it.
        self._first = (0.0, 0.0)
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._run(number)) for number in range(len(self._signers))
        ]

    async def stop(self, timeout_seconds: float) -> int:
        """Lets every client finish its transaction; returns how many could not in time.

        Raises what ended a client: a refusal that no fault explains.
        """
        self._ending = True
        done, late = await asyncio.wait(self._tasks, timeout=timeout_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for task in done:
            task.result()
        return len(late)

    async def served(self, since: float, timeout_seconds: float) -> tuple[float, float] | None:
        """Seconds from `since` until one client, and until every client, is served again.

        A client is served once a transaction that it first offered after `since` is acknowledged.
        None where not all are in time.
        """
        while (now := time.monotonic()) < since + timeout_seconds:
            for task in self._tasks:
                if task.done():
                    task.result()
            served = sum(progress.begun > since for progress in self._progress)
            if served and self._first[0] != since:
                self._first = since, now - since
            if served == len(self._progress):
                return round(self._first[1], 2), round(now - since, 2)
            await asyncio.sleep(POLL_SECONDS)
        return None

    async def _run(self, number: int) -> None:
        signer, progress = self._signers[number], self._progress[number]
        payee = self._signers[(number + 1) % len(self._signers)].key_id
        clients = [
            AsyncClient(url, retries=0, timeout_s=CALL_TIMEOUT_SECONDS) for url in self._urls
        ]
        turn, nonce = number, 0
        # Spread over the interval, so that the load is steady.
        due = time.monotonic() + self._interval * number / len(self._signers)
        try:
            while not self._ending:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                body = build(
                    chain_id=self._chain_id,
                    sender=signer.key_id,
                    signer=signer,
                    nonce=nonce,
                    action=Transfer(payee, 1 + nonce % 7),
                )
                signed = await asyncio.to_thread(sign, body, signer)
                begun = time.monotonic()
                target = TARGETS[(number + nonce) % len(TARGETS)]
                progress.answers.clear()
                pause = RETRY_SECONDS
                while not await self._offer(clients[turn % len(clients)], signed, target, progress):
                    turn += 1
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, RETRY_SECONDS_MAX)
                took = time.monotonic() - begun
                self.record.slowest_seconds = max(self.record.slowest_seconds, took)
                if took > SLOW_SECONDS:
                    answers = told(begun, progress.answers)
                    self.record.slow.append(
                        f"client {number}: {target} in {took:.1f} s ({answers})"
                    )
                progress.begun = begun
                nonce += 1
                due = max(due + self._interval, time.monotonic())
        finally:
            for client in clients:
                await client.close()

    async def _offer(
        self, client: AsyncClient, signed: Signed, target: Target, progress: _Progress
    ) -> bool:
        """Whether the gateway acknowledged it."""
        try:
            try:
                answer = await client.submit(signed.data, wait=target, timeout_ms=WAIT_TIMEOUT_MS)
            except QnetError as error:
                if error.code not in _TAKEN:
                    raise
                self._refused(error, progress)
                answer = await client.wait(signed.id, target, WAIT_TIMEOUT_MS)
        except QnetError as error:
            if error.code not in _REPEATED:
                raise
            self._refused(error, progress)
            return False
        if answer.status not in ("batched", "executed", "final"):
            return False
        self.record.acknowledged[signed.id] = answer.status
        return True

    def _refused(self, error: QnetError, progress: _Progress) -> None:
        progress.answers.append((time.monotonic(), error.code.label))
        refusals = self.record.refusals
        refusals[error.code.label] = refusals.get(error.code.label, 0) + 1


def told(begun: float, answers: Sequence[tuple[float, str]]) -> str:
    """The refusals in a row with their first time, equal ones together."""
    parts = []
    for code, group in groupby(answers, key=itemgetter(1)):
        (first, _), *more = group
        times = f" {len(more) + 1} times" if more else ""
        parts.append(f"{first - begun:.1f} s {code}{times}")
    return ", ".join(parts)
