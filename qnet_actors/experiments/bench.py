"""`qnet bench`: a network at its limit and at half of it, against the verifier's own limit."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np

from qnet_actors.crypto import KeyPair, provider, select_provider
from qnet_actors.experiments.cost_bench import Stages, measure_stages
from qnet_actors.experiments.demonstration import percentile
from qnet_actors.experiments.load import LoadPlan, LoadResult, run_load
from qnet_actors.experiments.processes import cpu_seconds, memory_bytes
from qnet_actors.experiments.workload import (
    Shape,
    Workload,
    benchmark_keys,
    check_signed,
    read_signed,
    sign_all,
)
from qnet_actors.kernels.cache import cache_root, warm
from qnet_actors.network.development import VALIDATOR, development_genesis, development_keys
from qnet_actors.network.launch import Network, agreed_root
from qnet_actors.network.settings import NetworkSettings
from qnet_actors.simulator.costs import Measured, StageCosts
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.schemes import CONTEXT_TRANSACTION

SAMPLE_TRANSACTIONS: Final = 1_024
RAW_SECONDS: Final = 2.0
START_SECONDS_MAX: Final = 60.0
WARM_UP_SECONDS: Final = 3.0
WINDOW_SECONDS: Final = 1.0
"""How much of the verifiers' limit is under way in the closed loop."""
ACHIEVED_MIN: Final = 0.99
REFUSED_MAX: Final = 0.01
"""The least that an open loop must offer of what was meant, and the most that may be refused."""
PLANNED_PER_SECOND_MAX: Final = 8_000
"""So many are signed for each second; a phase that runs out of them ends early."""
LOAD: Final = "load"
"""What offers the load, among the processes."""
TRICKLE_PER_SECOND: Final = 50.0
TRICKLE_SECONDS: Final = 8.0
"""A load that keeps rounds going and costs next to nothing."""
FIRST_PHASE_SHARE: Final = 0.65
"""Of what is signed; the rest is for the second phase."""

ProviderName = Literal["auto", "openssl", "liboqs"]
Say = Callable[[str], None]


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    senders: int = 1_024
    seconds: float = 20.0
    """Of each phase, warm-up included."""
    validators: int = 4
    provider: ProviderName = "auto"
    rate: float = 0.0
    """Offered in the second phase; 0: half of what the first one reached."""
    workload: Shape = "uniform"
    costs_out: Path | None = None
    """Where the cost of each stage is written, for `qnet sim --cost-model`."""


class Latencies(msgspec.Struct, frozen=True):
    """Milliseconds from the intended time of sending to the block's announcement."""

    p50: float
    p90: float
    p99: float


class Phase(msgspec.Struct, frozen=True):
    """One stretch of load."""

    offered_per_second: float
    achieved_per_second: float
    """Under 99 % of what was to be offered an open loop is void, and where over 1 % is refused."""
    valid: bool
    executed: int
    executed_per_second: float
    failed: int
    lost: int
    refused: dict[str, int]
    latency_ms: Latencies
    cpu_us_per_transaction: dict[str, float]
    """By process, over all that the phase executed."""
    bytes_per_transaction: float
    """Between validators, sent by all of them together."""


class BenchResult(msgspec.Struct, frozen=True):
    """The figures of the phase at the limit stand at the top, those of the other in `half_load`."""

    offered_per_second: float
    achieved_per_second: float
    executed: int
    executed_per_second: float
    failed: int
    lost: int
    roots_equal: bool
    latency_ms: Latencies
    cpu_us_per_transaction: dict[str, float]
    bytes_per_transaction: float
    raw_verifications_per_second: float
    """All cores, measured in this run before and after the load."""
    ratio_to_verify_limit: float
    """executed_per_second x validators / raw_verifications_per_second."""
    half_load: Phase
    memory_bytes: int
    """Proportional set size of the whole network, Ray included."""
    validators: int
    senders: int
    workload: str
    provider: str
    durability: str
    cores: int

    @property
    def good(self) -> bool:
        """Whether nothing was lost or failed and all validators agree."""
        phases_good = not (self.failed or self.lost or self.half_load.failed or self.half_load.lost)
        return self.roots_equal and phases_good and self.half_load.valid


class Supply(msgspec.Struct, frozen=True):
    """A genesis, and transactions signed for it."""

    genesis: Genesis
    keys: list[KeyPair]
    folder: Path
    count: int
    raw_verifications_per_second: float
    """Before the network is there."""


def prepare(options: BenchOptions, say: Say) -> Supply:
    """Signs what two phases of `options.seconds` may take, or finds it in the cache."""
    say("loading compiled kernels")
    warm()
    progress = Progress(say)
    keys = benchmark_keys(options.senders, progress)
    library = provider("auto")
    genesis = development_genesis(
        development_keys(VALIDATOR, options.validators, library),
        [key.key_id for key in keys],
        name="benchmark",
    )
    folder = cache_root() / "benchmark"
    chain_id = genesis.chain_id()
    sample = sign_all(
        Workload(chain_id, options.senders, SAMPLE_TRANSACTIONS, options.workload),
        keys,
        folder,
        progress,
    )
    raw = raw_verifications(sample, options.provider)
    limit = raw / options.validators
    say(f"raw limit: {raw:.0f} verifications a second, {limit:.0f} transactions")
    planned = min(limit, PLANNED_PER_SECOND_MAX)
    count = int(1.8 * options.seconds * planned) + options.senders
    workload = Workload(chain_id, options.senders, count, options.workload)
    sign_all(workload, keys, folder, progress)
    return Supply(genesis, keys, sample, count, raw)


def window(raw_verifications_per_second: float, validators: int) -> int:
    """How much may be under way in a closed loop."""
    limit = min(raw_verifications_per_second / validators, PLANNED_PER_SECOND_MAX)
    return max(1_000, int(WINDOW_SECONDS * limit))


def settings_of(options: BenchOptions, directory: Path) -> NetworkSettings:
    """The network that is measured."""
    return NetworkSettings(
        directory=directory,
        validators=options.validators,
        provider=options.provider,
        gateway_port=0,
    )


def run_bench(options: BenchOptions, directory: Path, say: Say) -> BenchResult:
    """Runs both phases on a fresh network in `directory`; raises `QnetError` where it cannot."""
    supply = prepare(options, say)
    genesis, raw_before = supply.genesis, supply.raw_verifications_per_second
    network = Network(genesis, settings_of(options, directory), say)
    with network:
        runner = Runner(network, supply.folder, options.senders, supply.count, say)
        full = runner.run(options.seconds, 0.0, window(raw_before, options.validators))
        busy_rounds = runner.rounds_per_second
        rate = options.rate or 0.5 * full.executed_per_second
        half = runner.run(options.seconds, rate, 0)
        memory = memory_bytes()
        rounds_us = 0.0 if options.costs_out is None else runner.round_us()
        roots_equal = agreed_root(network, runner.height())[1] is not None
    raw = (raw_before + raw_verifications(supply.folder, options.provider)) / 2
    result = BenchResult(
        offered_per_second=full.offered_per_second,
        achieved_per_second=full.achieved_per_second,
        executed=full.executed,
        executed_per_second=full.executed_per_second,
        failed=full.failed,
        lost=full.lost,
        roots_equal=roots_equal,
        latency_ms=full.latency_ms,
        cpu_us_per_transaction=full.cpu_us_per_transaction,
        bytes_per_transaction=full.bytes_per_transaction,
        raw_verifications_per_second=round(raw, 1),
        ratio_to_verify_limit=round(full.executed_per_second * options.validators / raw, 3),
        half_load=half,
        memory_bytes=memory,
        validators=options.validators,
        senders=options.senders,
        workload=options.workload,
        provider=select_provider(options.provider).provider.name,
        durability="power" if genesis.parameters.power_durability else "process",
        cores=os.cpu_count() or 1,
    )
    if options.costs_out is not None:
        costs = costs_of(result, measure_stages(options.senders, say), rounds_us, busy_rounds)
        options.costs_out.write_bytes(msgspec.json.format(msgspec.json.encode(costs), indent=2))
    return result


def costs_of(
    result: BenchResult, stages: Stages, trickle_us: float, rounds_per_second: float
) -> StageCosts:
    """What was measured of one network.

    `trickle_us`: of a validator in a round of a trickle; `rounds_per_second`: at the limit.
    """
    half, n = result.half_load, result.validators
    per_transaction = result.cpu_us_per_transaction
    validators_us = sum(us for name, us in per_transaction.items() if name.startswith(VALIDATOR))
    gateway_us = sum(per_transaction.values()) - validators_us - per_transaction[LOAD]
    known_us = (stages.admit_us + (n - 1) * stages.hold_us) / n + stages.execute_us
    rounds_us = trickle_us * rounds_per_second / max(1.0, result.executed_per_second)
    return StageCosts(
        host_us=max(0.0, validators_us / n - known_us - rounds_us),
        load_us=per_transaction[LOAD],
        **msgspec.structs.asdict(stages),
        validators=n,
        cores=result.cores,
        round_us=trickle_us,
        gateway_us=gateway_us,
        transaction_bytes=result.bytes_per_transaction / (n - 1),
        measured=Measured(result.executed_per_second, half.latency_ms.p50, half.latency_ms.p99),
    )


class Runner:
    """Runs phases one after the other on one network and one supply of transactions."""

    def __init__(self, network: Network, folder: Path, senders: int, count: int, say: Say) -> None:
        self._network = network
        self._folder = folder
        self._count = count
        self._say = say
        self._sent = 0
        self._senders = senders
        self.rounds_per_second = 0.0
        """In the last phase."""

    def height(self) -> int:
        """The greatest height that a validator has executed."""
        statuses = self._network.statuses()
        return max((status.height for status in statuses if status is not None), default=0)

    def load(self, seconds: float, rate: float, window: int) -> LoadResult:
        """Offers the next transactions: at a rate, or where that is 0 as `window` allows."""
        plan = LoadPlan(
            url=self._network.gateway_urls[0],
            folder=self._folder,
            first=self._sent,
            count=self._left(),
            rate_per_second=rate,
            window=window,
            seconds=seconds,
            warm_up_seconds=min(WARM_UP_SECONDS, seconds / 4),
            # Only the first phase meets senders whose keys the network does not know.
            prime=0 if self._sent else self._senders,
        )
        if plan.count <= 0:
            raise QnetError(Code.INVALID_PARAMETER, "no signed transactions are left; more seconds")
        what = f"{rate:.0f} a second" if rate else f"as fast as they are taken, {window} under way"
        self._say(f"load for {seconds:.0f} s: {what}")
        result = run_load(plan)
        self._sent += result.sent
        return result

    def run(self, seconds: float, rate: float, window: int) -> Phase:
        """One phase, with what it cost."""
        processes = self._network.process_ids()
        cpu, sent_bytes = cpu_seconds(processes), self._link_bytes()
        load, rounds, started = _load_seconds(), self._rounds(), time.monotonic()
        result = self.load(seconds, rate, window)
        load = _load_seconds() - load
        self.rounds_per_second = (self._rounds() - rounds) / (time.monotonic() - started)
        spent = {
            name: seconds - cpu[name]
            for name, seconds in cpu_seconds(processes).items()
            if name in cpu
        } | {LOAD: load}
        return _phase(result, rate, spent, self._link_bytes() - sent_bytes)

    def round_us(self) -> float:
        """CPU time of a validator in a round while hardly anything is to be done."""
        processes = {
            name: process
            for name, process in self._network.process_ids().items()
            if name.startswith("validator")
        }
        cpu, rounds = cpu_seconds(processes), self._rounds()
        self.load(TRICKLE_SECONDS, TRICKLE_PER_SECOND, 0)
        made = self._rounds() - rounds
        after = cpu_seconds(processes)
        spent = sum(after[name] - cpu[name] for name in processes)
        if made <= 0:
            raise QnetError(Code.NOT_READY, "no rounds were made")
        return 1e6 * spent / len(processes) / made

    def _rounds(self) -> int:
        return max((s.round for s in self._network.statuses() if s is not None), default=0)

    def _left(self) -> int:
        """How many may be sent: the first phase leaves some to the second."""
        left = self._count - self._sent
        return left if self._sent else int(left * FIRST_PHASE_SHARE)

    def _link_bytes(self) -> int:
        return sum(m.get("link_bytes_out", 0) for m in self._network.measurements())


def _phase(result: LoadResult, rate: float, cpu: dict[str, float], link_bytes: int) -> Phase:
    executed_in_all = max(1, result.accepted - result.lost)
    offered = rate or result.offered / result.seconds
    achieved = result.offered / result.seconds
    latencies = result.latency_ms
    # What is refused for load is offered again, and its latency counts from the first intention.
    refused = sum(result.refused.values())
    return Phase(
        offered_per_second=round(offered, 1),
        achieved_per_second=round(achieved, 1),
        valid=achieved >= ACHIEVED_MIN * offered and refused <= REFUSED_MAX * result.offered,
        executed=result.executed,
        executed_per_second=round(result.executed / result.seconds, 1),
        failed=result.failed,
        lost=result.lost,
        refused=result.refused,
        latency_ms=Latencies(
            *(round(percentile(latencies, share), 1) for share in (0.50, 0.90, 0.99))
        ),
        cpu_us_per_transaction={
            name: round(seconds * 1e6 / executed_in_all, 1) for name, seconds in cpu.items()
        },
        bytes_per_transaction=round(link_bytes / executed_in_all, 1),
    )


def _load_seconds() -> float:
    """CPU time of this process and of those that it has waited for: what offers the load."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Progress:
    """Says how far long work is, about once a second."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._said = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said > 1.0:
            self._said = now
            self._say(f"{what}: {done} of {total}")


def raw_verifications(folder: Path, provider_name: ProviderName) -> float:
    """Verifications a second of all cores together: what the network's work is measured against.

    One process a core, each over the same signed transactions, as long as the slowest takes.
    """
    context = multiprocessing.get_context("spawn")
    cores = os.cpu_count() or 1
    # A process that fails before the barrier must not leave the others waiting for ever.
    barrier = context.Barrier(cores, timeout=START_SECONDS_MAX)
    results: Any = context.SimpleQueue()
    processes = [
        context.Process(
            target=_verify_for_a_while, args=(folder, provider_name, barrier, results), daemon=True
        )
        for _ in range(cores)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise QnetError(Code.INTERNAL, "a process that measures the raw limit failed")
    return float(sum(results.get() for _ in processes))


def _verify_for_a_while(
    folder: Path, provider_name: ProviderName, barrier: Any, results: Any
) -> None:
    from qnet_actors.crypto import choose

    verifier = choose(provider_name).verifier
    signed = list(read_signed(folder, SAMPLE_TRANSACTIONS))
    witnesses = [check_signed(one).witness for one in signed]
    ids = np.frombuffer(b"".join(one.id for one in signed), dtype=np.uint8).reshape(-1, 32)
    signatures = np.frombuffer(
        b"".join(witness.signature for witness in witnesses), dtype=np.uint8
    ).reshape(len(signed), -1)
    table = [witness.public_key for witness in witnesses]
    # Only the first transaction of a sender carries its key.
    rows = np.array([row for row, key in enumerate(table) if key], dtype=np.int64)
    rows = rows[: min(len(rows), 256)]
    keys = (table, rows)
    verifier.verify_columns(keys, ids[rows], signatures[rows], CONTEXT_TRANSACTION)
    barrier.wait()
    begin = time.perf_counter()
    done = 0
    while (now := time.perf_counter()) - begin < RAW_SECONDS:
        verdicts = verifier.verify_columns(keys, ids[rows], signatures[rows], CONTEXT_TRANSACTION)
        if not verdicts.all():
            raise QnetError(Code.BAD_SIGNATURE, "the benchmark's own signatures do not verify")
        done += len(rows)
    results.put(done / (now - begin))
