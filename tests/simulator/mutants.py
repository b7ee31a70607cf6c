"""`scripts/mutants`: takes each rule away in turn and shows what notices.

A mutant counts as killed by a named invariant of the simulator, or by a named test that fails by
an assertion.  An exception of another kind kills nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import pytest

from qnet_actors.simulator.result import SimResult
from qnet_actors.simulator.simulation import SimConfig, Simulation
from tests.simulator.broken_rules import MUTANTS, Mutant

ROOT: Final = Path(__file__).resolve().parents[2]
CONFIG: Final = SimConfig(
    fault_end_ms=6_000,
    calm_ms=1_000,
    virtual_ms_min=7_000,
    virtual_ms_max=30_000,
    rounds_min=50,
    progress_ms=5_000,
    settle_ms=6_000,
)
SEEDS: Final = range(1, 9)
TEST_S: Final = 120


@dataclass(frozen=True, slots=True)
class Kill:
    """What became of a mutant; `by` is empty where nothing noticed as it should."""

    mutant: str
    rule: str
    by: str
    seed: int | None
    reason: str
    seconds: float


def caught(mutant: Mutant, seeds: Iterable[int] = SEEDS) -> SimResult:
    """The first of a few seeds in which an invariant breaks, or the last one."""
    with mutant.patches():
        for seed in seeds:
            result = Simulation(seed, CONFIG, mutant.rooms, mutant.change).run()
            # A fault that did not fire in so short a run shows nothing.
            if result.invariant and result.invariant != "silent_fault":
                break
    return result


class _Judge:
    """Notes tests that an assertion failed."""

    def __init__(self) -> None:
        self.asserted: list[str] = []
        self.why = ""

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        failed = call.excinfo
        if call.when == "call" and failed is not None:
            if isinstance(failed.value, AssertionError | pytest.fail.Exception):
                self.asserted.append(item.nodeid)
            self.why = f"{failed.typename}: {failed.value}"[:200]


def run_test(mutant: Mutant) -> Kill:
    """Runs the mutant's test in this process, which is to do nothing else."""
    judge, started = _Judge(), time.perf_counter()
    with mutant.patches():
        pytest.main(["-q", "--no-header", "-p", "no:cacheprovider", mutant.test], plugins=[judge])
    by = judge.asserted[0] if judge.asserted else ""
    return _kill(mutant, by, None, judge.why, started)


def kill(mutant: Mutant) -> Kill:
    """Puts a mutant to the test; its test, if it has one, in a process of its own."""
    started = time.perf_counter()
    if not mutant.test:
        result = caught(mutant)
        by = result.invariant if result.invariant in mutant.invariants else ""
        return _kill(mutant, by, result.seed, result.reason, started)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulator.mutants", "--in-process", mutant.name],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _kill(mutant, "", None, f"its test took over {TEST_S} s", started)
    lines = done.stdout.splitlines()
    return Kill(**json.loads(lines[-1])) if lines else _kill(mutant, "", None, "", started)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of `scripts/mutants`: 0 where each mutant was killed, 1 otherwise."""
    names = [mutant.name for mutant in MUTANTS]
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(names)}; none: all")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - set(names))
    if unknown:
        parser.error(f"no such mutants: {', '.join(unknown)}")
    chosen = [mutant for mutant in MUTANTS if mutant.name in given.names or not given.names]
    if given.in_process:
        _write(json.dumps(asdict(run_test(chosen[0]))))
        return 0
    kills: list[Kill] = []
    for mutant in chosen:
        kills.append(kill(mutant))
        if not given.json:
            last = kills[-1]
            where = f" (seed {last.seed})" if last.seed is not None else ""
            _write(f"{last.mutant:22} {last.by or 'SURVIVED: ' + last.reason}{where}")
    if given.json:
        _write(json.dumps([asdict(found) for found in kills], indent=2))
    return 0 if all(found.by for found in kills) else 1


def _kill(mutant: Mutant, by: str, seed: int | None, reason: str, started: float) -> Kill:
    seconds = round(time.perf_counter() - started, 2)
    return Kill(mutant.name, mutant.rule, by, seed, reason, seconds)


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
