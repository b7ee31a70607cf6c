"""Three times the maximum for a while: what is refused, what memory does, and how it recovers."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Final

import msgspec

from qnet_actors.experiments.demonstration import percentile
from qnet_actors.experiments.overload.offering import (
    BUCKET_SECONDS,
    SETTLE_SECONDS,
    Bucket,
    Stretch,
    StretchResult,
)
from qnet_actors.experiments.overload.rehearsal import ProviderName, Rehearsal, Say
from qnet_actors.experiments.processes import cpu_seconds, memory_bytes
from qnet_actors.wire.codes import Code, QnetError

MEASURE_SECONDS: Final = 10.0
NORMAL_SECONDS: Final = 8.0
AFTER_SECONDS: Final = 12.0
NORMAL_SHARE: Final = 0.5
SAMPLE_SECONDS: Final = 2.0
LATENCY_FACTOR: Final = 2.0
LATENCY_SLACK_MS: Final = 200.0
"""Normal is a median of half a second's offers of no more than twice the usual one and this."""
FACTOR_REACHED_MIN: Final = 0.95
RECOVERY_SECONDS_MAX: Final = 5.0
MEMORY_GROWTH_MAX: Final = 0.15


class ExcessOptions(msgspec.Struct, frozen=True, kw_only=True):
    seconds: float = 60.0
    """Of the overload."""
    factor: float = 3.0
    """Times what the network takes in a closed loop."""
    provider: ProviderName = "auto"


class ExcessResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    maximum_per_second: float
    """Executed in a closed loop."""
    offered_per_second: float
    """During the overload: sent to the gateway, and answered."""
    factor: float
    """What should be offered over the maximum,"""
    factor_reached: float
    """and what was."""
    executed_per_second: float
    """During the overload."""
    refused_share: float
    """Of the transactions offered during the overload."""
    responses: dict[str, int]
    """HTTP responses of the overload, by status."""
    refused: dict[str, int]
    unoffered: int
    """Transactions that were due and could not be sent; the offered rate is without them."""
    without_retry_after: int
    """503 and 429 that did not say when to come again; must be 0."""
    latency_ms_p50: float
    """Of what was taken during the overload."""
    latency_ms_p99: float
    answer_ms_p50: float
    """Of a request during the overload of which something was taken."""
    answer_ms_p99: float
    refusal_ms_p50: float
    """Of one of which nothing was."""
    refusal_ms_p99: float
    normal_latency_ms_p50: float
    """Before, at half of the maximum."""
    recovery_seconds: float
    """From the end of the overload until nothing is refused and latency is usual again."""
    after_refused: list[int]
    """Refused of what was offered after the overload, by half seconds,"""
    after_ms_p50: list[float]
    """and the median latency of the rest."""
    memory_bytes_before: int
    memory_bytes_early: int
    """Proportional set size of the network when a third of the overload is over,"""
    memory_bytes_late: int
    """and at its end: medians of five samples."""
    memory_slope_bytes_per_second: float
    """Least squares over the last two thirds of the overload."""
    memory_growth: float
    """`late` over `early`, less 1."""
    cpu_cores: dict[str, float]
    """Busy during the overload, by process; "load" is what offers it."""
    failed: int
    lost: int
    roots_equal: bool

    @property
    def good(self) -> bool:
        return (
            self.roots_equal
            and not (self.failed or self.lost or self.without_retry_after)
            and self.refused_share > 0
            and self.factor_reached >= FACTOR_REACHED_MIN * self.factor
            and self.recovery_seconds <= RECOVERY_SECONDS_MAX
            and self.memory_growth <= MEMORY_GROWTH_MAX
        )


def run_excess(options: ExcessOptions, directory: Path, say: Say) -> ExcessResult:
    """Overloads a fresh network in `directory`; raises `QnetError` where it cannot."""
    stretches = (
        Stretch("maximum", MEASURE_SECONDS, 0.0),
        Stretch("normal", NORMAL_SECONDS, NORMAL_SHARE),
        Stretch("overload", options.seconds, options.factor),
        Stretch("after", AFTER_SECONDS, NORMAL_SHARE),
    )
    samples: list[tuple[float, int]] = []
    spent: dict[str, tuple[float, dict[str, float]]] = {}
    generator = 0

    def on_stretch(name: str, process: int) -> None:
        nonlocal generator
        generator = process
        processes = {**rehearsal.network.process_ids(), "load": process}
        spent[name] = (time.monotonic(), cpu_seconds(processes))
        say(f"load: {name}")

    def on_poll() -> None:
        now = time.time()
        if generator and (not samples or now - samples[-1][0] >= SAMPLE_SECONDS):
            samples.append((now, memory_bytes(without=generator)))

    with Rehearsal(directory, options.provider, stretches, say) as rehearsal:
        offered = rehearsal.offer(on_stretch, on_poll)
        roots_equal = rehearsal.roots_equal()
    if offered.exhausted:
        raise QnetError(Code.INVALID_PARAMETER, "the signed transactions did not suffice")
    maximum, normal, overload, after = offered.stretches
    usual = _latencies(normal.buckets[int(SETTLE_SECONDS / BUCKET_SECONDS) :])
    taken = _latencies(overload.buckets)
    offers = sum(bucket.offered for bucket in overload.buckets)
    before = [size for at, size in samples if at < overload.began]
    third = overload.began + overload.seconds / 3
    under = [(at, size) for at, size in samples if third <= at < after.began]
    if len(under) < 2 or not before:
        raise QnetError(Code.INVALID_PARAMETER, "the overload is too short to sample memory")
    early = statistics.median(size for _, size in under[:5])
    late = statistics.median(size for _, size in under[-5:])
    slope = statistics.linear_regression(*zip(*under, strict=True)).slope
    return ExcessResult(
        maximum_per_second=round(maximum.settled_per_second, 1),
        offered_per_second=round(offers / overload.seconds, 1),
        factor=options.factor,
        factor_reached=round(offers / overload.seconds / max(maximum.settled_per_second, 1e-9), 2),
        executed_per_second=round(overload.executed_per_second, 1),
        refused_share=round(sum(b.refused for b in overload.buckets) / max(1, offers), 3),
        responses=overload.responses,
        refused=overload.refused,
        unoffered=overload.unoffered,
        without_retry_after=sum(s.without_retry_after for s in offered.stretches),
        latency_ms_p50=round(percentile(taken, 0.50), 1),
        latency_ms_p99=round(percentile(taken, 0.99), 1),
        answer_ms_p50=percentile(overload.answer_ms, 0.50),
        answer_ms_p99=percentile(overload.answer_ms, 0.99),
        refusal_ms_p50=percentile(overload.refusal_ms, 0.50),
        refusal_ms_p99=percentile(overload.refusal_ms, 0.99),
        normal_latency_ms_p50=round(percentile(usual, 0.50), 1),
        recovery_seconds=recovery_seconds(after, percentile(usual, 0.50)),
        after_refused=[bucket.refused for bucket in after.buckets],
        after_ms_p50=[percentile(bucket.latency_ms, 0.50) for bucket in after.buckets],
        memory_bytes_before=before[-1],
        memory_bytes_early=int(early),
        memory_bytes_late=int(late),
        memory_slope_bytes_per_second=round(slope, 1),
        memory_growth=round(late / early - 1, 3),
        cpu_cores=_cores(*spent["overload"], *spent["after"]),
        failed=offered.failed,
        lost=offered.lost,
        roots_equal=roots_equal,
    )


def recovery_seconds(after: StretchResult, usual_ms: float) -> float:
    """Until the end of the last half second that was not normal."""
    limit_ms = LATENCY_FACTOR * usual_ms + LATENCY_SLACK_MS
    recovered = 0
    for position, bucket in enumerate(after.buckets):
        late = percentile(bucket.latency_ms, 0.50) > limit_ms
        if bucket.refused or late or len(bucket.latency_ms) < bucket.offered - bucket.refused:
            recovered = position + 1
    return recovered * BUCKET_SECONDS


def _cores(
    began: float, before: dict[str, float], ended: float, after: dict[str, float]
) -> dict[str, float]:
    return {
        name: round((after[name] - seconds) / (ended - began), 2)
        for name, seconds in before.items()
        if name in after
    }


def _latencies(buckets: list[Bucket]) -> list[float]:
    return [latency for bucket in buckets for latency in bucket.latency_ms]
