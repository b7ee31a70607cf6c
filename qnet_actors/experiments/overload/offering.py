"""Offers load to a gateway in stretches, from a process of its own, and keeps offering.

What is refused is offered again after a tenth of a second, sooner than Retry-After asks, since
not all clients are patient.  So the rate of offers is what a stretch says, whatever is refused, and
a network that takes a third of them sees each transaction about three times.  A sender offers its
next few nonces together, and others once those are taken: what is taken behind a gap cannot be
executed.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from qnet_actors.experiments.following import Executed, follow_blocks
from qnet_actors.experiments.overload.posting import Poster
from qnet_actors.experiments.workload import read_signed
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError

TICK_SECONDS: Final = 0.025
BUCKET_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 2.0
"""Of a stretch: what that before it left under way is still being executed."""
REQUEST_TRANSACTIONS: Final = 200
REQUESTS_IN_FLIGHT_MAX: Final = 512
"""An open loop that has so many unanswered is held up."""
CATCH_UP: Final = 1.5
"""What it is behind it offers as soon as it can, at so many times the rate: more people come while
nobody is served, and not all at once after it."""
OFFER_AGAIN_SECONDS: Final = 0.1
SENDER_OFFERS_MAX: Final = 8
"""Of one sender, offered and not taken yet: so the rate holds while answers take half a second."""
LATER_MAX: Final = 50_000
"""Transactions read ahead of what their senders may offer."""
PRIME_TRANSACTIONS: Final = 512
PRIME_SECONDS_MAX: Final = 60.0
DRAIN_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.2
# A refusal that passes; any other means that the load itself is at fault.
_PASSING: Final = frozenset(
    code.label
    for code in (
        Code.BUSY,
        Code.POOL_FULL,
        Code.NOT_READY,
        Code.RATE_LIMITED,
        Code.NONCE_TOO_FAR,
        Code.SENDER_LIMIT,
        Code.UNKNOWN_KEY,
        Code.NODE_UNREACHABLE,
    )
)
# It was taken before, by a validator that could not say so in time.
_TAKEN: Final = frozenset({Code.DUPLICATE.label, Code.NONCE_TOO_LOW.label})


class Stretch(msgspec.Struct, frozen=True):
    """Some seconds at one rate."""

    name: str
    seconds: float
    share: float
    """Of the greatest rate, which the first stretch measures: it offers 0, a closed loop."""


class OfferPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is offered."""

    url: str
    folder: Path
    count: int
    """The most transactions there are."""
    prime: int
    """How many of them bring their sender's key; they are sent first and awaited."""
    homes: tuple[int, ...]
    """By sender: its home validator."""
    window: int
    """Of the closed loop: offered and not executed, at the most."""
    stretches: tuple[Stretch, ...]


class Bucket(msgspec.Struct):
    """What half a second came to."""

    offered: int = 0
    refused: int = 0
    """Of those offered in it."""
    executed: list[int] = []
    """In it, by home validator."""
    latency_ms: list[float] = []
    """Of those offered in it that were executed."""


class StretchResult(msgspec.Struct):
    """A stretch as it went."""

    name: str
    rate_per_second: float
    began: float = 0.0
    """`time.time()`."""
    seconds: float = 0.0
    unoffered: int = 0
    """Transactions that were due and not sent: too many requests unanswered, or no sender free."""
    refused: dict[str, int] = {}
    responses: dict[str, int] = {}
    """HTTP responses by status code."""
    answer_ms: list[float] = []
    """Of each request of which something was taken, from sending to its answer."""
    refusal_ms: list[float] = []
    """The same of the others."""
    without_retry_after: int = 0
    """Responses 503 or 429 that did not say when to come again."""
    buckets: list[Bucket] = []

    @property
    def executed_per_second(self) -> float:
        return sum(sum(bucket.executed) for bucket in self.buckets) / max(self.seconds, 1e-9)

    @property
    def settled_per_second(self) -> float:
        """The same without the first two seconds: a network that was idle takes on little."""
        buckets = self.buckets[int(SETTLE_SECONDS / BUCKET_SECONDS) :]
        executed = sum(sum(bucket.executed) for bucket in buckets)
        return executed / max(self.seconds - SETTLE_SECONDS, BUCKET_SECONDS)


class OfferResult(msgspec.Struct):
    """All stretches, and what was left over."""

    stretches: list[StretchResult]
    failed: int
    """Executed with another receipt than success."""
    lost: int
    """Taken, and not executed by the end of the drain."""
    exhausted: bool
    """Whether the signed transactions ran out."""


class _Offer(NamedTuple):
    """One transaction on its way."""

    number: int
    id: bytes
    wire: bytes


def offer(
    plan: OfferPlan, on_stretch: Callable[[str, int], None], on_poll: Callable[[], None]
) -> OfferResult:
    """Carries a plan out in a new process.

    `on_stretch` is called as each stretch begins, with its name and the id of that process,
    `on_poll` a few times a second.  Raises `QnetError` where the gateway refuses for good.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(plan, theirs), name="offer", daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            if not ours.poll(POLL_SECONDS):
                on_poll()
                continue
            said = ours.recv()
            if isinstance(said, QnetError):
                raise said
            if isinstance(said, str):
                on_stretch(said, process.pid or 0)
                continue
            return msgspec.convert(said, OfferResult)
    except EOFError:
        raise QnetError(Code.INTERNAL, "the load generator ended without a result") from None
    finally:
        ours.close()
        process.join(POLL_SECONDS)
        if process.is_alive():
            process.terminate()
            process.join()


def _main(plan: OfferPlan, pipe: Connection) -> None:
    import uvloop

    try:
        result: Any = msgspec.to_builtins(uvloop.run(_Generator(plan, pipe.send).run()))
    except QnetError as error:
        result = error
    except OSError as error:
        result = QnetError(Code.NODE_UNREACHABLE, type(error).__name__)
    pipe.send(result)
    pipe.close()


class _Generator:
    def __init__(self, plan: OfferPlan, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say
        self._poster = Poster(plan.url, "/api/v1/tx/submit")
        self._fresh: Iterator[_Offer] = (
            _Offer(number, signed.id, signed.wire)
            for number, signed in enumerate(read_signed(plan.folder, plan.count))
        )
        self._again: deque[tuple[float, _Offer]] = deque()
        # Senders with offers that are not taken yet and how many, what they offer after those, and
        # which of them may go on.
        self._blocked: dict[int, int] = {}
        self._later: dict[int, deque[_Offer]] = {}
        self._later_count = 0
        self._freed: deque[int] = deque()
        # Offered and not executed: id -> (when, the bucket of that time, the home validator).
        self._open: dict[bytes, tuple[float, Bucket, int]] = {}
        self._results: list[StretchResult] = []
        self._stretch = StretchResult("prime", 0.0)
        self._began = 0.0
        self._failed = 0
        self._exhausted = False
        self._error: QnetError | None = None
        self._slots = asyncio.Semaphore(REQUESTS_IN_FLIGHT_MAX)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> OfferResult:
        subscribed = asyncio.Event()
        follower = asyncio.create_task(self._follow(subscribed))
        try:
            await asyncio.wait_for(subscribed.wait(), 10)
            await self._prime()
            greatest = 0.0
            for stretch in self._plan.stretches:
                await self._carry_out(stretch, greatest)
                greatest = greatest or self._results[0].settled_per_second
            await self._drain()
        finally:
            self._poster.close()
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)
        return OfferResult(self._results, self._failed, len(self._open), self._exhausted)

    async def _prime(self) -> None:
        """The first transaction of each sender, which brings its key, some at a time."""
        self._began = time.monotonic()
        give_up = self._began + PRIME_SECONDS_MAX
        left = self._plan.prime
        while left:
            offers = list(itertools.islice(self._fresh, min(left, PRIME_TRANSACTIONS)))
            left -= len(offers)
            await self._slots.acquire()
            await self._post(offers)
            while self._open or self._again:
                self._check()
                if time.monotonic() > give_up:
                    raise QnetError(Code.WAIT_TIMEOUT, "the first transactions are not executed")
                await self._offer(self._due_again(REQUEST_TRANSACTIONS))
                await asyncio.sleep(TICK_SECONDS)

    async def _carry_out(self, stretch: Stretch, greatest: float) -> None:
        rate = stretch.share * greatest
        self._stretch = StretchResult(stretch.name, round(rate, 1), time.time())
        self._results.append(self._stretch)
        self._say(stretch.name)
        self._began = begin = time.monotonic()
        offered, before = 0, begin
        while (now := time.monotonic()) < begin + stretch.seconds:
            self._check()
            if rate:
                due = int((now - begin) * rate) - offered
                elapsed, before = min(now - before, 4 * TICK_SECONDS), now
                due = min(due, int(elapsed * rate * CATCH_UP) + 1)
            else:
                due = self._plan.window - len(self._open) - len(self._again)
            offers = self._due(due)
            offered += await self._offer(offers, bounded=True)
            await asyncio.sleep(max(0.0, TICK_SECONDS - (time.monotonic() - now)))
        self._stretch.seconds = time.monotonic() - begin
        self._stretch.unoffered = max(0, int(stretch.seconds * rate) - offered)

    def _due(self, count: int) -> list[_Offer]:
        """About `count`: what was refused a while ago, and what senders may go on with."""
        offers = self._due_again(count)
        while len(offers) < count:
            if self._freed:
                sender = self._freed.popleft()
                later = self._later[sender]
                run = min(SENDER_OFFERS_MAX, len(later))
                offers += [later.popleft() for _ in range(run)]
                self._later_count -= run
                self._blocked[sender] = run
                if not later:
                    del self._later[sender]
            elif self._later_count > LATER_MAX:
                break
            elif (item := next(self._fresh, None)) is None:
                self._exhausted = True
                break
            elif (sender := self._sender(item)) in self._later or (
                self._blocked.get(sender, 0) >= SENDER_OFFERS_MAX
            ):
                self._later.setdefault(sender, deque()).append(item)
                self._later_count += 1
            else:
                offers.append(item)
                self._blocked[sender] = self._blocked.get(sender, 0) + 1
        return offers

    def _due_again(self, count: int) -> list[_Offer]:
        """At most `count` of those refused a while ago; their senders stay blocked."""
        now, offers = time.monotonic(), list[_Offer]()
        while self._again and self._again[0][0] <= now and len(offers) < count:
            offers.append(self._again.popleft()[1])
        return offers

    def _sender(self, item: _Offer) -> int:
        return item.number % len(self._plan.homes)

    def _taken(self, item: _Offer) -> None:
        sender = self._sender(item)
        left = self._blocked.get(sender, 0) - 1
        if left > 0:
            self._blocked[sender] = left
            return
        self._blocked.pop(sender, None)
        if sender in self._later:
            self._freed.append(sender)

    async def _offer(self, offers: list[_Offer], *, bounded: bool = False) -> int:
        """Sends offers; where it is `bounded`, those that find no request free come next time.

        Returns how many were sent.

        No request has senders of two homes: one validator's clients do not wait for another.
        """
        by_home: dict[int, list[_Offer]] = {}
        sent = 0
        for item in offers:
            by_home.setdefault(self._plan.homes[self._sender(item)], []).append(item)
        for part in (
            mine[start : start + REQUEST_TRANSACTIONS]
            for mine in by_home.values()
            for start in range(0, len(mine), REQUEST_TRANSACTIONS)
        ):
            if bounded and self._slots.locked():
                self._again.extendleft((0.0, item) for item in reversed(part))
                continue
            sent += len(part)
            await self._slots.acquire()
            task = asyncio.create_task(self._post(part))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return sent

    async def _post(self, offers: list[_Offer]) -> None:
        stretch, now = self._stretch, time.monotonic()
        bucket = self._bucket(now)
        bucket.offered += len(offers)
        for item in offers:
            self._open[item.id] = (now, bucket, self._plan.homes[self._sender(item)])
        try:
            response = await self._poster.post(encode(tuple(item.wire for item in offers)))
            answer = msgspec.json.decode(response.body)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            # Of what a broken connection carried nothing is known: it is offered again.
            self._count(stretch.responses, type(error).__name__, 1)
            answer = {"code": Code.NODE_UNREACHABLE.label}
        else:
            status = response.status
            took_ms = round((time.monotonic() - now) * 1_000, 1)
            (stretch.answer_ms if status < 300 else stretch.refusal_ms).append(took_ms)
            self._count(stretch.responses, str(status), 1)
            stretch.without_retry_after += (
                status in (429, 503) and "retry-after" not in response.headers
            )
        finally:
            self._slots.release()
        results = answer.get("results") or [answer] * len(offers)
        again_at = time.monotonic() + OFFER_AGAIN_SECONDS
        for item, result in zip(offers, results, strict=True):
            code = result["code"]
            if code == Code.SUCCESS.label:
                self._taken(item)
                continue
            if code in _TAKEN:
                self._count(stretch.refused, code, 1)
                self._taken(item)
                if code == Code.NONCE_TOO_LOW.label:
                    self._open.pop(item.id, None)
                continue
            self._open.pop(item.id, None)
            bucket.refused += 1
            self._count(stretch.refused, code, 1)
            # Its sender goes on when all that it has offered is taken.
            self._later.setdefault(self._sender(item), deque())
            self._again.append((again_at, item))
            if code not in _PASSING:
                self._error = QnetError(Code.INTERNAL, f"refused for good: {result}")

    async def _follow(self, subscribed: asyncio.Event) -> None:
        """Notes when each transaction's block was announced."""
        await follow_blocks(self._plan.url, subscribed, self._executed)
        self._error = QnetError(Code.NODE_UNREACHABLE, "the gateway ended the subscription")

    def _executed(self, transactions: list[Executed]) -> None:
        now = time.monotonic()
        here = self._bucket(now)
        for transaction in transactions:
            entry = self._open.pop(bytes.fromhex(transaction.id), None)
            if entry is None:
                continue
            at, bucket, home = entry
            self._failed += transaction.code != Code.SUCCESS.label
            here.executed[home] += 1
            bucket.latency_ms.append(round((now - at) * 1_000, 1))

    async def _drain(self) -> None:
        """Lets what was offered come to its end, refused transactions included."""
        self._stretch, self._began = StretchResult("drain", 0.0), time.monotonic()
        give_up = self._began + DRAIN_SECONDS
        while time.monotonic() < give_up and (self._tasks or self._again or self._open):
            self._check()
            await self._offer(self._due_again(REQUEST_TRANSACTIONS))
            await asyncio.sleep(TICK_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _bucket(self, now: float) -> Bucket:
        buckets, position = self._stretch.buckets, int((now - self._began) / BUCKET_SECONDS)
        while len(buckets) <= position:
            buckets.append(Bucket(executed=[0] * (max(self._plan.homes) + 1)))
        return buckets[position]

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    @staticmethod
    def _count(counts: dict[str, int], key: str, by: int) -> None:
        counts[key] = counts.get(key, 0) + by
