"""Makes a failing run smaller while it fails in the same way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from qnet_actors.simulator.faults import Fault
from qnet_actors.simulator.result import SimResult, Verdict
from qnet_actors.simulator.simulation import SimConfig

RUNS_MAX: Final = 200
SHORT_CALM_MS: Final = 500

RunSeed = Callable[[int, SimConfig], SimResult]


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The smallest run found, what it came to, and how many runs it took to find it."""

    config: SimConfig
    result: SimResult
    runs: int


class _Shrinker:
    """Keeps the smallest configuration that still breaks the invariant."""

    def __init__(self, seed: int, first: SimResult, config: SimConfig, run: RunSeed) -> None:
        self.config = config
        self.result = first
        self.runs = 1
        self._seed = seed
        self._run = run

    def try_(self, config: SimConfig) -> bool:
        """Takes `config` over where the run fails like the first one did."""
        if self.runs >= RUNS_MAX:
            return False
        self.runs += 1
        result = self._run(self._seed, config)
        if result.verdict != self.result.verdict or result.invariant != self.result.invariant:
            return False
        self.config, self.result = config, result
        return True

    def episodes(self) -> None:
        """Leaves out faults: all, then halves, then one by one."""
        kept = tuple(range(self.result.episodes))
        size = len(kept)
        while size:
            at = 0
            while at < len(kept):
                fewer = kept[:at] + kept[at + size :]
                if self.try_(replace(self.config, episodes=fewer)):
                    kept = fewer
                else:
                    at += size
            size //= 2

    def load(self) -> None:
        """Halves the transactions, then the accounts."""
        count = self.result.submitted
        while count > 1 and self.try_(replace(self.config, submitted_max=count // 2)):
            count //= 2
        accounts = self.config.accounts
        while accounts > 1 and self.try_(replace(self.config, accounts=accounts // 2)):
            accounts //= 2


def shrink(seed: int, config: SimConfig, run: RunSeed) -> Shrunk | None:
    """A smaller run of `seed` that breaks the same invariant; None where `config` breaks none.

    Fewer faults first, then less time after them, then less load.  At most `RUNS_MAX` runs.
    """
    first = run(seed, config)
    if first.verdict in (Verdict.PASS, Verdict.INVALID):
        return None
    shrinker = _Shrinker(seed, first, config, run)
    shrinker.episodes()
    shrinker.try_(shrinker.config.calm_for(SHORT_CALM_MS))
    shrinker.load()
    return Shrunk(shrinker.config, shrinker.result, shrinker.runs)


def command_of(seed: int, config: SimConfig) -> str:
    """What to type to see the run of a seed."""
    default = SimConfig()
    words = [f"qnet sim --seed {seed} --validators {config.validators}"]
    names = ",".join(sorted(config.faults)) or "none"
    words.append(f"--faults {'all' if config.faults == frozenset(Fault) else names}")
    if config.joiners:
        words.append(f"--joiners {config.joiners}")
    if config.approves:
        words.append("--approve")
    if config.episodes is not None:
        words.append(f"--episodes {','.join(map(str, config.episodes)) or 'none'}")
    if config.calm_ms != default.calm_ms:
        words.append(f"--calm-ms {config.calm_ms}")
    if config.submitted_max is not None:
        words.append(f"--transactions {config.submitted_max}")
    if config.accounts != default.accounts:
        words.append(f"--accounts {config.accounts}")
    if config.regions:
        words.append(f"--regions {config.regions}")
    return " ".join([*words, "--trace"])
