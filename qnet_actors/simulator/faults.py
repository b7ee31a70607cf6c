"""What goes wrong in a run, and when: drawn from the seed before the run begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

from qnet_actors.wire.codes import Code, QnetError


class Fault(StrEnum):
    """Kinds of faults; each enabled one fires at least once in a run that counts."""

    LOSS = "loss"
    """Single messages vanish."""
    DUPLICATE = "duplicate"
    """Messages arrive twice."""
    REORDER = "reorder"
    """Messages overtake each other on one link."""
    DELAY = "delay"
    """Messages take up to `DELAY_MS_MAX` longer."""
    PARTITION = "partition"
    """The validators fall into two groups that do not hear each other, for a while."""
    RESET = "reset"
    """A link breaks with what it carries, and stands again."""
    CRASH = "crash"
    """A validator dies between two effects and starts again from what was durable."""
    POWER = "power"
    """All validators die at once and start again one after the other."""
    SLOW_DISK = "slow_disk"
    """Writes of one validator take up to `SLOW_DISK_MS_MAX`."""
    SKEW = "skew"
    """A validator's clock is off by up to `SKEW_MS_MAX`."""
    BYZANTINE = "byzantine"
    """One validator lies (see `adversary`); in every other run or so, and with four or more."""


OF_LINKS: Final = frozenset(
    {Fault.LOSS, Fault.DUPLICATE, Fault.REORDER, Fault.DELAY, Fault.PARTITION, Fault.RESET}
)
DELAY_MS_MAX: Final = 400
SLOW_DISK_MS_MAX: Final = 300
SKEW_MS_MAX: Final = 300
ABSENCES: Final = (Fault.CRASH, Fault.PARTITION)
"""Faults after which a validator may be away for longer, for which there is a time of its own."""

_PROBABILITIES: Final = {
    Fault.LOSS: (0.01, 0.15),
    Fault.DUPLICATE: (0.02, 0.3),
    Fault.REORDER: (0.02, 0.3),
    Fault.DELAY: (0.02, 0.2),
}


@dataclass(frozen=True, slots=True)
class Episode:
    """One fault from `start_ms` to `end_ms`.

    `targets` are validators: those of one side of a partition, the two ends of a link, or whoever
    is hit.  `level` is a probability a message, or a bound in milliseconds.
    """

    fault: Fault
    start_ms: int
    end_ms: int
    targets: tuple[int, ...] = ()
    level: float = 0.0


def parse_faults(names: str) -> frozenset[Fault]:
    """ "all", "none", or names separated by commas.  Raises `QnetError(INVALID_PARAMETER)`."""
    if names == "all":
        return frozenset(Fault)
    if names in ("none", ""):
        return frozenset()
    try:
        return frozenset(Fault(name.strip()) for name in names.split(","))
    except ValueError:
        known = ", ".join(Fault)
        raise QnetError(
            Code.INVALID_PARAMETER, f"faults are all, none, or of {known}; not {names[:100]!r}"
        ) from None


def faults_last_ms_min(faults: Iterable[Fault]) -> int:
    """How long the time of these faults must be for `plan_faults` to have room for them."""
    return 4_000 if set(ABSENCES) & set(faults) else 2_500


def plan_faults(
    rng: Random, faults: Iterable[Fault], validators: Sequence[int], start_ms: int, end_ms: int
) -> list[Episode]:
    """The episodes of a run, by start.  Each of `faults` stands there at least once.

    Crashes are planned so that at most f = floor((n - 1) / 3) validators are down at a time; the
    loss of power, which hits all, has a time of its own.  In the last third one validator is away
    and all else is well, so that it is left behind by more than the DAG still offers.

    From `start_ms` to `end_ms` it must be `faults_last_ms_min` or more.
    """
    enabled = set(faults)
    absences = [fault for fault in ABSENCES if fault in enabled]
    last_ms = end_ms
    # In the order of the enumeration, so that nothing depends on the order of a set.
    ordered = [fault for fault in Fault if fault in enabled]
    episodes: list[Episode] = []
    if absences and len(validators) > 1:
        end_ms -= (end_ms - start_ms) * 2 // 5
        away = (rng.choice(validators),)
        episodes.append(Episode(rng.choice(absences), end_ms, last_ms, away))
    power_ms = rng.randrange(start_ms + (end_ms - start_ms) // 3, end_ms - 1_500)
    for fault in ordered:
        match fault:
            case Fault.BYZANTINE:
                episodes.append(Episode(fault, start_ms, last_ms))
            case Fault.POWER:
                episodes.append(Episode(fault, power_ms, power_ms + rng.randrange(50, 1_000)))
            case Fault.CRASH:
                episodes += _crashes(rng, validators, start_ms, end_ms)
            case Fault.SKEW:
                # A clock is behind from the start, or leaps ahead once: none ever goes back.
                behind, *ahead = rng.sample(list(validators), min(2, len(validators)))
                level = rng.randrange(1, SKEW_MS_MAX)
                episodes.append(Episode(fault, 0, last_ms, (behind,), -level))
                for target in ahead:
                    at_ms, level = rng.randrange(start_ms, end_ms), rng.randrange(1, SKEW_MS_MAX)
                    episodes.append(Episode(fault, at_ms, last_ms, (target,), level))
            case Fault.PARTITION | Fault.RESET | Fault.SLOW_DISK:
                episodes += _spells(rng, fault, validators, start_ms, end_ms)
            case _:
                low, high = _PROBABILITIES[fault]
                for _ in range(rng.randrange(1, 3)):
                    begin = rng.randrange(start_ms, end_ms - 2_000)
                    last = rng.randrange(begin + 1_500, end_ms + 1)
                    episodes.append(Episode(fault, begin, last, (), rng.uniform(low, high)))
    episodes.sort(key=lambda episode: (episode.start_ms, episode.fault, episode.targets))
    return episodes


def _crashes(rng: Random, validators: Sequence[int], start_ms: int, end_ms: int) -> list[Episode]:
    """Chains of crash and recovery, f of them side by side, each over validators of its own."""
    tolerated = (len(validators) - 1) // 3
    if tolerated < 1:
        # A lone validator, or too few to spare one: it stops and everything waits for it.
        tolerated = 1
    order = list(validators)
    rng.shuffle(order)
    episodes = []
    for chain in range(tolerated):
        own = order[chain::tolerated]
        at_ms = start_ms + rng.randrange(200, 2_000)
        while True:
            down_ms = rng.randrange(50, 900) if rng.random() < 0.7 else rng.randrange(900, 3_000)
            if at_ms + down_ms > end_ms:
                down_ms = end_ms - at_ms
            if down_ms < 50:
                break
            episodes.append(Episode(Fault.CRASH, at_ms, at_ms + down_ms, (rng.choice(own),)))
            at_ms += down_ms + rng.randrange(100, 3_000)
    return episodes


def _spells(
    rng: Random, fault: Fault, validators: Sequence[int], start_ms: int, end_ms: int
) -> list[Episode]:
    episodes = []
    for _ in range(rng.randrange(1, 4)):
        begin = rng.randrange(start_ms, end_ms - 1_000)
        match fault:
            case Fault.PARTITION:
                size = rng.randrange(1, max(2, len(validators)))
                targets = tuple(sorted(rng.sample(list(validators), size)))
                length, level = rng.randrange(300, 4_000), 0.0
            case Fault.RESET:
                targets = tuple(sorted(rng.sample(list(validators), min(2, len(validators)))))
                length, level = rng.randrange(10, 1_000), 0.0
            case _:
                targets = (rng.choice(validators),)
                length, level = (
                    rng.randrange(500, 3_000),
                    float(rng.randrange(20, SLOW_DISK_MS_MAX)),
                )
        episodes.append(Episode(fault, begin, min(end_ms, begin + length), targets, level))
    return episodes
