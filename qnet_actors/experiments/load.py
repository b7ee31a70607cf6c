"""Load on a gateway, from a process of its own: open loop at a rate, or as fast as it is taken.

Latency counts from the time at which a transaction was meant to be sent.  A generator that waited
for answers before it sent the next would slow down with the network, and hide what its users see.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import multiprocessing
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import msgspec

from qnet_actors.experiments.following import Executed, follow_blocks
from qnet_actors.experiments.overload.posting import Poster
from qnet_actors.experiments.workload import Signed, read_signed
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import SUBMISSION_TRANSACTIONS_MAX

TICK_SECONDS: Final = 0.025
"""How often what is due is submitted, as one request: a gateway in front of many clients does the
same with what arrives while a call is under way."""
REQUESTS_IN_FLIGHT_MAX: Final = 32
RETRY_SECONDS: Final = 0.25
DRAIN_SECONDS: Final = 20.0
PRIME_TRANSACTIONS: Final = 256
_RETRIED: Final = frozenset({Code.BUSY.label, Code.POOL_FULL.label, Code.RATE_LIMITED.label})


class _Told(msgspec.Struct, frozen=True, gc=False):
    code: str


class _Answer(msgspec.Struct, frozen=True):
    """Of a submission; without results `code` says why none of it was taken."""

    results: list[_Told] | None = None
    code: str = Code.INTERNAL.label


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one run sends."""

    url: str
    folder: Path
    first: int
    """The first transaction of the folder to send."""
    count: int
    """The most to send."""
    rate_per_second: float
    """0: closed loop, as fast as `window` allows."""
    window: int
    """Sent and not executed, at the most, in a closed loop."""
    seconds: float
    warm_up_seconds: float
    """At the start, sent but not counted."""
    prime: int = 0
    """Of `count`, how many are sent first and awaited before the clock starts: transactions that
    bring their sender's key, which those after them rely on."""


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it; latencies in milliseconds, of transactions intended after the warm-up."""

    sent: int
    """In all, the warm-up included: the next run begins after them."""
    offered: int
    """Intended within the measured time."""
    accepted: int
    executed: int
    """Within the measured time, whenever intended."""
    failed: int
    """Executed with a receipt other than success, in all."""
    lost: int
    """Refused for good, or not executed by the end of the drain."""
    refused: dict[str, int]
    seconds: float
    latency_ms: list[float]
    intended: list[float]
    """time.time() at which each of those was meant to be sent."""
    ids: bytes
    """32 bytes for each of those."""
    lost_ids: bytes
    """32 bytes for each that was lost."""
    started: float
    """time.time() of the measured time's beginning."""
    ended: float


@dataclass(slots=True)
class _Pending:
    """What is under way."""

    intended: dict[bytes, float] = field(default_factory=dict)
    executed: int = 0
    failed: int = 0
    executed_at: list[float] = field(default_factory=list)
    latencies: list[tuple[float, float, bytes]] = field(default_factory=list)
    """(intended, latency) in seconds, and the id."""


def run_load(plan: LoadPlan) -> LoadResult:
    """Carries a plan out in a new process; raises `QnetError` where the gateway cannot be used."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(plan, theirs), name="load", daemon=True)
    process.start()
    theirs.close()
    try:
        result = ours.recv()
    except EOFError:
        raise QnetError(Code.INTERNAL, "the load generator ended without a result") from None
    finally:
        process.join()
    if isinstance(result, QnetError):
        raise result
    return msgspec.convert(result, LoadResult)


def _main(plan: LoadPlan, pipe: Connection) -> None:
    import uvloop

    # Everything under way is held anyway, and to look through it takes time from the network.
    gc.disable()
    try:
        result: Any = msgspec.to_builtins(uvloop.run(_Generator(plan).run()))
    except QnetError as error:
        result = error
    pipe.send(result)
    pipe.close()


class _Generator:
    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._poster = Poster(plan.url, "/api/v1/tx/submit")
        self._pending = _Pending()
        self._refused: dict[str, int] = {}
        self._accepted = 0
        self._dropped: list[bytes] = []
        self._sent = 0
        self._primed = 0
        self._offered = 0
        self._retries: deque[tuple[float, float, Signed]] = deque()
        """(not before, intended, transaction)"""
        self._begin = 0.0
        self._measured_from = 0.0
        self._source: Iterator[Signed] = read_signed(plan.folder, plan.count, plan.first)

    async def run(self) -> LoadResult:
        subscribed = asyncio.Event()
        follower = asyncio.create_task(follow_blocks(self._plan.url, subscribed, self._executed))
        try:
            await asyncio.wait_for(subscribed.wait(), 10)
            return await self._send_all()
        finally:
            self._poster.close()
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

    async def _send_all(self) -> LoadResult:
        plan = self._plan
        slots = asyncio.Semaphore(REQUESTS_IN_FLIGHT_MAX)
        tasks: set[asyncio.Task[None]] = set()
        await self._prime(slots)
        self._begin = time.monotonic()
        wall_offset = time.time() - self._begin
        self._measured_from = self._begin + plan.warm_up_seconds
        end = self._begin + plan.seconds
        exhausted = False
        while (now := time.monotonic()) < end and not exhausted:
            due = self._due(now)
            exhausted = self._sent >= plan.count
            for start in range(0, len(due), SUBMISSION_TRANSACTIONS_MAX):
                part = due[start : start + SUBMISSION_TRANSACTIONS_MAX]
                await slots.acquire()
                task = asyncio.create_task(self._post(part, slots))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.sleep(max(0.0, TICK_SECONDS - (time.monotonic() - now)))
        ended = time.monotonic()
        await self._drain(slots, tasks)
        return self._result(ended, wall_offset)

    async def _prime(self, slots: asyncio.Semaphore) -> None:
        """Sends the first transactions, some at a time, and waits until all are executed."""
        left = self._plan.prime
        while left:
            now = time.monotonic()
            part = [
                (now, signed)
                for signed in itertools.islice(self._source, min(left, PRIME_TRANSACTIONS))
            ]
            self._sent += len(part)
            left -= len(part)
            self._pending.intended.update((signed.id, now) for _, signed in part)
            await slots.acquire()
            await self._post(part, slots)
            give_up = now + DRAIN_SECONDS
            while self._pending.intended:
                if time.monotonic() > give_up or self._refused:
                    raise QnetError(
                        Code.WAIT_TIMEOUT, f"the first transactions failed: {self._refused or ''}"
                    )
                await asyncio.sleep(TICK_SECONDS)
        self._primed = self._sent

    def _due(self, now: float) -> list[tuple[float, Signed]]:
        """What is to be sent now, with the time at which it was meant to be."""
        plan = self._plan
        due: list[tuple[float, Signed]] = []
        while self._retries and self._retries[0][0] <= now:
            _, intended, signed = self._retries.popleft()
            due.append((intended, signed))
        if plan.rate_per_second:
            target = self._primed + int((now - self._begin) * plan.rate_per_second) + 1
            fresh = min(target, plan.count) - self._sent
        else:
            under_way = len(self._pending.intended) + len(self._retries)
            fresh = min(plan.window - under_way, plan.count - self._sent)
        for signed in itertools.islice(self._source, max(0, fresh)):
            intended = now
            if plan.rate_per_second:
                intended = self._begin + (self._sent - self._primed) / plan.rate_per_second
            self._sent += 1
            self._offered += intended >= self._measured_from
            self._pending.intended[signed.id] = intended
            due.append((intended, signed))
        return due

    async def _post(self, part: list[tuple[float, Signed]], slots: asyncio.Semaphore) -> None:
        try:
            response = await self._poster.post(encode(tuple(signed.wire for _, signed in part)))
            answer = _ANSWER.decode(response.body)
        except (OSError, EOFError, ValueError) as error:
            raise QnetError(Code.NODE_UNREACHABLE, f"{type(error).__name__}") from error
        finally:
            slots.release()
        codes = [answer.code] * len(part)
        if answer.results is not None:
            codes = [result.code for result in answer.results]
        retry_at = time.monotonic() + RETRY_SECONDS
        for (intended, signed), code in zip(part, codes, strict=True):
            if code == Code.SUCCESS.label:
                self._accepted += 1
                continue
            self._refused[code] = self._refused.get(code, 0) + 1
            if code in _RETRIED:
                self._retries.append((retry_at, intended, signed))
            else:
                self._dropped.append(signed.id)
                self._pending.intended.pop(signed.id, None)

    def _executed(self, transactions: list[Executed]) -> None:
        now = time.monotonic()
        pending = self._pending
        for transaction in transactions:
            id_ = bytes.fromhex(transaction.id)
            intended = pending.intended.pop(id_, None)
            if intended is None:
                continue
            pending.failed += transaction.code != Code.SUCCESS.label
            pending.executed_at.append(now)
            pending.latencies.append((intended, now - intended, id_))

    async def _drain(self, slots: asyncio.Semaphore, tasks: set[asyncio.Task[None]]) -> None:
        """Lets what was sent come to its end, repeated submissions included."""
        give_up = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < give_up and (tasks or self._retries or self._pending.intended):
            now = time.monotonic()
            part = []
            while self._retries and self._retries[0][0] <= now:
                _, intended, signed = self._retries.popleft()
                part.append((intended, signed))
            if part:
                await slots.acquire()
                await self._post(part, slots)
            await asyncio.sleep(TICK_SECONDS)
        if tasks:
            await asyncio.gather(*tasks)

    def _result(self, ended: float, wall_offset: float) -> LoadResult:
        pending = self._pending
        start = self._measured_from
        measured = [one for one in pending.latencies if one[0] >= start]
        return LoadResult(
            sent=self._sent,
            offered=self._offered,
            accepted=self._accepted,
            executed=sum(start <= at < ended for at in pending.executed_at),
            failed=pending.failed,
            lost=len(pending.intended) + len(self._dropped),
            refused=self._refused,
            seconds=max(ended - start, 1e-9),
            latency_ms=[late * 1_000 for _, late, _ in measured],
            intended=[at + wall_offset for at, _, _ in measured],
            ids=b"".join(id_ for _, _, id_ in measured),
            lost_ids=b"".join([*pending.intended, *self._dropped]),
            started=start + wall_offset,
            ended=ended + wall_offset,
        )
