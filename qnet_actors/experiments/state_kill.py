"""Kills a process in commits, checkpoints and snapshots of its block log, and looks what is left.

A child commits blocks and says the hash of each once it is durable.  It is killed with SIGKILL at a
random moment, this process opens what it left as a validator would, and the next child goes on
there.  Which accounts a block changes follows from its height, so a block that was lost before it
was acknowledged comes again with the same hash.

What SIGKILL cannot show is a loss of power: for that the flushes are counted, see `state_bench`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from qnet_actors.experiments import state_cases
from qnet_actors.experiments.state_cases import (
    BenchLedger,
    addresses_of,
    benchmark_genesis,
    picks_of,
)
from qnet_actors.ledger import LogOptions, SnapshotSettings
from qnet_actors.wire.blocks import BLOCK_HEADER_CODEC
from qnet_actors.wire.codes import Code, QnetError

ACCOUNTS: Final = 20_000
KEYS: Final = 1_000
_PICKS: Final = 16
# Small, so that most kills find something under way: a file is full after 13 blocks, and every
# fourth checkpoint is a snapshot.
_SEGMENT_BYTES: Final = 1024 * 1024
_SNAPSHOTS: Final = SnapshotSettings(every_bytes=3 * 1024 * 1024)
_ANSWER_SECONDS_MAX: Final = 120.0
_COMMITS_MAX: Final = 12
_WAITING_COMMITS_MAX: Final = 20
"""For what is aimed at; on a slow disk a log may be checkpointing all the time, or hardly ever."""
_DELAY_SECONDS_MAX: Final = 0.006

Say = Callable[[str], None]


class Acknowledged(msgspec.Struct, frozen=True):
    """A durable block, and what the log did besides when it became so."""

    height: int
    block_hash: bytes
    sealing: bool
    snapshotting: bool


class KillResult(msgspec.Struct, frozen=True, kw_only=True):
    kills: int
    during: dict[str, int]
    """What the log was last known to do when the child was killed."""
    blocks: int
    acknowledged: int
    lost: int
    """Acknowledged blocks that were gone, or another block in their place."""
    torn: int
    """Times that what was left did not open, hold together, or have the state's root."""
    faults: list[str]
    open_seconds_max: float

    @property
    def good(self) -> bool:
        return not (self.lost or self.torn)


def run_kills(
    kills: int, seed: int, directory: Path, say: Say, *, accounts: int = ACCOUNTS
) -> KillResult:
    """Kills as many children, one after the other, over one block log in `directory`."""
    choice = random.Random(seed)
    known: dict[int, bytes] = {}
    during = dict.fromkeys(("commit", "checkpoint", "snapshot"), 0)
    faults: list[str] = []
    lost = 0
    slowest = 0.0
    for number in range(kills):
        target = choice.choice(list(during))
        acknowledged = _one_life(directory, accounts, target, choice)
        known.update((one.height, one.block_hash) for one in acknowledged)
        during[_doing(acknowledged[-1])] += 1
        started = time.perf_counter()
        try:
            ledger = _open(directory)
        except QnetError as error:
            faults.append(f"after kill {number + 1}: {error.detail}")
            break
        slowest = max(slowest, time.perf_counter() - started)
        # All of them at last; until then those of this life.
        recent = known if number == kills - 1 else {a.height: a.block_hash for a in acknowledged}
        lost += _missing(ledger, recent)
        ledger.log.close()
        say(f"kill {number + 1} of {kills}: {len(known)} blocks acknowledged, {lost} lost")
    return KillResult(
        kills=sum(during.values()),
        during=during,
        blocks=max(known),
        acknowledged=len(known),
        lost=lost,
        torn=len(faults),
        faults=faults,
        open_seconds_max=round(slowest, 2),
    )


def _open(directory: Path) -> BenchLedger:
    options = LogOptions(segment_size_bytes=_SEGMENT_BYTES)
    return BenchLedger(directory, benchmark_genesis(), options, _SNAPSHOTS)


def _doing(last: Acknowledged) -> str:
    if last.snapshotting:
        return "snapshot"
    return "checkpoint" if last.sealing else "commit"


def _one_life(
    directory: Path, accounts: int, target: str, choice: random.Random
) -> list[Acknowledged]:
    """What a child acknowledged until it was killed, at a random moment of what is aimed at."""
    # Its modules and kernels are loaded once, by the process that children are forked from.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([state_cases.__name__])
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(
        target=_commit_for_ever, args=(directory, accounts, sending), daemon=True
    )
    child.start()
    sending.close()
    acknowledged: list[Acknowledged] = []
    wanted = choice.randrange(1, _COMMITS_MAX)
    delay = choice.uniform(0.0, _DELAY_SECONDS_MAX)
    try:
        while len(acknowledged) < wanted or (
            _doing(acknowledged[-1]) != target and len(acknowledged) < wanted + _WAITING_COMMITS_MAX
        ):
            if not receiving.poll(_ANSWER_SECONDS_MAX):
                raise QnetError(Code.INTERNAL, "the process that is to be killed is silent")
            acknowledged.append(_received(receiving))
        deadline = time.perf_counter() + delay
        while (left := deadline - time.perf_counter()) > 0:
            if receiving.poll(left):
                acknowledged.append(_received(receiving))
    finally:
        child.kill()
        child.join()
    # What was said before the kill counts, whether it was read by then or not.
    while receiving.poll():
        try:
            acknowledged.append(receiving.recv())
        except EOFError:
            break
    receiving.close()
    return acknowledged


def _received(receiving: Any) -> Acknowledged:
    try:
        one: Acknowledged = receiving.recv()
    except EOFError as error:
        raise QnetError(Code.INTERNAL, "the process that is to be killed ended itself") from error
    return one


def _commit_for_ever(directory: Path, accounts: int, sending: Any) -> None:
    addresses = addresses_of(accounts)
    picks = picks_of(addresses, KEYS, _PICKS)
    ledger = _open(directory)
    if not ledger.height:
        ledger.fill(addresses)
    while True:
        commit = ledger.commit(picks[ledger.height % _PICKS])
        sending.send(
            Acknowledged(ledger.height, ledger.block_hash, commit.sealing, commit.snapshotting)
        )


def _missing(ledger: BenchLedger, known: dict[int, bytes]) -> int:
    """How many of the blocks are not in the log as they were acknowledged."""
    first, last = min(known), max(known)
    # One sweep: each look-up by hash would open the segment that it leads to anew.
    headers = map(BLOCK_HEADER_CODEC.decode, ledger.log.headers(first, last - first + 1))
    found = {header.height: header.hash() for header in headers}
    return sum(found.get(height) != block_hash for height, block_hash in known.items())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="kill-state", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory(prefix="qnet-kill-") as directory:
        result = run_kills(options.kills, options.seed, Path(directory), _say)
    if options.json:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    else:
        for name in result.__struct_fields__:
            sys.stdout.write(f"{name.replace('_', ' '):<18}{getattr(result, name)}\n")
    return 0 if result.good else 1


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
