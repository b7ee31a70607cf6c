"""`scripts/seeds`: many seeds in as many sittings as it takes, with a journal of what is done.

The journal is a file of JSON lines, one result a line.  A line that was cut short is dropped.  What
a seed does depends on the program, so each line bears the digest of the program that ran it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Final

from blake3 import blake3

from qnet_actors.simulator.command import (
    FAILURES_SHOWN_MAX,
    check_seeds,
    check_validators,
    run_all,
)
from qnet_actors.simulator.faults import parse_faults
from qnet_actors.simulator.result import SimResult, Verdict
from qnet_actors.simulator.simulation import SimConfig
from qnet_actors.wire.codes import Code, QnetError

CHUNK: Final = 64
"""Seeds handed to the processes at once; between chunks a shorter list is made."""
PROGRESS_S: Final = 60.0
_FIELDS: Final = (
    "seed",
    "verdict",
    "reason",
    "rounds",
    "commits",
    "executed",
    "virtual_seconds",
    "faults_fired",
    "attacks",
    "paths_taken",
    "scheme",
    "trace_digest",
)


def program_digest() -> str:
    """Names the sources of the package: 16 hex digits of their hash."""
    root = Path(__file__).resolve().parent.parent
    hasher = blake3()
    for path in sorted(root.rglob("*.py")):
        data = path.read_bytes()
        hasher.update(f"{path.relative_to(root).as_posix()} {len(data)} ".encode() + data)
    return hasher.hexdigest()[:16]


class SeedJournal:
    """The newest result of each seed, on disk.  One process writes at a time."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Raises `QnetError(INVALID_PARAMETER)` where the file is of other settings."""
        self.results: dict[int, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        self._file.seek(0)
        end = 0
        head: dict[str, Any] | None = None
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            end += len(line)
            value = json.loads(line)
            if head is None:
                head = value
            else:
                self.results[value["seed"]] = value
        self._file.truncate(end)
        if head is None:
            self._write(settings)
        elif head != settings:
            self._file.close()
            raise QnetError(
                Code.INVALID_PARAMETER,
                f"{path} is a journal of {head}: name another with --journal",
            )

    def passed(self, seed: int) -> bool:
        """Whether the seed is done; one that failed is run again."""
        return self.results.get(seed, {}).get("verdict") == Verdict.PASS

    def add(self, result: SimResult, program: str) -> None:
        """Keeps a result; it is durable when this returns."""
        values = result.to_json()
        line = {"program": program, **{name: values[name] for name in _FIELDS}}
        self.results[result.seed] = line
        self._write(line)

    def close(self) -> None:
        self._file.close()

    def _write(self, value: dict[str, Any]) -> None:
        self._file.write(json.dumps(value).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def summarise_journal(seeds: Sequence[int], results: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Counts over the seeds that were asked for and have a result."""
    done = [results[seed] for seed in seeds if seed in results]
    failed = [line for line in done if line["verdict"] != Verdict.PASS]
    return {
        "seeds": len(seeds),
        "done": len(done),
        "passed": len(done) - len(failed),
        "verdicts": dict(sorted(Counter(line["verdict"] for line in done).items())),
        "programs": dict(sorted(Counter(line["program"] for line in done).items())),
        "faults_fired": _added(line["faults_fired"] for line in done),
        "attacks": _added(line["attacks"] for line in done),
        "paths_taken": _added(line["paths_taken"] for line in done),
        "rounds_min": min((line["rounds"] for line in done), default=0),
        "commits": sum(line["commits"] for line in done),
        "transactions": sum(line["executed"] for line in done),
        "virtual_seconds": round(sum(line["virtual_seconds"] for line in done), 3),
        "failures": [
            {name: line[name] for name in ("seed", "verdict", "reason")} for line in failed
        ][:FAILURES_SHOWN_MAX],
    }


def run_seeds(
    *,
    journal: Path,
    seeds: int = 2_000,
    first_seed: int = 1,
    validators: int = 4,
    faults: str = "all",
    seconds: float | None = None,
    processes: int | None = None,
    out: IO[str],
    err: IO[str],
) -> int:
    """Runs what the journal lacks, for at most about `seconds`, and prints a summary as JSON.

    Returns 0 where all seeds passed, 1 where one failed, 3 where some are still to be run.
    Raises `QnetError(INVALID_PARAMETER)`.
    """
    check_seeds(seeds, first_seed)
    check_validators(validators)
    enabled = parse_faults(faults)
    config = SimConfig(validators=validators, faults=enabled)
    settings = {"validators": validators, "faults": sorted(enabled)}
    book, program = SeedJournal(journal, settings), program_digest()
    wanted = range(first_seed, first_seed + seeds)
    todo = [seed for seed in wanted if not book.passed(seed)]
    started = told = time.monotonic()
    try:
        for start in range(0, len(todo), CHUNK):
            if seconds is not None and time.monotonic() - started >= seconds:
                break
            for result in run_all(todo[start : start + CHUNK], config, processes):
                book.add(result, program)
                if result.verdict != Verdict.PASS:
                    print(f"seed {result.seed}: {result.verdict}: {result.reason}", file=err)
                if time.monotonic() - told >= PROGRESS_S:
                    told = time.monotonic()
                    print(f"{sum(map(book.passed, wanted))}/{seeds} seeds passed", file=err)
    finally:
        book.close()
    summary = summarise_journal(wanted, book.results)
    print(json.dumps(summary), file=out)
    if summary["passed"] < summary["done"]:
        return 1
    return 0 if summary["done"] == seeds else 3


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of `scripts/seeds`."""
    parser = argparse.ArgumentParser(prog="scripts/seeds", description=run_seeds.__doc__)
    parser.add_argument("--journal", type=Path, default=Path("results/seeds.jsonl"))
    parser.add_argument("--seeds", type=int, default=2_000)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--validators", type=int, default=4)
    parser.add_argument("--faults", default="all")
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--processes", type=int, default=None)
    given = parser.parse_args(arguments)
    try:
        return run_seeds(
            journal=given.journal,
            seeds=given.seeds,
            first_seed=given.first,
            validators=given.validators,
            faults=given.faults,
            seconds=given.seconds,
            processes=given.processes,
            out=sys.stdout,
            err=sys.stderr,
        )
    except QnetError as error:
        sys.stderr.write(f"scripts/seeds: {error}\n")
        return 2


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


if __name__ == "__main__":
    raise SystemExit(main())
