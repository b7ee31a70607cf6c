"""`qnet sim`: many seeds over the cores of the machine, or one seed with its timeline."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any, Final

from qnet_actors.simulator.costs import read_costs
from qnet_actors.simulator.faults import parse_faults
from qnet_actors.simulator.prediction import Shape, predict
from qnet_actors.simulator.regions import matrix_ms
from qnet_actors.simulator.result import SimResult, Verdict
from qnet_actors.simulator.rooms import RealRooms
from qnet_actors.simulator.shrink import command_of, shrink
from qnet_actors.simulator.simulation import ML_DSA_EVERY, SimConfig, Simulation
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import VALIDATORS_MAX

ACCOUNTS_MAX: Final = 100_000
SEEDS_MAX: Final = 1_000_000
PROGRESS_S: Final = 5.0
FAILURES_SHOWN_MAX: Final = 20


def simulate(seed: int, config: SimConfig) -> SimResult:
    """One run of the real rooms."""
    return Simulation(seed, config, RealRooms).run()


@dataclass(frozen=True, slots=True)
class Asked:
    """Which seeds are run, and how; the fields are the options of `qnet sim`."""

    seeds: int = 200
    first_seed: int = 1
    seed: int | None = None
    """That one alone."""
    validators: int = 4
    faults: str = "all"
    joiners: int = 0
    approves: bool = False
    """With this or with joiners, epochs end while the faults last."""
    trace: bool = False
    """With its timeline."""
    shrunk: bool = False
    """The smallest run that fails alike is looked for."""
    episodes: str | None = None
    """Places in the plan of faults.  What follows makes a run smaller too."""
    calm_ms: int | None = None
    """Of load after the faults."""
    transactions: int | None = None
    accounts: int | None = None
    regions: str = ""

    def chosen(self) -> Sequence[int]:
        """The seeds.  Raises `QnetError(INVALID_PARAMETER)`."""
        check_seeds(self.seeds, self.first_seed)
        if self.seed is not None:
            return [self.seed]
        if self.trace:
            raise QnetError(
                Code.INVALID_PARAMETER, "a timeline is of one seed: name it with --seed"
            )
        if self.shrunk:
            raise QnetError(Code.INVALID_PARAMETER, "one seed is shrunk: name it with --seed")
        return range(self.first_seed, self.first_seed + self.seeds)

    def config(self) -> SimConfig:
        """How each is run.  Raises `QnetError(INVALID_PARAMETER)`."""
        check_validators(self.validators)
        if not 0 <= self.joiners <= VALIDATORS_MAX - self.validators:
            raise QnetError(
                Code.INVALID_PARAMETER,
                f"joiners are 0 to {VALIDATORS_MAX - self.validators} here",
            )
        if self.shrunk and self.trace:
            raise QnetError(Code.INVALID_PARAMETER, "one seed is shrunk, without its timeline")
        accounts = SimConfig().accounts if self.accounts is None else self.accounts
        if not 1 <= accounts <= ACCOUNTS_MAX:
            raise QnetError(Code.INVALID_PARAMETER, f"accounts are 1 to {ACCOUNTS_MAX}")
        config = SimConfig(
            validators=self.validators,
            faults=parse_faults(self.faults),
            joiners=self.joiners,
            approves=self.approves,
            keep_lines=self.trace,
            episodes=None if self.episodes is None else parse_episodes(self.episodes),
            submitted_max=self.transactions,
            accounts=accounts,
            regions=self.regions,
        )
        if self.calm_ms is None:
            return config
        if self.calm_ms < 1:
            raise QnetError(Code.INVALID_PARAMETER, "milliseconds are 1 or more")
        return config.calm_for(self.calm_ms)


def run_sim(
    asked: Asked,
    *,
    as_json: bool = False,
    processes: int | None = None,
    out: IO[str] | None = None,
    err: IO[str] | None = None,
) -> int:
    """Runs seeds and prints a summary; returns the exit code: 1 when a seed failed.

    Progress goes to `err`.  Raises `QnetError(INVALID_PARAMETER)`.
    """
    out, err = out or sys.stdout, err or sys.stderr
    chosen, config, seed = asked.chosen(), asked.config(), asked.seed
    if asked.shrunk and seed is not None:
        return _shrink(seed, config, as_json, out, err)
    started = time.perf_counter()
    results = list(_progress(run_all(chosen, config, processes), len(chosen), err))
    summary = summarise(results, time.perf_counter() - started)
    for result in results:
        for line in result.lines:
            print(line, file=out)
    failed = [result for result in results if result.verdict != Verdict.PASS]
    if as_json:
        print(json.dumps(summary), file=out)
    else:
        _print_summary(summary, out)
        if seed is not None:
            print(json.dumps(results[0].to_json(), indent=2), file=out)
    for result in failed[:FAILURES_SHOWN_MAX]:
        print(f"seed {result.seed}: {result.verdict}: {result.reason}", file=err)
        print(f"  replay: {command_of(result.seed, config)}", file=err)
    return 1 if failed else 0


def run_prediction(
    cost_file: Path,
    *,
    validators: int = 4,
    regions: str = "",
    cores: int | None = None,
    shared: bool = False,
    bandwidth_mbps: float = 1_000.0,
    as_json: bool = False,
    out: IO[str] | None = None,
) -> None:
    """Prints what a network would reach; without `cores` a machine has those that were measured.

    Raises `QnetError(INVALID_PARAMETER)`.
    """
    check_validators(validators, least=2)
    out, costs = out or sys.stdout, read_costs(cost_file)
    shape = Shape(
        validators, cores or costs.cores, shared, bandwidth_mbps, matrix_ms(regions, validators)
    )
    found = predict(costs, shape)
    if as_json:
        print(json.dumps(asdict(found)), file=out)
        return
    stages = ", ".join(f"{stage} {share:.0%}" for stage, share in found.core_share.items())
    print(
        f"{found.throughput_per_second:.0f} transactions a second; {found.bottleneck}\n"
        f"at half of that: p50 {found.latency_ms_p50:.0f} ms, p99 {found.latency_ms_p99:.0f} ms,"
        f" {found.rounds_per_second:.1f} rounds a second\n"
        f"cores at the limit: {stages}; bandwidth {found.bandwidth_share:.0%}",
        file=out,
    )


def check_seeds(seeds: int, first_seed: int) -> None:
    """Raises `QnetError(INVALID_PARAMETER)`."""
    if not 1 <= seeds <= SEEDS_MAX or not 0 <= first_seed < 2**63:
        raise QnetError(Code.INVALID_PARAMETER, f"seeds are 1 to {SEEDS_MAX}")


def check_validators(validators: int, least: int = 1) -> None:
    """Raises `QnetError(INVALID_PARAMETER)`."""
    if not least <= validators <= VALIDATORS_MAX:
        raise QnetError(Code.INVALID_PARAMETER, f"validators are {least} to {VALIDATORS_MAX}")


def parse_episodes(places: str) -> tuple[int, ...]:
    """ "none", or numbers separated by commas.  Raises `QnetError(INVALID_PARAMETER)`."""
    if places == "none":
        return ()
    words = [word.strip() for word in places.split(",")]
    if not all(word.isascii() and word.isdigit() and len(word) <= 6 for word in words):
        raise QnetError(Code.INVALID_PARAMETER, "episodes are none, or numbers such as 0,4,7")
    return tuple(sorted({int(word) for word in words}))


def _shrink(seed: int, config: SimConfig, as_json: bool, out: IO[str], err: IO[str]) -> int:
    """Prints the smallest failing run of a seed, and what to type to see it."""
    found = shrink(seed, config, simulate)
    if found is None:
        print(f"seed {seed} breaks nothing, so there is nothing to shrink", file=err)
        return 0
    command = command_of(seed, found.config)
    if as_json:
        values = {"command": command, "runs": found.runs, **found.result.to_json()}
        print(json.dumps(values), file=out)
    else:
        print(f"{found.result.verdict}: {found.result.reason}\n{command}", file=out)
    return 1


def summarise(results: Iterable[SimResult], wall_seconds: float) -> dict[str, Any]:
    """The counts over many runs, as `--json` prints them."""
    results = list(results)
    verdicts = Counter(result.verdict for result in results)
    fired: Counter[str] = Counter()
    attacks: Counter[str] = Counter()
    paths: Counter[str] = Counter()
    for result in results:
        fired.update(result.faults_fired)
        attacks.update(result.attacks)
        paths.update(result.paths_taken)
    return {
        "seeds": len(results),
        "passed": verdicts[Verdict.PASS],
        "diverged": verdicts[Verdict.DIVERGED],
        "no_progress": verdicts[Verdict.NO_PROGRESS],
        "invalid": verdicts[Verdict.INVALID],
        "faults_fired": dict(sorted(fired.items())),
        "attacks": dict(sorted(attacks.items())),
        "paths_taken": dict(sorted(paths.items())),
        "rounds_min": min((result.rounds for result in results), default=0),
        "commits": sum(result.commits for result in results),
        "transactions": sum(result.executed for result in results),
        "virtual_seconds": round(sum(result.virtual_seconds for result in results), 3),
        "wall_seconds": round(wall_seconds, 3),
        "failures": [
            {"seed": result.seed, "verdict": result.verdict, "reason": result.reason}
            for result in results
            if result.verdict != Verdict.PASS
        ][:FAILURES_SHOWN_MAX],
    }


def run_all(seeds: Sequence[int], config: SimConfig, processes: int | None) -> Iterator[SimResult]:
    """Results in the order of `seeds`, whoever finishes first."""
    count = min(processes or os.cpu_count() or 1, len(seeds))
    if count <= 1:
        for seed in seeds:
            yield simulate(seed, config)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        try:
            # The slowest first, so that nobody waits for one at the end.
            first = sorted(seeds, key=lambda seed: (seed % ML_DSA_EVERY != 0, seed))
            runs = {seed: pool.submit(simulate, seed, config) for seed in first}
            for seed in seeds:
                yield runs.pop(seed).result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _progress(results: Iterator[SimResult], total: int, err: IO[str]) -> Iterator[SimResult]:
    started = last = time.perf_counter()
    failed = 0
    for done, result in enumerate(results, 1):
        failed += result.verdict != Verdict.PASS
        now = time.perf_counter()
        if now - last >= PROGRESS_S:
            last = now
            print(f"{done}/{total} seeds, {failed} failed, {now - started:.0f} s", file=err)
        yield result


def _print_summary(summary: dict[str, Any], out: IO[str]) -> None:
    fired = ", ".join(f"{name} {count}" for name, count in summary["faults_fired"].items())
    print(
        f"{summary['passed']} of {summary['seeds']} seeds passed; {summary['diverged']} diverged,"
        f" {summary['no_progress']} made no progress, {summary['invalid']} do not count\n"
        f"faults fired: {fired or 'none'}\n"
        f"at least {summary['rounds_min']} rounds a run; {summary['commits']} commits and"
        f" {summary['transactions']} transactions in all; {summary['virtual_seconds']:.0f} virtual"
        f" seconds in {summary['wall_seconds']:.0f} s",
        file=out,
    )
