"""`qnet bench validate`: the mempool's own path from bytes to a held batch, and its verifier alone.

Shards are processes, each confined to a core, as in the split placement.  A shard is the real
`MempoolShard`: it is given encoded batches of other validators, carries out its jobs at once, and a
transaction counts when the shard says that its batch is held.  Its storage is memory, and its
public keys are known, as they are in a network that has run for a while.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from qnet_actors.crypto import BatchVerifier, development_key, provider
from qnet_actors.crypto.mldsa import select_kernel
from qnet_actors.crypto.mldsa.signer import DevelopmentSigner
from qnet_actors.experiments.verify_bench import ROLE, SCHEME, Columns, cache_mb_for
from qnet_actors.kernels.cache import warm
from qnet_actors.kernels.expand import expand
from qnet_actors.mempool import Holdings, MemoryBatchStore, MempoolSettings, MempoolShard, Recovered
from qnet_actors.network.development import VALIDATOR, development_genesis
from qnet_actors.network.memory import keep_freed_memory
from qnet_actors.rooms import (
    AccountColumns,
    BatchesHeld,
    Effect,
    FromPeer,
    Run,
    Submit,
    SubmitResult,
    ToRoom,
)
from qnet_actors.wire.batches import BATCH_VERSION, build_batch, decode_batch
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.limits import BATCH_TRANSACTIONS_MAX
from qnet_actors.wire.messages import Batches, PublicKey
from qnet_actors.wire.schemes import CONTEXT_TRANSACTION, key_id
from qnet_actors.wire.transactions import (
    GAS_TRANSFER,
    Body,
    Transaction,
    Transfer,
    Witness,
    transaction_id,
)

VALIDATORS: Final = 4
BATCHES_PER_SHARD: Final = 12
ROWS_PER_SUBMISSION: Final = 512
_BALANCE: Final = 10**15
_START_SECONDS_MAX: Final = 300.0

Say = Callable[[str], None]


class ValidateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `qnet bench validate` measures, and how long."""

    senders: int = 1_024
    rounds: int = 7
    cores_max: int = 2


class Share(msgspec.Struct, frozen=True):
    """Figures of as many shards as cores, a second; sums over the shards."""

    cores: int
    validated: float
    """Transactions in batches of others: bytes to batch held."""
    submitted: float
    """Transactions of clients: bytes to pool."""
    verified: float
    """Signatures of the same batches by the verifier alone, in the same processes."""
    ratio: float
    """validated / verified."""


class ValidateResult(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the rounds."""

    senders: int
    shares: list[Share]
    """One core, and all that were to be used."""
    validated_per_second: float
    """On all of them."""
    validated_per_second_core: float
    verified_per_second: float
    submitted_per_second: float
    ratio_to_verifier: float
    """validated / verified, on all cores."""
    submitted_ratio_to_verifier: float
    """submitted / verified, on all cores."""
    submitted_cores_speedup: float
    """submitted on all cores beside one."""
    cores_speedup: float
    """validated on all cores beside one."""


class ShardPlan(msgspec.Struct, frozen=True):
    """What a shard's process is sent."""

    shard: int
    shards: int
    core: int | None
    rounds: int
    senders: int
    keys: list[bytes]
    genesis: bytes
    batches: list[bytes]
    submissions: list[tuple[bytes, ...]]


def run_validate_bench(options: ValidateOptions, say: Say) -> ValidateResult:
    """Measures; raises `QnetError(PROVIDER_MISSING)` where the kernel does not work here."""
    warm(lambda name, seconds: say(f"{name}: {seconds:.1f} s") if seconds > 1 else None)
    cores = sorted(os.sched_getaffinity(0))[: options.cores_max]
    say("making and signing the transactions")
    plans = shard_plans(options, len(cores))
    shares = []
    for count in sorted({1, len(cores)}):
        say(f"{count} shard{'s' if count > 1 else ''} on as many cores")
        shares.append(
            _run_shards(
                [
                    msgspec.structs.replace(plan, shards=count, core=core)
                    for plan, core in zip(plans[:count], cores, strict=False)
                ]
            )
        )
    one, whole = shares[0], shares[-1]
    return ValidateResult(
        senders=options.senders,
        shares=shares,
        validated_per_second=whole.validated,
        validated_per_second_core=one.validated,
        verified_per_second=whole.verified,
        submitted_per_second=whole.submitted,
        ratio_to_verifier=whole.ratio,
        submitted_ratio_to_verifier=round(whole.submitted / whole.verified, 3),
        submitted_cores_speedup=round(whole.submitted / one.submitted, 2),
        cores_speedup=round(whole.validated / one.validated, 2),
    )


def shard_plans(
    options: ValidateOptions, shards: int, rows: int = BATCH_TRANSACTIONS_MAX
) -> list[ShardPlan]:
    """For each shard its own batches, by the validators 1 to 3 in turn, and submissions."""
    library = provider("auto")
    validators = [development_key(VALIDATOR, index, provider=library) for index in range(4)]
    genesis = development_genesis(validators, [])
    signer = DevelopmentSigner(ROLE, options.senders, library, genesis_is_dev=True)
    addresses = [key_id(SCHEME, key) for key in signer.public_keys]
    per_shard = BATCHES_PER_SHARD * rows
    senders = np.arange(shards * per_shard) % options.senders
    bodies = [
        Body(
            version=BATCH_VERSION,
            chain_id=genesis.chain_id(),
            sender=addresses[sender],
            key_id=addresses[sender],
            nonce=number // options.senders,
            valid_until=0,
            gas_limit=GAS_TRANSFER,
            gas_price=1,
            access=(),
            action=Transfer(addresses[(sender * 7 + 1) % options.senders], 1 + number % 1_000),
        )
        for number, sender in enumerate(senders.tolist())
    ]
    ids = b"".join(transaction_id(encode(body)) for body in bodies)
    messages = np.frombuffer(ids, dtype=np.uint8).reshape(-1, 32)
    signatures = signer.sign(senders, messages, CONTEXT_TRANSACTION)
    transactions = [
        Transaction(body, Witness(int(SCHEME), signature.tobytes(), b""))
        for body, signature in zip(bodies, signatures, strict=True)
    ]
    plans = []
    for shard in range(shards):
        own = transactions[shard * per_shard : (shard + 1) * per_shard]
        batches = [
            build_batch(
                own[number * rows : (number + 1) * rows],
                chain_id=genesis.chain_id(),
                epoch=0,
                author=1 + number % (VALIDATORS - 1),
                shard=shard,
                sequence=1 + number // (VALIDATORS - 1),
            ).encode()
            for number in range(BATCHES_PER_SHARD)
        ]
        # Nonces are in order from the first shard's first transaction only.
        wires = [encode(transaction) for transaction in transactions[:per_shard]]
        submissions = [
            tuple(wires[start : start + ROWS_PER_SUBMISSION])
            for start in range(0, per_shard, ROWS_PER_SUBMISSION)
        ]
        plans.append(
            ShardPlan(
                shard,
                shards,
                None,
                options.rounds,
                options.senders,
                signer.public_keys,
                encode(genesis),
                batches,
                submissions,
            )
        )
    return plans


def _run_shards(plans: Sequence[ShardPlan]) -> Share:
    """Runs the plans side by side, slice by slice in step, and sums up."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(plans), timeout=_START_SECONDS_MAX)
    results: Any = context.SimpleQueue()
    processes = [
        context.Process(target=_shard_process, args=(plan, barrier, results), daemon=True)
        for plan in plans
    ]
    for process in processes:
        process.start()
    found: list[dict[str, list[float]]] = []
    while len(found) < len(plans) and any(process.is_alive() for process in processes):
        if results.empty():
            time.sleep(0.05)
        else:
            found.append(results.get())
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes) or len(found) < len(plans):
        raise QnetError(Code.INTERNAL, "a shard of the benchmark failed")
    held, admitted, bare = (
        [sum(rates) for rates in zip(*(shard[name] for shard in found), strict=True)]
        for name in ("held", "admitted", "bare")
    )
    return Share(
        len(plans),
        round(statistics.median(held), 1),
        round(statistics.median(admitted), 1),
        round(statistics.median(bare), 1),
        # Of neighbours in time, so that a slow moment of the machine touches both.
        round(statistics.median(h / b for h, b in zip(held, bare, strict=True)), 3),
    )


def _shard_process(plan: ShardPlan, barrier: Any, results: Any) -> None:
    """A shard on its core: rates of each round, with all shards in step."""
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    keep_freed_memory()
    kernel, reason = select_kernel(None, cache_mb=cache_mb_for(plan.senders))
    if kernel is None:
        raise QnetError(Code.PROVIDER_MISSING, reason)
    bench = ShardBench(plan, BatchVerifier(provider("openssl"), kernel=kernel))
    work = {"held": bench.hold, "bare": bench.verify, "admitted": bench.admit}
    rates: dict[str, list[float]] = {name: [] for name in work}
    for call in work.values():
        call()
    for _ in range(plan.rounds):
        for name, call in work.items():
            barrier.wait()
            rates[name].append(call())
    results.put(rates)


class _Reader:
    """Accounts that never lack anything."""

    def read(self, addresses: np.ndarray[Any, np.dtype[np.uint8]]) -> AccountColumns:
        count = len(addresses)
        return AccountColumns(
            np.zeros(count, dtype=np.uint64),
            np.full(count, _BALANCE, dtype=np.uint64),
            np.zeros((count, 32), dtype=np.uint8),
        )


class ShardBench:
    """What is measured of one shard, as transactions a second; each time of an empty shard."""

    def __init__(self, plan: ShardPlan, verifier: BatchVerifier) -> None:
        self._plan = plan
        self._verifier = verifier
        self._genesis = msgspec.msgpack.decode(plan.genesis, type=Genesis)
        self._keys = tuple(PublicKey(int(SCHEME), key) for key in plan.keys)
        self._columns = [_columns(data, plan.keys) for data in plan.batches]

    def _shard(self) -> MempoolShard:
        return MempoolShard(
            genesis=self._genesis,
            committee=self._genesis.committee(),
            own_index=0,
            holdings=Holdings(MemoryBatchStore(), Recovered(keys=self._keys)),
            verifier=self._verifier,
            reader=_Reader(),
            shard=self._plan.shard,
            shard_count=self._plan.shards,
            settings=MempoolSettings(
                verify_rows=BATCH_TRANSACTIONS_MAX, backlog_transactions_min=2**20
            ),
        )

    def hold(self) -> float:
        """Batches of others that the shard takes in."""
        shard, held = self._shard(), 0
        started = time.perf_counter()
        for number, data in enumerate(self._plan.batches):
            peer = 1 + number % (VALIDATORS - 1)
            effects = shard.handle(FromPeer(peer, Batches((data,))), 0)
            events = [effect.event for effect in _carry_out(effects) if isinstance(effect, ToRoom)]
            held += sum(isinstance(event, BatchesHeld) for event in events)
        seconds = time.perf_counter() - started
        if held != len(self._plan.batches):
            raise QnetError(Code.INTERNAL, f"{held} of {len(self._plan.batches)} batches were held")
        return held * BATCH_TRANSACTIONS_MAX / seconds

    def admit(self) -> float:
        """Transactions of clients that enter the pool."""
        shard, admitted = self._shard(), 0
        started = time.perf_counter()
        for request, transactions in enumerate(self._plan.submissions):
            for effect in _carry_out(shard.handle(Submit(request, transactions), 0)):
                if isinstance(effect, ToRoom) and isinstance(effect.event, SubmitResult):
                    admitted += sum(code == Code.SUCCESS for code, *_ in effect.event.results)
        seconds = time.perf_counter() - started
        expected = sum(map(len, self._plan.submissions))
        if admitted != expected:
            raise QnetError(Code.INTERNAL, f"{admitted} of {expected} transactions were admitted")
        return admitted / seconds

    def verify(self) -> float:
        """The same signatures by the verifier alone."""
        started = time.perf_counter()
        for columns in self._columns:
            if not columns.verify(self._verifier).all():
                raise QnetError(Code.BAD_SIGNATURE, "the benchmark's own signatures do not verify")
        rows = len(self._columns) * BATCH_TRANSACTIONS_MAX
        return rows / (time.perf_counter() - started)


def _columns(data: bytes, keys: Sequence[bytes]) -> Columns:
    batch = decode_batch(data)
    place_of = {key_id(SCHEME, key): place for place, key in enumerate(keys)}
    places = [place_of[row.tobytes()] for row in batch.columns.key_ids]
    distinct, index = np.unique(np.array(places), return_inverse=True)
    table = [keys[place] for place in distinct.tolist()]
    return Columns(table, index, expand(batch).ids, batch.signatures)


def _carry_out(effects: Sequence[Effect]) -> list[Effect]:
    """Does the jobs among `effects`, and those that follow from them; returns all else."""
    waiting, others = deque(effects), list[Effect]()
    while waiting:
        effect = waiting.popleft()
        if isinstance(effect, Run):
            waiting.extend(effect.then(effect.call(), 0))
        else:
            others.append(effect)
    return others
