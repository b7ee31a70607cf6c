"""`scripts/chaos`: what a network of this machine is worth under faults."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import msgspec

from qnet_actors.experiments.chaos.campaign import Options, Result, run_chaos
from qnet_actors.wire.codes import QnetError


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="no faults after this")
    parser.add_argument("--seed", type=int, default=1, help="of victims, order and times")
    parser.add_argument("--faults", default="", help="kinds, separated by commas; none: all")
    parser.add_argument("--profile", choices=("packed", "split"), default="packed")
    parser.add_argument("--shards", type=int, default=1, help="of a split validator")
    parser.add_argument("--partitions", type=int, default=1, help="of a split validator")
    parser.add_argument("--executors", type=int, default=1, help="of a split validator")
    parser.add_argument("--rate", type=float, default=60.0, help="transactions a second")
    parser.add_argument("--validators", type=int, default=4, help="of which a third may be hurt")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args()
    options = Options(
        seconds=chosen.seconds,
        seed=chosen.seed,
        kinds=tuple(filter(None, chosen.faults.split(","))),
        profile=chosen.profile,
        shards=chosen.shards,
        partitions=chosen.partitions,
        executors=chosen.executors,
        rate=chosen.rate,
        validators=chosen.validators,
    )
    try:
        # Ray prints a death of its processes to standard output, which is the result's.
        with (
            tempfile.TemporaryDirectory(prefix="qnet-chaos-") as directory,
            redirect_stdout(sys.stderr),
        ):
            result = run_chaos(options, Path(directory), _say)
    except QnetError as error:
        if chosen.json:
            document = {"error": {"code": error.code.label, "detail": error.detail}}
            _print(msgspec.json.encode(document).decode())
        _say(f"chaos: {error.code.label}: {error.detail}")
        return 1
    _print(msgspec.json.encode(result).decode() if chosen.json else _table(result))
    return 0 if result.good else 1


def _table(result: Result) -> str:
    row = "{:<18} {:>8} {:>12} {:>5} {:>10} {:>9}".format
    lines = [row("fault", "injected", "acknowledged", "lost", "service s", "whole s")]
    lines += [
        row(
            kind,
            outcome.injected,
            outcome.acknowledged_before,
            outcome.lost,
            outcome.seconds_to_service_max,
            outcome.seconds_to_recovery_max,
        )
        for kind, outcome in result.faults.items()
    ]
    roots = "equal" if result.roots_equal else "DIFFERENT"
    lines.append(f"{result.acknowledged} acknowledged, {result.lost} lost, roots {roots}")
    return "\n".join(lines)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
