"""Offers load to a gateway in stretches, from a process of its own, and keeps offering.

What is refused is offered again after a tenth of a second, sooner than Retry-After asks, since
not all clients are patient.  So the rate of offers is what a stretch says, whatever is refused, and
a network that takes a third of them sees each transaction about three times.  Each home validator's
clients have their part of the rate: what one validator refuses does not crowd out what others are
offered.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import msgspec

from qnet_actors.experiments.following import Executed, follow_blocks
from qnet_actors.experiments.overload.clients import Clients, Offer
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
    executed_share_max: float = 1.0
    """Of the same, what may be executed."""


class OfferPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is offered."""

    url: str
    folder: Path
    count: int
    """The most transactions there are."""
    homes: tuple[int, ...]
    """By sender: its home validator.  Each one's first transaction, which brings its key, is sent
    and awaited before the first stretch."""
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
        self._clients = {
            home: Clients(self._fresh(home), self._sender) for home in sorted(set(plan.homes))
        }
        senders = Counter(plan.homes)
        self._shares = {home: senders[home] / len(plan.homes) for home in self._clients}
        # Offered and not executed: id -> (when, the bucket of that time, the home validator).
        self._open: dict[bytes, tuple[float, Bucket, int]] = {}
        self._results: list[StretchResult] = []
        self._stretch = StretchResult("prime", 0.0)
        self._began = 0.0
        self._failed = 0
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
        exhausted = any(clients.exhausted for clients in self._clients.values())
        return OfferResult(self._results, self._failed, len(self._open), exhausted)

    def _fresh(self, home: int) -> Iterator[Offer]:
        """All transactions of the clients of a validator."""
        homes = self._plan.homes
        for number, signed in enumerate(read_signed(self._plan.folder, self._plan.count)):
            if homes[number % len(homes)] == home:
                yield Offer(number, signed.id, signed.wire)

    def _sender(self, item: Offer) -> int:
        return item.number % len(self._plan.homes)

    async def _prime(self) -> None:
        """The first transaction of each sender, which brings its key, some at a time."""
        self._began = time.monotonic()
        give_up = self._began + PRIME_SECONDS_MAX
        left, part = Counter(self._plan.homes), PRIME_TRANSACTIONS // len(self._clients)
        while left.total():
            for home, clients in self._clients.items():
                offers = clients.due(min(left[home], part))
                left[home] -= len(offers)
                await self._offer(home, offers)
            while self._unsettled:
                self._check()
                if time.monotonic() > give_up:
                    raise QnetError(Code.WAIT_TIMEOUT, "the first transactions are not executed")
                await self._offer_again()
                await asyncio.sleep(TICK_SECONDS)

    async def _carry_out(self, stretch: Stretch, greatest: float) -> None:
        rate = stretch.share * greatest
        self._stretch = StretchResult(stretch.name, round(rate, 1), time.time())
        self._results.append(self._stretch)
        self._say(stretch.name)
        self._began = begin = time.monotonic()
        offered, before = Counter[int](), begin
        while (now := time.monotonic()) < begin + stretch.seconds:
            self._check()
            elapsed, before = min(now - before, 4 * TICK_SECONDS), now
            open_count = Counter(home for _, _, home in self._open.values()) if not rate else {}
            for home, clients in self._clients.items():
                share = self._shares[home]
                if rate:
                    due = int((now - begin) * rate * share) - offered[home]
                    due = min(due, int(elapsed * rate * share * CATCH_UP) + 1)
                else:
                    due = int(self._plan.window * share) - clients.refused_count
                    due -= open_count.get(home, 0)
                offered[home] += await self._offer(home, clients.due(due), bounded=True)
            await asyncio.sleep(max(0.0, TICK_SECONDS - (time.monotonic() - now)))
        self._stretch.seconds = time.monotonic() - begin
        self._stretch.unoffered = max(0, int(stretch.seconds * rate) - offered.total())

    async def _offer(self, home: int, offers: list[Offer], *, bounded: bool = False) -> int:
        """Sends offers; where it is `bounded`, those that find no request free come next time.

        Returns how many were sent.
        """
        sent = 0
        for start in range(0, len(offers), REQUEST_TRANSACTIONS):
            if bounded and self._slots.locked():
                self._clients[home].unsent(offers[start:])
                break
            part = offers[start : start + REQUEST_TRANSACTIONS]
            sent += len(part)
            await self._slots.acquire()
            task = asyncio.create_task(self._post(home, part))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return sent

    async def _offer_again(self) -> None:
        """A request of what each validator refused a while ago."""
        for home, clients in self._clients.items():
            await self._offer(home, clients.due_again(REQUEST_TRANSACTIONS))

    @property
    def _unsettled(self) -> bool:
        """Whether something is offered and not executed, or to be offered again."""
        waiting = any(clients.refused_count for clients in self._clients.values())
        return bool(self._tasks or self._open) or waiting

    async def _post(self, home: int, offers: list[Offer]) -> None:
        stretch, now, clients = self._stretch, time.monotonic(), self._clients[home]
        bucket = self._bucket(now)
        bucket.offered += len(offers)
        for item in offers:
            self._open[item.id] = (now, bucket, home)
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
        for item, result in zip(offers, results, strict=True):
            code = result["code"]
            if code == Code.SUCCESS.label:
                clients.taken(item)
                continue
            if code in _TAKEN:
                self._count(stretch.refused, code, 1)
                clients.taken(item)
                if code == Code.NONCE_TOO_LOW.label:
                    self._open.pop(item.id, None)
                continue
            self._open.pop(item.id, None)
            bucket.refused += 1
            self._count(stretch.refused, code, 1)
            clients.refused(item)
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
        while time.monotonic() < give_up and self._unsettled:
            self._check()
            await self._offer_again()
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
