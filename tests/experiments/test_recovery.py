"""What is read off the latencies around a kill; the run itself is `qnet bench recovery`."""

from __future__ import annotations

from qnet_actors.experiments.load import LoadResult
from qnet_actors.experiments.recovery import bins_of, ids_of, seconds_to_normal


def identity(number: int) -> bytes:
    return number.to_bytes(32, "big")


def result_of(rows: list[tuple[float, float]]) -> LoadResult:
    """(intended, latency in ms) of transactions 0, 1, ..."""
    return LoadResult(
        sent=len(rows),
        offered=len(rows),
        accepted=len(rows),
        executed=len(rows),
        failed=0,
        lost=0,
        refused={},
        seconds=10.0,
        latency_ms=[late for _, late in rows],
        intended=[at for at, _ in rows],
        ids=b"".join(identity(number) for number in range(len(rows))),
        lost_ids=b"",
        started=0.0,
        ended=10.0,
    )


def test_bins_are_counted_from_the_kill_and_hold_only_what_is_wanted():
    rows = [(99.6, 10.0), (99.9, 30.0), (100.0, 50.0), (100.4, 70.0), (100.5, 90.0), (100.6, 1.0)]
    bins = bins_of(result_of(rows), {identity(n) for n in range(5)}, 100.0)
    assert [(one.seconds, one.transactions) for one in bins] == [(-0.5, 2), (0.0, 2), (0.5, 1)]
    assert [one.p50_ms for one in bins] == [30.0, 70.0, 90.0]


def test_normal_is_when_the_last_slow_or_empty_half_second_is_over():
    def bins(*after: float | None) -> float:
        rows = [(at / 4, 100.0) for at in range(-8, -2)]
        for number, late in enumerate(after):
            rows += [] if late is None else [(number / 2, late), (number / 2 + 0.1, late)]
        wanted = {identity(n) for n in range(len(rows))}
        return seconds_to_normal(bins_of(result_of(rows), wanted, 0.0))

    assert bins(110.0, 120.0) == 0.0
    assert bins(500.0, 199.0, 110.0) == 0.5
    assert bins(500.0, 110.0, 200.0, 110.0) == 1.5
    # Nothing at all is worse than slow.
    assert bins(110.0, None, None, 110.0) == 1.5


def test_ids_come_apart():
    assert ids_of(identity(1) + identity(2)) == {identity(1), identity(2)}
    assert ids_of(b"") == set()
