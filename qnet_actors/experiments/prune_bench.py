"""`qnet bench prune`: what a commit costs while old blocks are pruned, and what is left of them.

A log is filled once, with transfers of real sizes, and copied for each retention.  Once a
checkpoint is certified, pruning goes through it a segment at a time, while blocks are committed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from qnet_actors.experiments.state_bench import Milliseconds, milliseconds
from qnet_actors.experiments.state_cases import (
    Addresses,
    BenchLedger,
    Carried,
    CommitTimes,
    addresses_of,
    benchmark_genesis,
    picks_of,
)
from qnet_actors.ledger import (
    CertificateWrite,
    LogOptions,
    Retention,
    RetentionMode,
    SnapshotSettings,
)
from qnet_actors.state import split_rows
from qnet_actors.wire.blocks import Certificate, Receipt
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.transactions import (
    GAS_TRANSFER,
    TRANSACTION_VERSION,
    Body,
    Transfer,
    transaction_id,
)

_PICKS: Final = 50
_MODES: Final[tuple[RetentionMode, ...]] = ("archive", "full", "light")

Say = Callable[[str], None]


class PruneOptions(msgspec.Struct, frozen=True, kw_only=True):
    accounts: int = 50_000
    blocks: int = 1_000
    transfers: int = 500
    """Of a block; each changes two accounts."""
    commits: int = 300
    """Blocks that are timed, of each retention."""
    kept_blocks: int = 100
    segment_size_bytes: int = LogOptions().segment_size_bytes


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What one retention leaves of the same blocks, and what that costs the commits beside it."""

    mode: str
    bytes: int
    """At the end, of as many blocks: all files of the ledger, snapshots and index included."""
    blocks_pruned: int
    commit_ms: Milliseconds
    """While the log does nothing else."""
    commit_ms_pruning: Milliseconds
    p50_ratio: float
    """p50 while pruning / p50 without; 0 where nothing is pruned."""
    p99_ratio: float
    """p99 while pruning / p50 without."""


class PruneResult(msgspec.Struct, frozen=True, kw_only=True):
    blocks: int
    transfers: int
    """Of each block."""
    kept_blocks: int
    """Asked for; the blocks since the older snapshot are kept, too."""
    archive: Left
    full: Left
    light: Left


def run_prune_bench(options: PruneOptions, directory: Path, say: Say) -> PruneResult:
    """Measures in `directory`, of which it takes about 1 GB."""
    genesis = benchmark_genesis()
    addresses = addresses_of(options.accounts)
    picks = picks_of(addresses, 2 * options.transfers, _PICKS)
    carried = [_transfers(genesis, pick) for pick in picks]
    say(f"{options.blocks} blocks of {options.transfers} transfers")
    filled = directory / "filled"
    ledger = _opened(filled, genesis, options, "archive")
    ledger.fill(addresses)
    while ledger.height < options.blocks:
        at = ledger.height % _PICKS
        ledger.commit(picks[at], carried[at])
    ledger.log.flush()
    ledger.log.close()
    left = {}
    for mode in _MODES:
        say(f"commits with the retention {mode}")
        path = directory / mode
        shutil.copytree(filled, path)
        ledger = _opened(path, genesis, options, mode)
        if ledger.checkpoint is None:
            raise QnetError(Code.INTERNAL, "the blocks have no checkpoint")
        # Nobody looks at its signatures here.  Without one nothing was due for pruning.
        ledger.log.write([CertificateWrite(Certificate(ledger.checkpoint, ()))])
        ledger.log.prune()
        commits = [
            ledger.commit(picks[at % _PICKS], carried[at % _PICKS]) for at in range(options.commits)
        ]
        left[mode] = _left(ledger, path, commits, mode)
        shutil.rmtree(path)
    return PruneResult(
        blocks=options.blocks,
        transfers=options.transfers,
        kept_blocks=options.kept_blocks,
        **left,
    )


def _opened(
    path: Path, genesis: Genesis, options: PruneOptions, mode: RetentionMode
) -> BenchLedger:
    retention = Retention(mode, 0 if mode == "archive" else options.kept_blocks)
    return BenchLedger(
        path,
        genesis,
        LogOptions(segment_size_bytes=options.segment_size_bytes, retention=retention),
        SnapshotSettings(every_bytes=2 * options.segment_size_bytes),
    )


def _left(ledger: BenchLedger, path: Path, commits: list[CommitTimes], mode: str) -> Left:
    # What is due hangs on the newest snapshots, which may only now be there.
    ledger.log.flush()
    ledger.log.prune()
    ledger.log.flush()
    pruned = ledger.log.first_height() - 1
    ledger.log.close()
    idle = milliseconds(c.commit_ms for c in commits if _idle(c))
    # Beside a checkpoint or a snapshot it is those that cost.
    pruning = milliseconds(
        c.commit_ms
        for c in commits
        if c.pruning and not (c.checkpoint or c.sealing or c.snapshotting)
    )
    return Left(
        mode=mode,
        bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        blocks_pruned=pruned,
        commit_ms=idle,
        commit_ms_pruning=pruning,
        p50_ratio=_ratio(pruning.p50, idle.p50),
        p99_ratio=_ratio(pruning.p99, idle.p50),
    )


def _ratio(one: float, other: float) -> float:
    return round(one / other, 2) if other else 0.0


def _idle(commit: CommitTimes) -> bool:
    return not (commit.checkpoint or commit.sealing or commit.snapshotting or commit.pruning)


def _transfers(genesis: Genesis, keys: Addresses) -> Carried:
    """Transfers from the first half of `keys` to the second, with their receipts."""
    addresses = split_rows(keys)
    half = len(addresses) // 2
    carried = Carried([], [], [])
    for sender, payee in zip(addresses[:half], addresses[half:], strict=False):
        body = Body(
            version=TRANSACTION_VERSION,
            chain_id=genesis.chain_id(),
            sender=sender,
            key_id=sender,
            nonce=len(carried.ids),
            valid_until=0,
            gas_limit=GAS_TRANSFER,
            gas_price=1,
            access=(),
            action=Transfer(payee, 1_000),
        )
        encoded = encode(body)
        id_ = transaction_id(encoded)
        carried.ids.append(id_)
        carried.bodies.append(encoded)
        carried.receipts.append(encode(Receipt(id_, 0, GAS_TRANSFER, b"", ())))
    return carried
