"""One validator of four that is stopped most of the time: what the others' clients notice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

import msgspec

from qnet_actors.experiments.overload.offering import BUCKET_SECONDS, Stretch, StretchResult
from qnet_actors.experiments.overload.rehearsal import ProviderName, Rehearsal, Say
from qnet_actors.wire.codes import Code, QnetError

MEASURE_SECONDS: Final = 8.0
AFTER_SECONDS: Final = 4.0
SETTLE_SECONDS: Final = 3.0
"""At the beginning of a stretch, left out."""
OFFERED_SHARE: Final = 1.2
"""Of the maximum: what is executed is then what the network can do."""
CYCLE_SECONDS: Final = 1.0
RATIO_MIN: Final = 0.8


class LaggingOptions(msgspec.Struct, frozen=True, kw_only=True):
    seconds: float = 20.0
    """Of load before, and while the validator is slowed."""
    stopped_share: float = 0.8
    """Of each second, in which the validator's process is stopped."""
    slowed: int = 3
    """The validator's index."""
    provider: ProviderName = "auto"


class LaggingResult(msgspec.Struct, frozen=True, kw_only=True):
    """Executed transactions a second, of senders whose home is another validator."""

    before_per_second: float
    slowed_per_second: float
    ratio: float
    """The second over the first; must be at least 0.8."""
    all_before_per_second: float
    all_slowed_per_second: float
    """Of all senders."""
    failed: int
    lost: int
    roots_equal: bool
    """At the end, the slowed validator's among them."""

    @property
    def good(self) -> bool:
        return self.ratio >= RATIO_MIN and self.roots_equal and not (self.failed or self.lost)


def run_lagging(options: LaggingOptions, directory: Path, say: Say) -> LaggingResult:
    """Slows a validator of a fresh network in `directory`; raises `QnetError` where it cannot."""
    stretches = (
        Stretch("maximum", MEASURE_SECONDS, 0.0),
        Stretch("before", options.seconds, OFFERED_SHARE),
        # Three validators that share the processors of four may do more than all of them.
        Stretch("slowed", options.seconds, OFFERED_SHARE, executed_share_max=OFFERED_SHARE),
        Stretch("after", AFTER_SECONDS, OFFERED_SHARE / 2),
    )
    with Rehearsal(directory, options.provider, stretches, say) as rehearsal:
        brake = _Brake(
            rehearsal.network.process_ids()[f"validator-{options.slowed}"], options.stopped_share
        )

        def on_stretch(name: str, _: int) -> None:
            say(f"load: {name}")
            brake.on = name == "slowed"
            brake.look()

        try:
            offered = rehearsal.offer(on_stretch, brake.look)
        finally:
            brake.release()
        roots_equal = rehearsal.roots_equal()
    if offered.exhausted:
        raise QnetError(Code.INVALID_PARAMETER, "the signed transactions did not suffice")
    _, before, slowed, _ = offered.stretches
    others = _per_second(before, options.slowed), _per_second(slowed, options.slowed)
    return LaggingResult(
        before_per_second=round(others[0], 1),
        slowed_per_second=round(others[1], 1),
        ratio=round(others[1] / max(others[0], 1e-9), 3),
        all_before_per_second=round(_per_second(before), 1),
        all_slowed_per_second=round(_per_second(slowed), 1),
        failed=offered.failed,
        lost=offered.lost,
        roots_equal=roots_equal,
    )


class _Brake:
    """Stops a process for a share of each second, while it is on."""

    def __init__(self, process: int, share: float) -> None:
        self._process = process
        self._share = share
        self._stopped = False
        self.on = False

    def look(self) -> None:
        """Does what is due; called several times a second."""
        phase = time.monotonic() % CYCLE_SECONDS / CYCLE_SECONDS
        self._set(self.on and phase < self._share)

    def release(self) -> None:
        """Lets it run."""
        self._set(False)

    def _set(self, stopped: bool) -> None:
        if stopped != self._stopped:
            os.kill(self._process, signal.SIGSTOP if stopped else signal.SIGCONT)
            self._stopped = stopped


def _per_second(stretch: StretchResult, without: int | None = None) -> float:
    first, last = int(SETTLE_SECONDS / BUCKET_SECONDS), int(stretch.seconds / BUCKET_SECONDS)
    buckets = stretch.buckets[first:last]
    executed = sum(
        count for bucket in buckets for home, count in enumerate(bucket.executed) if home != without
    )
    return executed / max(len(buckets) * BUCKET_SECONDS, BUCKET_SECONDS)
