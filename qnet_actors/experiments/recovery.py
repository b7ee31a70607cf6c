"""`qnet bench recovery`: what the clients of the others notice when a validator is killed."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from qnet_actors.experiments.bench import (
    BenchOptions,
    ProviderName,
    Runner,
    Say,
    prepare,
    settings_of,
    window,
)
from qnet_actors.experiments.demonstration import percentile
from qnet_actors.experiments.load import LoadResult
from qnet_actors.experiments.workload import Workload, read_signed
from qnet_actors.gateway import home
from qnet_actors.network.launch import Network
from qnet_actors.wire.codes import Code, QnetError

BIN_SECONDS: Final = 0.5
PLANNED_SHARE: Final = 0.5
NORMAL_RATIO: Final = 2.0
"""Latency is back where it is under so many times what it was."""


class RecoveryOptions(msgspec.Struct, frozen=True, kw_only=True):
    senders: int = 1_024
    seconds: float = 30.0
    """Of load; the validator is killed in the middle of it."""
    provider: ProviderName = "auto"
    rate: float = 0.0
    """Offered; 0: half of what a short closed loop reached."""
    killed: int = 1
    """The validator's index."""


class Bin(msgspec.Struct, frozen=True):
    """Transactions that were meant to be sent within half a second."""

    seconds: float
    """From the kill to the bin's beginning; negative before."""
    transactions: int
    p50_ms: float


class RecoveryResult(msgspec.Struct, frozen=True):
    """Of senders whose transactions go to a validator that was not killed."""

    offered_per_second: float
    before_p50_ms: float
    worst_p50_ms: float
    """Of the worst half second after the kill."""
    seconds_to_normal: float
    """From the kill until the median of each half second stays under twice what it was."""
    lost: int
    """Transactions of those senders that were refused for good or not executed."""
    bins: list[Bin]


def run_recovery(options: RecoveryOptions, directory: Path, say: Say) -> RecoveryResult:
    """Raises `QnetError` where the network cannot be started, or too few were executed."""
    bench = BenchOptions(
        senders=options.senders, seconds=options.seconds, provider=options.provider
    )
    supply = prepare(bench, say)
    addresses = [key.key_id for key in supply.keys]
    workload = Workload(supply.genesis.chain_id(), options.senders, supply.count)
    homes = [home(address, bench.validators)[0] for address in addresses]
    with Network(supply.genesis, settings_of(bench, directory), say) as network:
        runner = Runner(network, supply.folder, options.senders, supply.count, say)
        under_way = window(supply.raw_verifications_per_second, bench.validators)
        # The closed loop also meets the senders' keys.
        reached = runner.load(options.seconds / 3, 0.0, under_way)
        rate = options.rate or PLANNED_SHARE * reached.executed / reached.seconds
        first = reached.sent
        killed_at, result = _load_and_kill(runner, network, options, rate, say)
        count = result.sent
    rest = {
        signed.id
        for index, signed in enumerate(read_signed(supply.folder, count, first), first)
        if homes[workload.sender(index)[0]] != options.killed
    }
    bins = bins_of(result, rest, killed_at)
    return RecoveryResult(
        offered_per_second=round(rate, 1),
        before_p50_ms=before_p50_ms(bins),
        worst_p50_ms=max((one.p50_ms for one in bins if one.seconds >= 0), default=0.0),
        seconds_to_normal=seconds_to_normal(bins),
        lost=len(rest & ids_of(result.lost_ids)),
        bins=bins,
    )


def _load_and_kill(
    runner: Runner, network: Network, options: RecoveryOptions, rate: float, say: Say
) -> tuple[float, LoadResult]:
    """Offers the load; the time at which the validator was killed, and what came of the load."""
    process = network.process_ids()[f"validator-{options.killed}"]
    killed: list[float] = []

    def kill() -> None:
        say(f"killing validator {options.killed}")
        killed.append(time.time())
        os.kill(process, signal.SIGKILL)

    timer = threading.Timer(0.6 * options.seconds, kill)
    timer.start()
    try:
        result = runner.load(options.seconds, rate, 0)
    finally:
        timer.cancel()
    if not killed:
        raise QnetError(Code.WAIT_TIMEOUT, "the load ended before the validator was killed")
    return killed[0], result


def ids_of(joined: bytes) -> set[bytes]:
    return {joined[at : at + 32] for at in range(0, len(joined), 32)}


def bins_of(result: LoadResult, wanted: set[bytes], killed_at: float) -> list[Bin]:
    """Half seconds of intended sending in which something wanted was executed, in order."""
    latencies: dict[int, list[float]] = {}
    for row, (intended, latency_ms) in enumerate(
        zip(result.intended, result.latency_ms, strict=True)
    ):
        if result.ids[32 * row : 32 * row + 32] in wanted:
            number = math.floor((intended - killed_at) / BIN_SECONDS)
            latencies.setdefault(number, []).append(latency_ms)
    return [
        Bin(number * BIN_SECONDS, len(values), round(percentile(values, 0.5), 1))
        for number, values in sorted(latencies.items())
    ]


def before_p50_ms(bins: list[Bin]) -> float:
    """The median half second before the kill.  Raises `QnetError(WAIT_TIMEOUT)` for none."""
    before = [one.p50_ms for one in bins if one.seconds < -BIN_SECONDS]
    if not before:
        raise QnetError(Code.WAIT_TIMEOUT, "nothing was executed before the kill")
    return percentile(before, 0.5)


def seconds_to_normal(bins: list[Bin]) -> float:
    """When the last half second is over that was slow, or in which nothing was executed."""
    limit = NORMAL_RATIO * before_p50_ms(bins)
    after = [one for one in bins if one.seconds >= 0]
    if not after:
        raise QnetError(Code.WAIT_TIMEOUT, "nothing was executed after the kill")
    slow = [one.seconds + BIN_SECONDS for one in after if one.p50_ms >= limit]
    empty = [b.seconds for a, b in pairwise(after) if b.seconds - a.seconds > 1.5 * BIN_SECONDS]
    return max([0.0, *slow, *empty])
