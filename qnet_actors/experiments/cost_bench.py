"""What each stage of the work costs, for `qnet sim --cost-model`, which predicts from it.

Costs are CPU time of this process, and the least of several tries counts: what else the machine
does meanwhile then matters little.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from qnet_actors.crypto import (
    BatchVerifier,
    Signer,
    choose,
    development_key,
    provider,
    simulator_provider,
)
from qnet_actors.experiments.validate_bench import ShardBench, ValidateOptions, shard_plans
from qnet_actors.kernels.cache import warm
from qnet_actors.ledger import Draft, genesis_tip, identity_of, make_block, open_batch
from qnet_actors.links import Links, PeerKey, Roster
from qnet_actors.network.development import VALIDATOR, development_genesis, development_keys
from qnet_actors.network.node import RoomKey
from qnet_actors.rooms import Core, Effect
from qnet_actors.simulator.rooms import RealRooms
from qnet_actors.simulator.simulation import SimConfig, Simulation
from qnet_actors.state import State, genesis_write_set
from qnet_actors.validators import BlockRules, Received, Scope
from qnet_actors.wire.batches import decode_batch
from qnet_actors.wire.dag import (
    DAG_VERSION,
    BlockRef,
    Commit,
    DagBlock,
    DagHeader,
    genesis_refs,
    header_digest,
)
from qnet_actors.wire.genesis import Genesis, GenesisAccount
from qnet_actors.wire.hashing import BATCH_BODIES, ZERO_DIGEST, hash32
from qnet_actors.wire.limits import BATCH_TRANSACTIONS_MAX
from qnet_actors.wire.messages import DagBlocks, Message
from qnet_actors.wire.schemes import Scheme, dag_context

TRIES: Final = 5
SMALL_ROWS: Final = 32
COMMITTEES: Final = (4, 64)
"""Between them lies what an ancestor costs."""
SIMULATED: Final = (4, 10)
"""Between them lies what a peer costs the rooms."""
MESSAGES: Final = 1_000
MESSAGE_BYTES: Final = 4_096
_BALANCE: Final = 10**15

Say = Callable[[str], None]


class Stages(msgspec.Struct, frozen=True, kw_only=True):
    """The part of `simulator.costs.StageCosts` that needs no running network."""

    verify_us: float
    admit_us: float
    hold_us: float
    hold_batch_us: float
    hash_kib_us: float
    execute_us: float
    sign_block_us: float
    check_block_us: float
    check_ancestor_us: float
    core_peer_us: float
    message_us: float


def measure_stages(senders: int, say: Say) -> Stages:
    """Measures on one thread after another; takes about half a minute."""
    warm()
    say("costs: transactions")
    verifier = choose("auto").verifier
    plan = shard_plans(ValidateOptions(senders=senders), 1)[0]
    small = shard_plans(ValidateOptions(senders=senders), 1, SMALL_ROWS)[0]
    rows = len(plan.batches) * BATCH_TRANSACTIONS_MAX
    bench = ShardBench(plan, verifier)
    batch_us = _least_us(bench.hold) / len(plan.batches)
    small_us = _least_us(ShardBench(small, verifier).hold) / len(small.batches)
    hold_us = (batch_us - small_us) / (BATCH_TRANSACTIONS_MAX - SMALL_ROWS)
    verify_us, admit_us = _least_us(bench.verify) / rows, _least_us(bench.admit) / rows
    genesis = msgspec.msgpack.decode(plan.genesis, type=Genesis)
    execute_us = _execution_us(genesis, plan.batches) / rows
    bodies = bytes(2**20)
    say("costs: blocks and messages")
    few, many = COMMITTEES
    check_few_us, check_many_us = (_check_us(size) for size in COMMITTEES)
    ancestor_us = max(0.0, (check_many_us - check_few_us) / (many - few))
    signer = Signer(development_key(VALIDATOR, 0, provider=provider("auto")), provider("auto"))
    rooms_us = [_rooms_us(size) for size in SIMULATED]
    return Stages(
        verify_us=verify_us,
        admit_us=admit_us,
        hold_us=hold_us,
        hold_batch_us=max(0.0, small_us - SMALL_ROWS * hold_us),
        hash_kib_us=_least_us(lambda: hash32(BATCH_BODIES, bodies)) / 1_024,
        execute_us=execute_us,
        # Signing takes as often as it takes: a mean, not the least.
        sign_block_us=_least_us(lambda: [signer.sign(bytes(32), b"") for _ in range(64)]) / 64,
        check_block_us=max(0.0, check_few_us - few * ancestor_us),
        check_ancestor_us=ancestor_us,
        core_peer_us=max(0.0, (rooms_us[1] - rooms_us[0]) / (SIMULATED[1] - SIMULATED[0])),
        message_us=asyncio.run(_message_us()),
    )


def _least_us(call: Callable[[], object]) -> float:
    """CPU time of `call`, all threads together."""
    call()
    times = []
    for _ in range(TRIES):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return 1e6 * min(times)


def _execution_us(genesis: Genesis, batches: Sequence[bytes]) -> float:
    """Of all batches as one block: opened, executed, encoded."""
    decoded = [decode_batch(data) for data in batches]
    senders = sorted({row.tobytes() for batch in decoded for row in batch.columns.senders})
    accounts = tuple(GenesisAccount(sender, _BALANCE) for sender in senders)
    funded = msgspec.structs.replace(genesis, accounts=accounts)
    committee = genesis.committee()
    leader = BlockRef(1, 0, ZERO_DIGEST)
    commit = Commit(0, 1, ZERO_DIGEST, genesis.timestamp_ms + 1, leader, (leader,))

    def run(state: State) -> None:
        opened = tuple(open_batch(batch) for batch in decoded)
        draft = Draft((commit,), 1, commit.digest(), commit.timestamp_ms, 0, opened)
        block, _ = make_block(
            identity_of(genesis, committee), committee, genesis_tip(genesis), draft, state
        )
        if block.excluded or block.write.record.header.failed_count:
            raise AssertionError("the benchmark's own transactions fail")

    times = []
    for _ in range(TRIES):
        state = State()
        state.load(0, genesis_write_set(funded))
        started = time.process_time()
        run(state)
        times.append(time.process_time() - started)
    return 1e6 * min(times)


def _check_us(validators: int) -> float:
    """A DAG block among those of all others, with an ancestor by each."""
    crypto = provider("auto")
    keys = development_keys(VALIDATOR, validators, crypto)
    genesis = development_genesis(keys, [])
    committee, chain_id = genesis.committee(), genesis.chain_id()
    zero = genesis_refs(committee.seed, validators)
    received = []
    for author, key in enumerate(keys[1:], 1):
        ancestors = (zero[author], *zero[:author], *zero[author + 1 :])
        header = DagHeader(DAG_VERSION, 0, 1, author, genesis.timestamp_ms, ancestors, (), ())
        signature = Signer(key, crypto).sign(header_digest(header), dag_context(chain_id))
        received.append(Received(author, DagBlock(header, signature).encoded))
    rules = BlockRules(committee, choose("auto").verifier, chain_id)
    scope = Scope(own=0, gc_round=0, round_max=10, certified_height=0)

    def check() -> None:
        if any(checked.block is None for checked in rules.check(received, scope)):
            raise AssertionError("the benchmark's own blocks do not hold")

    return _least_us(check) / len(received)


class _Timed:
    """A core whose own time is counted."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.spent_ns = 0

    def handle(self, event: Any, now_ms: int) -> Sequence[Effect]:
        started = time.thread_time_ns()
        effects = self._core.handle(event, now_ms)
        self.spent_ns += time.thread_time_ns() - started
        return effects

    def tick(self, now_ms: int) -> Sequence[Effect]:
        started = time.thread_time_ns()
        effects = self._core.tick(now_ms)
        self.spent_ns += time.thread_time_ns() - started
        return effects

    def wake_ms(self) -> int | None:
        return self._core.wake_ms()


def _rooms_us(validators: int) -> float:
    """All rooms of a validator in a round, without the work that they give to threads."""
    timed: list[_Timed] = []

    def wrap(index: int, key: RoomKey, core: Core) -> Core:
        timed.append(_Timed(core))
        return timed[-1]

    config = SimConfig(
        validators=validators,
        faults=frozenset(),
        fault_start_ms=0,
        fault_end_ms=0,
        calm_ms=3_000,
        virtual_ms_min=3_000,
        rounds_min=20,
        scheme=Scheme.KEYED_HASH,
    )
    result = Simulation(1, config, RealRooms, wrap).run()
    return sum(core.spent_ns for core in timed) / 1e3 / validators / result.rounds


async def _message_us() -> float:
    """A message of a DAG block's size, over a link between two ends in this process."""
    crypto = simulator_provider()
    keys = [development_key(VALIDATOR, i, Scheme.KEYED_HASH, crypto) for i in range(2)]
    peers = [PeerKey(key.scheme, key.public_key) for key in keys]
    ups, done = asyncio.Queue[int](), asyncio.Event()
    received = 0

    def on_message(peer: int, message: Message) -> None:
        nonlocal received
        received += 1
        if received % MESSAGES == 0:
            done.set()

    ends = [
        Links(
            Roster(peers[index], peers),
            ZERO_DIGEST,
            Signer(keys[index], crypto),
            BatchVerifier(crypto),
            on_message,
            ups.put_nowait,
        )
        for index in range(2)
    ]
    try:
        addresses = {index: await end.start("127.0.0.1") for index, end in enumerate(ends)}
        for end in ends:
            end.set_peers(addresses)
        for _ in ends:
            await asyncio.wait_for(ups.get(), 10)
        message = DagBlocks((bytes(MESSAGE_BYTES),))
        times = []
        for _ in range(TRIES):
            done.clear()
            started = time.process_time()
            for _ in range(MESSAGES):
                ends[0].send(1, message)
                await asyncio.sleep(0)
            await asyncio.wait_for(done.wait(), 30)
            times.append(time.process_time() - started)
    finally:
        for end in ends:
            await end.close()
    return 1e6 * min(times) / MESSAGES
