"""What a gateway does, without HTTP: submit, wait, ask, and follow the validators' events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from qnet_actors.gateway.admission import Limiter
from qnet_actors.gateway.backend import Backend
from qnet_actors.gateway.events import (
    EVENT_CODEC,
    BlockEvent,
    CheckpointEvent,
    Event,
    MissedEvents,
    receipt_head,
)
from qnet_actors.gateway.held import Held
from qnet_actors.gateway.hub import Hub
from qnet_actors.gateway.metrics import Metrics
from qnet_actors.gateway.queries import (
    AccountAnswer,
    AccountQuery,
    Answer,
    Query,
    StatusAnswer,
    StatusQuery,
    TransactionAnswer,
    TransactionQuery,
    VerifierAnswer,
    VerifierQuery,
)
from qnet_actors.gateway.settings import Settings
from qnet_actors.gateway.submission import Parsed, parse_transaction, terms_of
from qnet_actors.gateway.tracker import (
    BATCHED,
    EXECUTED,
    FINAL,
    RECEIVED,
    REFUSALS,
    STAGES,
    Change,
    Tracked,
    Tracker,
)
from qnet_actors.gateway.upstream import UNTAKEN, Upstream, Upstreams
from qnet_actors.gateway.views import Views
from qnet_actors.gateway.waits import Waits, reached
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import SUBMISSION_TRANSACTIONS_MAX

T = TypeVar("T", bound=Answer)
VERIFIERS_EVERY_S: Final = 1.0
KNOWN: Final = REFUSALS | STAGES.keys()
UNEXECUTED: Final = frozenset({RECEIVED, BATCHED})
LOOK_AGAIN_S: Final = 5.0
"""After so long without an event who waits asks the validators: its event may have been before."""
PASSING: Final = UNTAKEN | {Code.SUCCESS, Code.BUSY}
"""What does not speak against the transaction itself: another death may move it again."""
logger: Final = logging.getLogger(__name__)
_KNOWN: Final = {int(code): (code, code.description) for code in Code}


class Outcome(NamedTuple):
    """What became of one submitted transaction."""

    code: Code
    id: bytes
    """Empty where it does not decode."""
    detail: str


_BUSY: Final = Outcome(Code.BUSY, b"", Code.BUSY.description)


class Network(NamedTuple):
    """What never changes while a network lives."""

    chain_id: bytes
    development: bool
    views: Views


class Gateway:
    """The state of one gateway; none of it outlives it, or needs to."""

    def __init__(self, backends: Sequence[Backend], settings: Settings) -> None:
        self.settings: Final = settings
        self.metrics: Final = Metrics()
        self._verifiers_at_s = 0.0
        self.limiter: Final = Limiter(settings)
        self.upstreams: Final = Upstreams(backends, settings, self.metrics)
        self.tracker: Final = Tracker()
        self.waits: Final = Waits(settings.waits_max, self.metrics)
        self._held: Final = Held(settings.waits_max, settings.queue_size_bytes_max)
        self._moves: set[asyncio.Task[None]] = set()
        for upstream in self.upstreams.all:
            upstream.on_down = self._move
        self.hub: Final = Hub()
        self._network: Network | None = None
        self._followers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begins to follow the validators."""
        self._followers = [
            asyncio.create_task(self._follow(upstream)) for upstream in self.upstreams.all
        ]

    async def close(self) -> None:
        """Stops; who waits for a validator is told so."""
        tasks = (*self._followers, *self._moves)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.upstreams.close()

    # Submitting

    async def submit(
        self, transactions: Sequence[bytes], *, limited: bool = True, hold: bool = False
    ) -> list[Outcome]:
        """Offers transactions to their senders' home validators; an outcome for each, in order.

        `limited` says whether the limit of a sender holds for whoever submits; `hold`, that the
        caller will `wait` for each that is taken.  Should the validator that took it die before
        it is executed, it goes to another.
        """
        outcomes: list[Outcome | None] = [None] * len(transactions)
        for position in self._refused_for_load(transactions):
            outcomes[position] = _BUSY
        parsed: dict[int, Parsed] = {}
        for position, data in enumerate(transactions):
            if outcomes[position] is not None:
                continue
            try:
                item = parse_transaction(data)
                if limited:
                    self._check_sender(item.sender)
                parsed[position] = item
            except QnetError as error:
                outcomes[position] = Outcome(error.code, b"", error.detail)
        # Known before they are sent: an event may be here before the answer is.
        now_ms = _now_ms()
        added = set(self.tracker.received((item.id for item in parsed.values()), now_ms))
        held = self._held.add(parsed.values()) if hold else set()
        outcomes_by_position = await self._deliver(parsed)
        refused = []
        for position, outcome in outcomes_by_position.items():
            outcomes[position] = outcome
            # A retry is a duplicate, and whoever came first still waits for what is held.
            if outcome.code != Code.SUCCESS and outcome.id in held:
                self._held.drop(outcome.id)
            if outcome.code == Code.SUCCESS and limited:
                self.limiter.senders.take(parsed[position].sender, 1, time.monotonic())
            elif outcome.code != Code.SUCCESS and outcome.id in added:
                refused.append(outcome.id)
        self.tracker.forget(refused)
        done = [outcome for outcome in outcomes if outcome is not None]
        for code, count in Counter(outcome.code for outcome in done).items():
            self.metrics.submitted(code.label, count)
        return done

    def _refused_for_load(self, transactions: Sequence[bytes]) -> list[int]:
        """Which of them their home validators do not take now, at their price.

        Decoding what is refused anyway would take the time of what is not.
        """
        if not any(each.live and each.refused_gas_price >= 0 for each in self.upstreams.all):
            return []
        refused = []
        try:
            for position, data in enumerate(transactions):
                sender, gas_price = terms_of(data)
                if sender and self.upstreams.home(sender).refused_gas_price >= gas_price:
                    refused.append(position)
        except QnetError:
            # Nobody takes anything, which the delivery tells of each by itself.
            return []
        return refused

    def _check_sender(self, sender: bytes) -> None:
        verdict = self.limiter.senders.look(sender, 1, time.monotonic())
        if not verdict.allowed:
            raise QnetError(
                Code.RATE_LIMITED,
                f"the sender's transactions come too fast; try again in {verdict.wait_s:.1f} s",
            )

    def _move(self, dead: Upstream) -> None:
        """Gives what a dead validator had, and somebody counts on, to others."""
        left = []
        for item in self._held.of(dead):
            tracked = self.tracker.status(item.id)
            if tracked is not None and tracked.status in UNEXECUTED:
                left.append(item)
        for start in range(0, len(left), SUBMISSION_TRANSACTIONS_MAX):
            part = dict(enumerate(left[start : start + SUBMISSION_TRANSACTIONS_MAX]))
            task = asyncio.create_task(self._deliver_again(part))
            self._moves.add(task)
            task.add_done_callback(self._moves.discard)

    async def _deliver_again(self, parsed: dict[int, Parsed]) -> None:
        # A refusal is not told: the first validator may come back with it, and who waits sees that.
        outcomes = await self._deliver(parsed, again=True)
        for outcome in outcomes.values():
            if outcome.code not in PASSING:
                self._held.drop(outcome.id)
        taken = sum(outcome.code == Code.SUCCESS for outcome in outcomes.values())
        logger.info("%d of %d transactions of a dead validator moved", taken, len(parsed))

    async def _deliver(
        self, parsed: dict[int, Parsed], *, again: bool = False
    ) -> dict[int, Outcome]:
        """Sends each to its home, and what that did not take to the next that does.

        `again`: one of the validators may have them already.
        """
        outcomes: dict[int, Outcome] = {}
        left = dict(parsed)
        for _ in range(len(self.upstreams.all)):
            groups: dict[int, tuple[Upstream, list[int]]] = {}
            try:
                for position, item in left.items():
                    home = self.upstreams.home(item.sender)
                    groups.setdefault(id(home), (home, []))[1].append(position)
            except QnetError as error:
                return outcomes | _all(left, error)
            answers = await asyncio.gather(
                *(
                    self._deliver_group(home, {at: left[at] for at in positions}, again)
                    for home, positions in groups.values()
                )
            )
            for answer in answers:
                outcomes.update(answer)
            left = {at: item for at, item in left.items() if at not in outcomes}
            if not left:
                return outcomes
            again = True
        return outcomes | _all(left, self.upstreams.refusal())

    async def _deliver_group(
        self, home: Upstream, items: dict[int, Parsed], again: bool
    ) -> dict[int, Outcome]:
        """The outcomes of one validator; none where it is absent."""
        try:
            results = await home.submit(
                [item.data for item in items.values()],
                max(item.gas_price for item in items.values()),
            )
        except QnetError as error:
            if error.code in UNTAKEN:
                return {}
            return _all(items, error)
        outcomes: dict[int, Outcome] = {}
        for (position, item), (code, _, detail) in zip(items.items(), results, strict=True):
            # The validator before may have passed it on before it died: that is success.
            if again and code == Code.DUPLICATE:
                code, detail = Code.SUCCESS, ""
            if code == Code.SUCCESS:
                self._held.took(item, home)
            outcomes[position] = _outcome(code, item.id, detail)
        return outcomes

    # Asking

    async def network(self) -> Network:
        """The network that the validators belong to; raises `QnetError` until one has answered."""
        if self._network is None:
            answer = await self.ask(StatusQuery(), StatusAnswer)
            self._network = Network(
                answer.chain_id, answer.development, Views(development=answer.development)
            )
        return self._network

    async def ready_height(self) -> int:
        """The height of the first living validator that takes transactions.

        Raises `QnetError`: NOT_READY, or DISK_FULL where that is all that is in the way.
        """
        refusal = QnetError(Code.NOT_READY, "no validator of this gateway answers; try again")
        for upstream in self.upstreams.living():
            try:
                answer = await upstream.call(upstream.backend.query(StatusQuery()))
            except QnetError as error:
                refusal = error
                continue
            if not isinstance(answer, StatusAnswer):
                raise QnetError(Code.INTERNAL, "a status query was answered by something else")
            if answer.ready and not answer.disk_low:
                return answer.height
            code, what = Code.NOT_READY, "is still catching up"
            if answer.disk_low:
                code, what = Code.DISK_FULL, "has no room on its disk"
            refusal = QnetError(code, f"validator {answer.index} {what}")
        raise refusal

    async def ask(self, query: Query, expected: type[T], first: Upstream | None = None) -> T:
        """The answer of a living validator, `first` before the others; raises `QnetError`."""
        answer = await self.upstreams.query(query, first)
        if not isinstance(answer, expected):
            raise QnetError(Code.INTERNAL, f"a validator answered with {type(answer).__name__}")
        return answer

    async def read_verifiers(self) -> None:
        """Asks the living validators what their verifiers count, once a second at the most."""
        now_s = time.monotonic()
        if now_s < self._verifiers_at_s:
            return
        self._verifiers_at_s = now_s + VERIFIERS_EVERY_S
        living = [upstream for upstream in self.upstreams.all if upstream.live]
        answers = await asyncio.gather(
            *(upstream.call(upstream.backend.query(VerifierQuery())) for upstream in living),
            return_exceptions=True,
        )
        for upstream, answer in zip(living, answers, strict=True):
            # One that does not answer keeps what it said before.
            if isinstance(answer, VerifierAnswer):
                self.metrics.verifying(upstream.backend.index, answer)

    async def account(self, address: bytes) -> AccountAnswer:
        """An account at a height no lower than any that this gateway has told of.

        Its home validator knows the pooled nonces; where it is behind, another tells the rest.
        """
        home = self.upstreams.home(address)
        answer = await self.ask(AccountQuery(address), AccountAnswer, home)
        told_height = self.tracker.height
        if told_height and answer.height >= told_height:
            return answer
        other = None
        if not told_height:
            # It has just started and heard of no block yet: the home may be far behind.
            other = next((one for one in self.upstreams.living() if one is not home), None)
        newer = await self.ask(AccountQuery(address), AccountAnswer, other)
        if newer.height < answer.height:
            return answer
        return AccountAnswer(
            height=newer.height,
            balance=newer.balance,
            nonce=newer.nonce,
            next_nonce=max(newer.next_nonce, answer.next_nonce),
            key_id=newer.key_id,
        )

    async def transaction(
        self, transaction_id: bytes
    ) -> tuple[str, TransactionAnswer, Tracked | None]:
        """The status of a transaction, what the validators know, and what this gateway has heard.

        Raises `QnetError(NOT_FOUND)` where nobody has heard of it.
        """
        tracked = self.tracker.status(transaction_id)
        try:
            answer = await self.ask(TransactionQuery(transaction_id), TransactionAnswer)
        except QnetError as error:
            if error.code != Code.NOT_FOUND or tracked is None:
                raise
            return tracked.status, TransactionAnswer(tracked.status, 0, 0, b"", b"", b""), tracked
        if answer.height:
            final = answer.status == FINAL or answer.height <= self.tracker.final_height
            return (FINAL if final else EXECUTED), answer, tracked
        if tracked is not None and (
            tracked.refused or STAGES[tracked.status] > STAGES.get(answer.status, -1)
        ):
            return tracked.status, answer, tracked
        return answer.status, answer, tracked

    async def wait(self, transaction_id: bytes, target: str, deadline_s: float) -> Tracked:
        """The transaction once it has reached `target` or was given up.

        Raises `QnetError`: WAIT_TIMEOUT at `deadline_s` (of the event loop's clock), NOT_FOUND,
        BUSY where too many wait.
        """
        try:
            return await self._wait(transaction_id, target, deadline_s)
        finally:
            tracked = self.tracker.status(transaction_id)
            # What was told to be batched is counted on, whether or not somebody waits for more.
            batched = tracked is not None and tracked.status == BATCHED
            if not batched and not self.waits.waited_for(transaction_id):
                self._held.drop(transaction_id)

    async def _wait(self, transaction_id: bytes, target: str, deadline_s: float) -> Tracked:
        loop = asyncio.get_running_loop()
        known = await self.follow(transaction_id)
        while not reached(known, target):
            left_s = deadline_s - loop.time()
            if left_s <= 0:
                raise QnetError(Code.WAIT_TIMEOUT, f"it is {known.status} so far")
            tracked = self.tracker.status(transaction_id)
            if tracked is None:
                known = await self.follow(transaction_id)
            elif reached(tracked, target):
                return tracked
            elif (
                woken := await self.waits.wait(transaction_id, target, min(left_s, LOOK_AGAIN_S))
            ) is not None:
                known = woken
            elif loop.time() < deadline_s:
                known = await self._look_up(transaction_id)
            else:
                # Whoever were asked now may be the one that this waited for in vain.
                known = self.tracker.status(transaction_id) or tracked
        return known

    async def follow(self, transaction_id: bytes) -> Tracked:
        """Where a transaction stands, and its events from here on reach the tracker.

        Raises `QnetError(NOT_FOUND)`.
        """
        tracked = self.tracker.status(transaction_id)
        if tracked is not None:
            return tracked
        known = await self._look_up(transaction_id)
        if known.ended:
            return known
        # Asked again once it is followed, lest its event came in between.
        self.tracker.received([transaction_id], _now_ms())
        return await self._look_up(transaction_id)

    async def _look_up(self, transaction_id: bytes) -> Tracked:
        status, answer, tracked = await self.transaction(transaction_id)
        if answer.height:
            self.tracker.passed(transaction_id, answer.height)
            code, gas_used = receipt_head(answer.receipt)
            place = (answer.height, answer.index, answer.block_hash)
            return Tracked(status, _now_ms(), *place, code, gas_used)
        if tracked is not None and tracked.status == status:
            return tracked
        return Tracked(status if status in KNOWN else RECEIVED, _now_ms())

    # Following

    async def _follow(self, upstream: Upstream) -> None:
        cursor = 0
        while True:
            try:
                cursor, encoded = await upstream.poll(cursor)
            except QnetError:
                await asyncio.sleep(max(upstream.retry_in_s, self.settings.retry_first_ms / 1_000))
            except Exception:
                logger.exception("following validator %d failed", upstream.backend.index)
                await asyncio.sleep(self.settings.retry_last_ms / 1_000)
            else:
                for event in encoded:
                    self._take_one(upstream, event)

    def _take_one(self, upstream: Upstream, encoded: bytes) -> None:
        """Takes an event; a fault in it costs nobody the events behind it."""
        try:
            self._take(upstream, EVENT_CODEC.decode(encoded))
        except Exception:
            logger.exception("an event of validator %d was passed over", upstream.backend.index)
            self.metrics.events_failed.inc()
            self._missed()

    def _take(self, upstream: Upstream, event: Event) -> None:
        if isinstance(event, MissedEvents):
            self._missed()
            return
        if isinstance(event, BlockEvent):
            upstream.height = max(upstream.height, event.header.height)
            if event.header.height > self.tracker.height:
                self.tracker.received(self.hub.followed(event), _now_ms())
                self.hub.block(event, event.header.height <= self.tracker.final_height)
        elif isinstance(event, CheckpointEvent):
            if event.checkpoint.height <= self.tracker.final_height:
                return
            self.hub.checkpoint(event)
        changes = self.tracker.apply(event, _now_ms())
        self._release(changes)
        self.waits.resolve(changes)
        self.hub.changes(changes)
        self.metrics.height.set(self.tracker.height)
        self.metrics.final_height.set(self.tracker.final_height)

    def _release(self, changes: Sequence[Change]) -> None:
        if len(self._held):
            for transaction_id, tracked in changes:
                if tracked.status not in UNEXECUTED:
                    self._held.drop(transaction_id)

    def _missed(self) -> None:
        """Something was not heard of: whoever waits asks again, subscribers are told."""
        self.waits.wake_all()
        self.hub.missed()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _outcome(code: int, transaction_id: bytes, detail: str) -> Outcome:
    known = _KNOWN.get(code)
    if known is None:
        return Outcome(Code.INTERNAL, transaction_id, f"the validator answered with code {code}")
    return Outcome(known[0], transaction_id, detail or known[1])


def _all(items: dict[int, Parsed], error: QnetError) -> dict[int, Outcome]:
    return {at: Outcome(error.code, item.id, error.detail) for at, item in items.items()}
