"""`qnet bench execute`: transfers a second that blocks execute, by who pays whom.

Each shape runs through the ledger's `execute_block` and the state, in memory.  The first block of
each is also executed by the plain reference, and everything that comes of it must be the same.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from qnet_actors.experiments.state_cases import addresses_of
from qnet_actors.experiments.workload import SHAPES, Indices, Shape, zipf
from qnet_actors.kernels.cache import warm
from qnet_actors.ledger import OpenBatch, execute_block, execute_reference, open_batch
from qnet_actors.state import State
from qnet_actors.wire.batches import BATCH_VERSION, build_batch
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import ZERO_DIGEST
from qnet_actors.wire.schemes import Scheme
from qnet_actors.wire.transactions import GAS_TRANSFER, Body, Transaction, Transfer, Witness

_BALANCE: Final = 10**12
_SEED: Final = 2_718
_AUTHORS: Final = 4
_SIGNATURE: Final = bytes(3_309)
"""ML-DSA-65's size: whoever executes does not look at it."""

Say = Callable[[str], None]


class ExecuteOptions(msgspec.Struct, frozen=True, kw_only=True):
    accounts: int = 10_000
    blocks: int = 10
    batches: int = 4
    """Of a block."""
    rows: int = 1_000
    """Transfers of a batch."""


class ShapeResult(msgspec.Struct, frozen=True, kw_only=True):
    operations_per_second: float
    """Transfers executed, with what they change set in the state."""
    reference_per_second: float
    """The same by the plain reference, one block."""
    accounts_changed: float
    """By a block, on average."""


class ExecuteResult(msgspec.Struct, frozen=True, kw_only=True):
    accounts: int
    transfers: int
    """Of each shape."""
    uniform: ShapeResult
    """Senders in turn, payees at random."""
    zipf: ShapeResult
    """Senders and payees of rank r with a weight of 1/r."""
    hot: ShapeResult
    """Senders in turn, one payee."""


def run_execute_bench(options: ExecuteOptions, say: Say) -> ExecuteResult:
    """Raises `QnetError(INTERNAL)` where the reference comes to something else."""
    warm(lambda name, seconds: say(f"{name}: {seconds:.1f} s") if seconds > 1 else None)
    results: dict[Shape, ShapeResult] = {}
    for shape in SHAPES:
        say(f"transfers, {shape}")
        results[shape] = _measured(options, shape)
    return ExecuteResult(
        accounts=options.accounts,
        transfers=options.blocks * options.batches * options.rows,
        **results,
    )


def pairs_of(shape: Shape, accounts: int, count: int) -> tuple[Indices, Indices]:
    """(sender, payee) of as many transfers, the same in every run."""
    random = np.random.default_rng(_SEED)
    turn = np.arange(count, dtype=np.int64) % accounts
    if shape == "uniform":
        return turn, random.integers(0, accounts, count)
    if shape == "hot":
        return turn, np.zeros(count, dtype=np.int64)
    return zipf(accounts, count, _SEED), zipf(accounts, count, _SEED + 1)


def bodies_of(shape: Shape, accounts: int, count: int) -> list[Body]:
    """As many transfers, all of which can be executed in this order."""
    addresses = [row.tobytes() for row in addresses_of(accounts)]
    nonces: Counter[int] = Counter()
    bodies: list[Body] = []
    senders, payees = pairs_of(shape, accounts, count)
    for sender, payee in zip(senders.tolist(), payees.tolist(), strict=True):
        bodies.append(
            Body(
                version=BATCH_VERSION,
                chain_id=ZERO_DIGEST,
                sender=addresses[sender],
                key_id=addresses[sender],
                nonce=nonces[sender],
                valid_until=0,
                gas_limit=GAS_TRANSFER,
                gas_price=1,
                access=(),
                action=Transfer(addresses[payee], 1 + len(bodies) % 1_000),
            )
        )
        nonces[sender] += 1
    return bodies


def state_of(accounts: int) -> State:
    """That many accounts, all of them rich."""
    addresses = addresses_of(accounts)
    order = np.argsort(np.ascontiguousarray(addresses).view("S32").ravel(), kind="stable")
    state = State()
    state.load(
        0,
        WriteSet(
            addresses=addresses[order].tobytes(),
            nonces=np.zeros(accounts, dtype="<u8").tobytes(),
            balances=np.full(accounts, _BALANCE, dtype="<u8").tobytes(),
            key_ids=addresses[order].tobytes(),
        ),
    )
    return state


def _measured(options: ExecuteOptions, shape: Shape) -> ShapeResult:
    size = options.batches * options.rows
    bodies = bodies_of(shape, options.accounts, options.blocks * size)
    blocks = [bodies[start : start + size] for start in range(0, len(bodies), size)]
    opened = [_batches(block, options.rows) for block in blocks]
    rewards = [bytes([255 - number % _AUTHORS]) * 32 for number in range(options.batches)]
    reference_seconds = _compare(blocks[0], opened[0], rewards, options)
    state = state_of(options.accounts)
    changed = 0
    started = time.perf_counter()
    for height, batches in enumerate(opened, 1):
        outcome = execute_block(height, batches, rewards, state)
        if len(outcome.ids) != size or outcome.failed_count:
            raise QnetError(Code.INTERNAL, f"not all transfers of block {height} were executed")
        changed += len(outcome.write_set.nonces) // 8
        state.apply(height, outcome.write_set)
    seconds = time.perf_counter() - started
    return ShapeResult(
        operations_per_second=round(len(bodies) / seconds, 1),
        reference_per_second=round(size / reference_seconds, 1),
        accounts_changed=round(changed / len(blocks), 1),
    )


def _batches(bodies: Sequence[Body], rows: int) -> list[OpenBatch]:
    witness = Witness(int(Scheme.ML_DSA_65), _SIGNATURE, b"")
    return [
        open_batch(
            build_batch(
                [Transaction(body, witness) for body in bodies[start : start + rows]],
                chain_id=ZERO_DIGEST,
                epoch=0,
                author=number % _AUTHORS,
                shard=0,
                sequence=1 + number,
            )
        )
        for number, start in enumerate(range(0, len(bodies), rows))
    ]


def _compare(
    bodies: Sequence[Body], batches: list[OpenBatch], rewards: list[bytes], options: ExecuteOptions
) -> float:
    """The seconds that the reference takes; raises where it comes to something else."""
    parts: list[tuple[bytes, Sequence[Body]]] = [
        (reward, bodies[number * options.rows : (number + 1) * options.rows])
        for number, reward in enumerate(rewards)
    ]
    expected: Any = execute_block(1, batches, rewards, state_of(options.accounts))
    state = state_of(options.accounts)
    started = time.perf_counter()
    found = execute_reference(1, parts, state)
    seconds = time.perf_counter() - started
    if found != expected:
        raise QnetError(Code.INTERNAL, "the reference comes to something else")
    return seconds
