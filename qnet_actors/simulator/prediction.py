"""Predicts what a network reaches, from what each stage of the work costs.

Throughput follows from the utilisation law: a resource that a transaction uses for so long is
used up at so many a second.  Resources are the cores of a machine, after what rounds cost, the one
core that executes blocks, and the bandwidth of a validator.  Latency is simulated at half of that:
batches and DAG blocks travel over links with delays, and each piece of work waits for a core.
Nothing is signed or executed; the pieces only take their time.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from qnet_actors.simulator.costs import StageCosts
from qnet_actors.simulator.scaling import header_bytes, quorum
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme

SIGNATURE_BYTES: Final = SCHEME_SIZES[Scheme.ML_DSA_65].signature
ROUND_DELAY_MS: Final = 50.0
BUSY_ROUND_MS: Final = 100.0
"""Between rounds where quorums are late, as they are at the limit."""
BATCH_DELAY_MS: Final = 25.0
BLOCK_INTERVAL_MS: Final = 100.0
LINK_DELAY_MS: Final = 0.2
"""Between validators without a matrix of delays."""
PIECE_MS: Final = 2.0
"""Of verification, after which consensus may have the core."""
WARM_UP_MS: Final = 1_500.0
SAMPLES: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Where in the time of a batch its transactions came, for the latencies."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The network to be predicted."""

    validators: int
    cores: int
    """Of a machine."""
    shared: bool = False
    """All validators, the gateway, and what offers the load are on one machine."""
    bandwidth_mbps: float = 1_000.0
    """Of a validator, outgoing."""
    delay_ms: Sequence[Sequence[float]] | None = None
    """One way, by source and receiver; None: a local network."""


@dataclass(frozen=True, slots=True)
class Prediction:
    throughput_per_second: float
    latency_ms_p50: float
    latency_ms_p99: float
    """At half of the throughput."""
    bottleneck: str
    """The resource that is used up first, and what takes most of it."""
    rounds_per_second: float
    """At half of the throughput."""
    core_share: dict[str, float]
    """Of all cores of a machine at the throughput, by stage."""
    bandwidth_share: float


class Costs:
    """Costs of one validator in a shape, in milliseconds."""

    def __init__(self, costs: StageCosts, shape: Shape) -> None:
        n = shape.validators
        self.costs: Final = costs
        self.check_ms: Final = (costs.check_block_us + n * costs.check_ancestor_us) / 1e3
        self.message_ms: Final = costs.message_us / 1e3
        self.peer_ms: Final = self.check_ms + (costs.core_peer_us + costs.message_us) / 1e3
        # What a round costs beyond its peers is the same in networks of all sizes: the loop, the
        # threads, the journal, the tick of each room.
        check_us = costs.check_block_us + costs.validators * costs.check_ancestor_us
        known_us = (costs.validators - 1) * (check_us + costs.core_peer_us + costs.message_us)
        self.own_ms: Final = max(costs.sign_block_us, costs.round_us - known_us) / 1e3
        self.block_bytes: Final = header_bytes(n) + SIGNATURE_BYTES


def predict(costs: StageCosts, shape: Shape, seconds: float = 5.0, seed: int = 1) -> Prediction:
    """Raises ValueError for a shape of fewer than two validators or without a core."""
    if shape.validators < 2 or shape.cores < 1 or shape.bandwidth_mbps <= 0:
        raise ValueError("a network has two validators or more, a core, and bandwidth")
    busy_ms = max(BUSY_ROUND_MS, _quorum_delay_ms(shape))
    limit, bottleneck, shares, bandwidth = _limit(costs, shape, 1e3 / busy_ms)
    run = _Run(Costs(costs, shape), shape, limit / 2, Random(seed))
    latencies = sorted(run.latencies(WARM_UP_MS, WARM_UP_MS + 1e3 * seconds))

    def percentile(share: float) -> float:
        return latencies[min(len(latencies) - 1, int(share * len(latencies)))] if latencies else 0.0

    return Prediction(
        throughput_per_second=round(limit, 1),
        latency_ms_p50=round(percentile(0.5), 1),
        latency_ms_p99=round(percentile(0.99), 1),
        bottleneck=bottleneck,
        rounds_per_second=round(run.rounds_per_second, 2),
        core_share={stage: round(share, 3) for stage, share in shares.items()},
        bandwidth_share=round(bandwidth, 3),
    )


def _quorum_delay_ms(shape: Shape) -> float:
    """How long the median validator waits at least for the blocks of a quorum."""
    if shape.delay_ms is None:
        return LINK_DELAY_MS
    waits = [
        sorted(shape.delay_ms[source][own] for source in range(shape.validators))
        for own in range(shape.validators)
    ]
    needed = quorum(shape.validators) - 1
    return sorted(wait[needed] for wait in waits)[shape.validators // 2]


def _limit(
    costs: StageCosts, shape: Shape, rounds_per_second: float
) -> tuple[float, str, dict[str, float], float]:
    """(transactions a second, bottleneck, share of the cores by stage, share of bandwidth)."""
    n, each = shape.validators, Costs(costs, shape)
    on_machine = n if shape.shared else 1
    others = (n - 1) / n
    # Seconds of a core: for a transaction of the network, and in a second without any.
    per_transaction = {
        "verify": costs.verify_us * on_machine,
        "admit": max(0.0, costs.admit_us - costs.verify_us) * on_machine / n,
        "hold": max(0.0, costs.hold_us - costs.verify_us) * on_machine * others,
        "execute": costs.execute_us * on_machine,
        "host": costs.host_us * on_machine,
        "load": costs.load_us * shape.shared,
        "gateway": costs.gateway_us * on_machine / n,
    }
    # A batch of each validator is under way in each round.
    per_second = {
        "rounds": on_machine * rounds_per_second * (each.own_ms + (n - 1) * each.peer_ms) / 1e3,
        "batches": on_machine * rounds_per_second * (n - 1) * costs.hold_batch_us / 1e6,
    }
    free = shape.cores - sum(per_second.values())
    by_cores = max(0.0, free) * 1e6 / sum(per_transaction.values())
    bytes_free = shape.bandwidth_mbps * 125_000 - rounds_per_second * (n - 1) * each.block_bytes
    by_bandwidth = max(0.0, bytes_free) / (costs.transaction_bytes * others)
    # Blocks are executed one after another.
    by_execution = 1e6 / costs.execute_us if costs.execute_us else by_cores
    limit = min(by_cores, by_bandwidth, by_execution)
    shares = {stage: us * limit / 1e6 / shape.cores for stage, us in per_transaction.items()} | {
        stage: used / shape.cores for stage, used in per_second.items()
    }
    sent = limit * costs.transaction_bytes * others
    sent += rounds_per_second * (n - 1) * each.block_bytes
    if limit == by_cores:
        bottleneck = f"cores: {max(shares, key=lambda stage: shares[stage])}"
    else:
        bottleneck = "bandwidth" if limit == by_bandwidth else "execution on one core"
    return limit, bottleneck, shares, sent / (shape.bandwidth_mbps * 125_000)


class _Cores:
    """The cores of a machine: urgent work goes first, and nothing is interrupted."""

    def __init__(self, run: _Run, count: int) -> None:
        self._run = run
        self._free = count
        self._urgent: deque[tuple[float, Callable[[], None]]] = deque()
        self._other: deque[tuple[float, Callable[[], None]]] = deque()

    def do(self, work_ms: float, then: Callable[[], None], *, urgent: bool) -> None:
        if not urgent and work_ms > PIECE_MS:
            rest = work_ms - PIECE_MS
            self._put(PIECE_MS, lambda: self.do(rest, then, urgent=False), urgent=False)
        else:
            self._put(work_ms, then, urgent=urgent)

    def _put(self, work_ms: float, then: Callable[[], None], *, urgent: bool) -> None:
        (self._urgent if urgent else self._other).append((work_ms, then))
        self._begin()

    def _begin(self) -> None:
        while self._free and (self._urgent or self._other):
            work_ms, then = (self._urgent or self._other).popleft()
            self._free -= 1
            self._run.after(work_ms, self._end, then)

    def _end(self, then: Callable[[], None]) -> None:
        self._free += 1
        then()
        self._begin()


@dataclass(slots=True, eq=False)
class _Batch:
    author: int
    begun_ms: float
    sealed_ms: float
    count: float
    acks: int = 1


@dataclass(slots=True, eq=False)
class _Block:
    round: int
    author: int
    batches: list[_Batch]
    parents: list[_Block] = field(default_factory=list)
    """Those that no block of its author named before."""


@dataclass(slots=True)
class _Validator:
    index: int
    cores: _Cores
    round: int = 0
    proposed_ms: float = 0.0
    proposing: bool = False
    link_free_ms: float = 0.0
    batching_since_ms: float = 0.0
    ready: list[_Batch] = field(default_factory=list)
    new: list[_Block] = field(default_factory=list)
    seen: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    leaders: set[int] = field(default_factory=set)
    """Rounds whose leader's block is here."""
    committed: int = 0
    """The round of the last leader that it committed."""
    executing: deque[_Batch] = field(default_factory=deque)
    executes: bool = False
    cut_ms: float = 0.0


class _Run:
    """One network at one load."""

    def __init__(self, costs: Costs, shape: Shape, rate: float, rng: Random) -> None:
        n = shape.validators
        self._costs, self._shape, self._rng = costs, shape, rng
        self._per_ms = rate / n / 1e3
        self._quorum = quorum(n)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self.now_ms = 0.0
        machine = _Cores(self, shape.cores) if shape.shared else None
        self._all = [_Validator(i, machine or _Cores(self, shape.cores)) for i in range(n)]
        self._leader_blocks: dict[int, _Block] = {}
        self._ordered: dict[int, list[_Batch]] = {}
        """Leader's round -> batches that it commits, made once and alike for all."""
        self._named: set[_Block] = set()
        self._last_ordered = 0
        self._latencies: list[float] = []
        self._from_ms = 0.0
        self.rounds_per_second = 0.0

    def latencies(self, from_ms: float, end_ms: float) -> list[float]:
        """Milliseconds of transactions that were executed in that time."""
        self._from_ms = from_ms
        for validator in self._all:
            validator.round = 1
            self.after(self._rng.uniform(0, BATCH_DELAY_MS), self._seal, validator)
            self.after(self._rng.uniform(0, 5), self._sign, validator)
        while self._heap and self._heap[0][0] <= end_ms:
            self.now_ms, _, call, arguments = heapq.heappop(self._heap)
            call(*arguments)
        self.rounds_per_second = max(v.round for v in self._all) / end_ms * 1e3
        return self._latencies

    def after(self, delay_ms: float, call: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now_ms + delay_ms, self._count, call, arguments))

    def _leader(self, round_: int) -> int:
        # Any order that favours nobody does; a fixed stride parts neighbours.
        return round_ * 7919 % self._shape.validators

    def _send(
        self, source: _Validator, size_bytes: float, call: Callable[..., None], *arguments: Any
    ) -> None:
        """To all others, one after the other over the link; `call` gets the receiver first."""
        transfer_ms = size_bytes / (self._shape.bandwidth_mbps * 125)
        matrix = self._shape.delay_ms
        start = self._rng.randrange(len(self._all))
        free_ms = max(source.link_free_ms, self.now_ms)
        for step in range(len(self._all)):
            peer = self._all[(start + step) % len(self._all)]
            if peer is source:
                continue
            free_ms += transfer_ms
            delay_ms = LINK_DELAY_MS + (matrix[source.index][peer.index] if matrix else 0.0)
            self.after(free_ms - self.now_ms + delay_ms, call, peer, *arguments)
        source.link_free_ms = free_ms

    # Batches

    def _seal(self, validator: _Validator) -> None:
        """What came since the last batch is admitted and sealed."""
        begun_ms, validator.batching_since_ms = validator.batching_since_ms, self.now_ms
        count = (self.now_ms - begun_ms) * self._per_ms
        batch = _Batch(validator.index, begun_ms, self.now_ms, count)
        stages = self._costs.costs
        load_us = stages.load_us if self._shape.shared else 0.0
        own_us = stages.admit_us + stages.host_us + stages.gateway_us + load_us
        work_ms = count * own_us / 1e3
        validator.cores.do(work_ms, lambda: self._sealed(validator, batch), urgent=False)

    def _sealed(self, validator: _Validator, batch: _Batch) -> None:
        size_bytes = batch.count * self._costs.costs.transaction_bytes
        self._send(validator, size_bytes, self._got_batch, batch)

    def _got_batch(self, validator: _Validator, batch: _Batch) -> None:
        stages = self._costs.costs
        each_us = stages.hold_us + stages.host_us
        work_ms = (stages.hold_batch_us + batch.count * each_us) / 1e3
        validator.cores.do(work_ms, lambda: self._held(validator, batch), urgent=False)

    def _held(self, validator: _Validator, batch: _Batch) -> None:
        matrix = self._shape.delay_ms
        delay_ms = LINK_DELAY_MS + (matrix[validator.index][batch.author] if matrix else 0.0)
        self.after(delay_ms, self._acked, batch)

    def _acked(self, batch: _Batch) -> None:
        author = self._all[batch.author]
        batch.acks += 1
        if batch.acks == self._quorum:
            author.cores.do(
                self._costs.message_ms, lambda: self._available(author, batch), urgent=True
            )

    def _available(self, author: _Validator, batch: _Batch) -> None:
        author.ready.append(batch)
        # The next one is sealed once a quorum holds this one.
        self.after(max(0.0, batch.sealed_ms + BATCH_DELAY_MS - self.now_ms), self._seal, author)

    # Rounds

    def _sign(self, validator: _Validator) -> None:
        validator.proposing, validator.proposed_ms = True, self.now_ms
        block = _Block(validator.round, validator.index, validator.ready, validator.new)
        validator.ready, validator.new = [], []
        validator.cores.do(self._costs.own_ms, lambda: self._signed(validator, block), urgent=True)

    def _signed(self, validator: _Validator, block: _Block) -> None:
        validator.proposing = False
        if block.author == self._leader(block.round):
            self._leader_blocks[block.round] = block
        self._send(validator, self._costs.block_bytes, self._got_block, block)
        self._admit(validator, block)

    def _got_block(self, validator: _Validator, block: _Block) -> None:
        validator.cores.do(self._costs.peer_ms, lambda: self._admit(validator, block), urgent=True)

    def _admit(self, validator: _Validator, block: _Block) -> None:
        validator.seen[block.round] += 1
        validator.new.append(block)
        if block.author == self._leader(block.round):
            validator.leaders.add(block.round)
        # A leader is committed by a quorum of blocks two rounds above it.
        while validator.seen[validator.committed + 3] >= self._quorum:
            validator.committed += 1
            validator.seen.pop(validator.committed - 1, None)
            self._commit(validator, validator.committed)
        self._advance(validator)

    def _advance(self, validator: _Validator) -> None:
        below = validator.round
        ready = validator.seen[below] >= self._quorum and below in validator.leaders
        if validator.proposing or not ready:
            return
        wait_ms = validator.proposed_ms + ROUND_DELAY_MS - self.now_ms
        if wait_ms > 0:
            self.after(wait_ms, self._advance, validator)
            return
        validator.leaders.discard(below)
        validator.round += 1
        self._sign(validator)

    # Execution

    def _commit(self, validator: _Validator, round_: int) -> None:
        while self._last_ordered < round_:
            self._last_ordered += 1
            self._ordered[self._last_ordered] = self._order(self._last_ordered)
        validator.executing.extend(self._ordered[round_])
        if self.now_ms >= validator.cut_ms and validator.executing:
            validator.cut_ms = self.now_ms + BLOCK_INTERVAL_MS
            self.after(0.0, self._execute, validator)
        elif validator.executing:
            self.after(validator.cut_ms - self.now_ms, self._execute, validator)

    def _order(self, round_: int) -> list[_Batch]:
        """The batches of the leader's history that no leader before it had."""
        waiting, batches = [self._leader_blocks.pop(round_)], list[_Batch]()
        while waiting:
            block = waiting.pop()
            if block not in self._named:
                self._named.add(block)
                batches += block.batches
                waiting += block.parents
                block.parents = []
        if round_ % 64 == 0:
            # Blocks further back are in nobody's unnamed parents any more.
            self._named = {block for block in self._named if block.round > round_ - 64}
        return batches

    def _execute(self, validator: _Validator) -> None:
        if validator.executes:
            return
        batches = list(validator.executing)
        validator.executing.clear()
        if batches:
            validator.executes = True
            count = sum(batch.count for batch in batches)
            work_ms = count * self._costs.costs.execute_us / 1e3
            validator.cores.do(work_ms, lambda: self._executed(validator, batches), urgent=True)

    def _executed(self, validator: _Validator, batches: list[_Batch]) -> None:
        """A client hears of its transaction from the validator that it sent it to."""
        validator.executes = False
        if validator.executing:
            self.after(max(0.0, validator.cut_ms - self.now_ms), self._execute, validator)
        if self.now_ms < self._from_ms:
            return
        for batch in batches:
            if batch.author == validator.index and batch.count:
                span_ms = batch.sealed_ms - batch.begun_ms
                self._latencies += [
                    self.now_ms - batch.begun_ms - share * span_ms for share in SAMPLES
                ]
