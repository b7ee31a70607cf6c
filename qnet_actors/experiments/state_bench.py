"""`qnet bench state`: reads and durable writes of accounts, beside a dictionary and a keyed table.

Half of the operations read an account, half change one; a commit changes each of its keys once and
is one transaction of the block log.  Everything is done by the classes that the ledger uses: see
`state_cases`.
"""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from qnet_actors.experiments.flush_counter import FlushCounter
from qnet_actors.experiments.state_cases import (
    Addresses,
    BenchLedger,
    CommitTimes,
    KeyedTable,
    addresses_of,
    benchmark_genesis,
    dict_seconds,
    picks_of,
)
from qnet_actors.kernels.cache import warm
from qnet_actors.light import verify_account
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis

LARGE_KEYS: Final = 10_000
_PROOFS: Final = 20_000
_TREE_ROUNDS: Final = 5
_FLUSH_COMMITS: Final = 600
_FLUSH_ACCOUNTS: Final = 20_000
_PROCESS_SECONDS_MAX: Final = 600.0

Say = Callable[[str], None]


class StateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `qnet bench state` measures, and how much of it."""

    accounts: int = 1_000_000
    keys: int = 1_000
    """Changed by a commit."""
    commits: int = 2_000
    large_commits: int = 60
    """Of ten thousand keys."""
    seals: int = 10
    """Checkpoints of a full file during which commits are timed."""
    keyed_commits: int = 10


class Milliseconds(msgspec.Struct, frozen=True):
    count: int
    p50: float
    p99: float
    max: float


class Proofs(msgspec.Struct, frozen=True):
    """Sizes in bytes of encoded proofs, all of them verified."""

    mean: float
    p99: int
    max: int


class Flushes(msgspec.Struct, frozen=True):
    """Calls of fsync and fdatasync as the kernel counts them, over commits with files that fill."""

    commits: int
    per_commit: float
    """By the thread that commits."""
    files_sealed: int
    in_background: int


class Restart(msgspec.Struct, frozen=True):
    """A new process, from nothing to the state whose root was compared with the log's."""

    seconds: float
    start_seconds: float
    """Of them, until Python, its modules and the compiled kernels are loaded."""
    open_seconds: float
    recover_seconds: float
    blocks_replayed: int


class StateResult(msgspec.Struct, frozen=True, kw_only=True):
    accounts: int
    partitions: int
    keys_per_commit: int
    operations_per_second: float
    """Reads and durable writes together, with the root of a block in ten and a snapshot."""
    operations_per_second_large: float
    """The same with ten thousand keys a commit."""
    dict_operations_per_second: float
    """A dictionary in memory that nothing keeps."""
    ratio_to_dict: float
    duckdb_operations_per_second: float
    """A DuckDB table with a primary key."""
    ratio_to_duckdb: float
    tree_us_per_key: float
    """The tree brought up to date over ten thousand changed accounts."""
    commit_ms: Milliseconds
    """A block without a root, from keys to durable, while the log does nothing else."""
    commit_ms_checkpoint: Milliseconds
    """The same while the database checkpoints a full file."""
    checkpoint_ratio: float
    """p99 during a checkpoint / p50 without one."""
    commit_ms_snapshot: Milliseconds
    """The same while a snapshot of all accounts is written."""
    write_ms: Milliseconds
    """The part of `commit_ms` from the executed block until it is durable."""
    write_ms_checkpoint: Milliseconds
    root_ms: Milliseconds
    """Executing a block of which the state root is made, one in ten."""
    proof_bytes: Proofs
    """Of accounts that exist."""
    exclusion_proof_bytes: Proofs
    flushes: Flushes | None
    """None: the kernel does not let them be counted here."""
    restart: Restart


def run_state_bench(options: StateOptions, directory: Path, say: Say) -> StateResult:
    """Measures in `directory`, of which it takes about 1.5 GB."""
    warm(lambda name, seconds: say(f"{name}: {seconds:.1f} s") if seconds > 1 else None)
    genesis = benchmark_genesis()
    addresses = addresses_of(options.accounts)
    say(f"making {options.accounts} accounts")
    ledger = BenchLedger(directory / "ledger", genesis)
    ledger.fill(addresses)

    say(f"{options.commits} commits of {options.keys} keys")
    picks = picks_of(addresses, options.keys, options.commits)
    seconds, commits = _timed(ledger, picks)
    say(f"{options.large_commits} commits of {LARGE_KEYS} keys")
    large = picks_of(addresses, LARGE_KEYS, options.large_commits)
    large_seconds, _ = _timed(ledger, large)
    say(f"commits while {options.seals} full files are checkpointed")
    during = _during_seals(ledger, picks, options.seals)
    tree = [_tree_us(ledger, pick) for pick in picks_of(addresses, LARGE_KEYS, _TREE_ROUNDS)]
    say("proofs")
    included, excluded = _proofs(ledger, addresses)
    ledger.log.close()
    root, height = ledger.root, ledger.height
    del ledger
    say("a restart in a new process")
    restart = _restart(directory / "ledger", genesis, (height, root))

    say("a dictionary, and a table with a primary key")
    dict_rate = _rate(picks, dict_seconds(addresses, picks))
    table = KeyedTable(directory, addresses)
    keyed = picks[: options.keyed_commits]
    keyed_rate = _rate(keyed, table.seconds(keyed))
    table.close()
    say("counting the flushes of a process")
    flushes = _in_process(_count_flushes, directory / "flushes", genesis)

    rate = _rate(picks, seconds)
    whole = [c for c in (*commits, *during) if not c.checkpoint]
    idle = [c for c in whole if not (c.sealing or c.snapshotting)]
    sealing = [c for c in whole if c.sealing and not c.snapshotting]
    idle_ms, sealing_ms = (milliseconds(c.commit_ms for c in of) for of in (idle, sealing))
    return StateResult(
        accounts=options.accounts,
        partitions=1,
        keys_per_commit=options.keys,
        operations_per_second=rate,
        operations_per_second_large=_rate(large, large_seconds),
        dict_operations_per_second=dict_rate,
        ratio_to_dict=round(rate / dict_rate, 3),
        duckdb_operations_per_second=keyed_rate,
        ratio_to_duckdb=round(rate / keyed_rate, 1),
        tree_us_per_key=round(statistics.median(tree), 2),
        commit_ms=idle_ms,
        commit_ms_checkpoint=sealing_ms,
        checkpoint_ratio=round(sealing_ms.p99 / idle_ms.p50, 2) if idle_ms.count else 0.0,
        commit_ms_snapshot=milliseconds(c.commit_ms for c in whole if c.snapshotting),
        write_ms=milliseconds(c.write_ms for c in idle),
        write_ms_checkpoint=milliseconds(c.write_ms for c in sealing),
        root_ms=milliseconds(c.execute_ms for c in (*commits, *during) if c.checkpoint),
        proof_bytes=included,
        exclusion_proof_bytes=excluded,
        flushes=flushes,
        restart=restart,
    )


def _timed(ledger: BenchLedger, picks: Sequence[Addresses]) -> tuple[float, list[CommitTimes]]:
    gc.collect()
    started = time.perf_counter()
    commits = [ledger.commit(keys) for keys in picks]
    return time.perf_counter() - started, commits


def _during_seals(ledger: BenchLedger, picks: Sequence[Addresses], seals: int) -> list[CommitTimes]:
    """Commits, one after the other, until so many files were checkpointed meanwhile."""
    commits: list[CommitTimes] = []
    done, before = 0, False
    while done < seals:
        commits.append(ledger.commit(picks[len(commits) % len(picks)]))
        alone = commits[-1].sealing and not commits[-1].snapshotting
        done += alone and not before
        before = alone
    return commits


def _tree_us(ledger: BenchLedger, keys: Addresses) -> float:
    """Microseconds a key of the root over accounts that a block has just changed."""
    ledger.state.root()
    ledger.change(keys)
    started = time.perf_counter()
    ledger.state.root()
    return 1e6 * (time.perf_counter() - started) / len(keys)


def _proofs(ledger: BenchLedger, addresses: Addresses) -> tuple[Proofs, Proofs]:
    """Sizes of proofs of accounts that exist, and of some that do not."""
    ledger.state.root()
    present = addresses[:: max(1, len(addresses) // _PROOFS)]
    absent = ~present
    return _proof_sizes(ledger, present, True), _proof_sizes(ledger, absent, False)


def _proof_sizes(ledger: BenchLedger, addresses: Addresses, exists: bool) -> Proofs:
    sizes = []
    for row in addresses:
        address = row.tobytes()
        root, account, proof = ledger.state.prove(address, ledger.state.height)
        if (account is not None) != exists or not verify_account(root, address, account, proof):
            raise QnetError(Code.INTERNAL, f"the proof of {address.hex()} does not verify")
        sizes.append(len(encode(proof)))
    ordered = np.sort(sizes)
    return Proofs(
        round(float(ordered.mean()), 1), int(np.percentile(ordered, 99)), int(ordered[-1])
    )


def _restart(directory: Path, genesis: Genesis, expected: tuple[int, bytes]) -> Restart:
    started = time.time()
    restart: Restart = _in_process(_reopen, directory, genesis, started, expected)
    return restart


def _reopen(
    directory: Path, genesis: Genesis, started: float, expected: tuple[int, bytes]
) -> Restart:
    """What a node does before it takes part again."""
    from qnet_actors.ledger import DuckLog, LogOptions, recover

    warm()
    ready = time.time()
    log = DuckLog(directory, genesis.chain_id(), LogOptions())
    opened = time.time()
    recovered = recover(log, genesis)
    done = time.time()
    found = recovered.checkpoint and recovered.checkpoint.state_root
    if (recovered.tip.height, found) != expected:
        raise QnetError(Code.DATA_CORRUPT, "the restarted state is not what was left")
    replayed = recovered.tip.height - max(log.snapshot_heights(), default=0)
    log.close()
    return Restart(
        round(done - started, 2),
        round(ready - started, 2),
        round(opened - ready, 2),
        round(done - opened, 2),
        replayed,
    )


def _count_flushes(directory: Path, genesis: Genesis) -> Flushes | None:
    """Counts the flushes of commits, small ones, until files were full more than once."""
    addresses = addresses_of(_FLUSH_ACCOUNTS)
    try:
        counter = FlushCounter()
    except OSError:
        return None
    ledger = BenchLedger(directory, genesis)
    ledger.fill(addresses)
    before = counter.by_thread.copy()
    sealed, sealing = 0, False
    for keys in picks_of(addresses, 1_000, _FLUSH_COMMITS):
        commit = ledger.commit(keys)
        sealed += commit.sealing and not sealing
        sealing = commit.sealing
    ledger.log.flush()
    flushes = counter.by_thread - before
    ledger.log.close()
    own = flushes.pop(threading.get_native_id())
    return Flushes(_FLUSH_COMMITS, own / _FLUSH_COMMITS, sealed, flushes.total())


def _in_process(call: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call in a new process."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sending, call, arguments), daemon=True)
    process.start()
    sending.close()
    try:
        if not receiving.poll(_PROCESS_SECONDS_MAX):
            raise QnetError(Code.INTERNAL, f"{call.__name__} takes too long")
        return receiving.recv()
    except EOFError as error:
        raise QnetError(Code.INTERNAL, f"the process of {call.__name__} failed") from error
    finally:
        process.kill()
        process.join()


def _answer(sending: Any, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    sending.send(call(*arguments))


def _rate(picks: Sequence[Addresses], seconds: float) -> float:
    """Operations a second: every key is read once and written once."""
    return round(2 * sum(map(len, picks)) / seconds, 1)


def milliseconds(values: Iterable[float]) -> Milliseconds:
    """Of durations in milliseconds; zeros where there are none."""
    ordered = np.sort(list(values))
    if not len(ordered):
        return Milliseconds(0, 0.0, 0.0, 0.0)
    p50, p99, top = (round(float(np.percentile(ordered, share)), 2) for share in (50, 99, 100))
    return Milliseconds(len(ordered), p50, p99, top)
