"""Each invariant, broken by hand, is found under its name."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from qnet_actors.crypto import development_key, simulator_provider
from qnet_actors.network.node import LEDGER, MEMPOOL, VALIDATOR
from qnet_actors.rooms import (
    BatchesDropped,
    BlockExecuted,
    CaughtUp,
    CheckpointCertified,
    CheckpointMade,
    CommitReady,
    CommitsExecuted,
    FetchBatches,
    StatusChanged,
)
from qnet_actors.simulator.checks import Checks
from qnet_actors.wire.blocks import (
    BLOCK_VERSION,
    BlockHeader,
    BlockRecord,
    Certificate,
    Checkpoint,
    WriteSet,
)
from qnet_actors.wire.codec import encode
from qnet_actors.wire.committee import Member
from qnet_actors.wire.dag import BlockRef, Commit, DagBlock, DagHeader
from qnet_actors.wire.genesis import Genesis, GenesisAccount, Parameters
from qnet_actors.wire.messages import DagBlocks
from qnet_actors.wire.schemes import Scheme
from qnet_actors.wire.transactions import BODY_CODEC, Body, Transfer, transaction_id
from tests.simulator.toys import Toy

ZERO = bytes(32)
KEYS = [development_key("validator", i, Scheme.KEYED_HASH, simulator_provider()) for i in range(4)]
ALICE, BOB = b"a" * 32, b"b" * 32
GENESIS = Genesis(
    version=1,
    name="test",
    development=True,
    timestamp_ms=0,
    schemes=(255,),
    parameters=Parameters(),
    members=tuple(Member(key.scheme, key.public_key, 10, key.key_id) for key in KEYS),
    accounts=(GenesisAccount(ALICE, 1_000), GenesisAccount(BOB, 0)),
)
CHAIN = GENESIS.chain_id()


@dataclass
class Case:
    notes: list[str] = field(default_factory=list)
    ended: int = 0

    def __post_init__(self) -> None:
        self.checks = Checks(
            GENESIS, lambda: 5, lambda who, what: self.notes.append(what), self.end
        )
        self.ledgers = [self.checks.watch(i, LEDGER, Toy()) for i in range(4)]
        self.validators = [self.checks.watch(i, VALIDATOR, Toy()) for i in range(4)]

    def end(self) -> None:
        self.ended += 1

    @property
    def broken(self) -> str | None:
        return self.checks.violation.invariant if self.checks.violation else None

    def commit(self, index: int, *commits: Commit) -> None:
        for commit in commits:
            self.ledgers[index].handle(CommitReady(commit, ()), 0)


def chain(count: int, salt: int = 0) -> list[Commit]:
    commits, previous = [], ZERO
    for index in range(1, count + 1):
        commit = Commit(0, index, previous, 100 * index + salt, BlockRef(index, 0, ZERO), ())
        commits.append(commit)
        previous = commit.digest()
    return commits


def body(nonce: int, amount: int = 1) -> bytes:
    return encode(Body(1, CHAIN, ALICE, ALICE, nonce, 0, 1_000, 1, (), Transfer(BOB, amount)))


def block(
    height: int,
    parent: bytes,
    bodies: list[bytes],
    rows: list[tuple[bytes, int, int]],
    **changes: Any,
) -> BlockExecuted:
    rows = sorted(rows)
    written = WriteSet(
        b"".join(row[0] for row in rows),
        np.array([row[1] for row in rows], "<u8").tobytes(),
        np.array([row[2] for row in rows], "<u8").tobytes(),
        ZERO * len(rows),
    )
    fields = {
        "version": BLOCK_VERSION,
        "chain_id": CHAIN,
        "epoch": 0,
        "height": height,
        "parent": parent,
        "commit_index": height,
        "commit_digest": ZERO,
        "timestamp_ms": 1,
        "transactions_root": ZERO,
        "receipts_root": ZERO,
        "write_set_digest": written.digest(),
        "transaction_count": len(bodies),
        "failed_count": 0,
        "gas_used": 0,
    }
    header = BlockHeader(**{**fields, **changes})
    record = BlockRecord(header, (), tuple(bodies), (), written, None)
    return BlockExecuted(record, header.hash(), (), ())


FIRST = block(1, CHAIN, [body(0)], [(ALICE, 1, 999), (BOB, 0, 1)])
SECOND = block(2, FIRST.block_hash, [body(1)], [(ALICE, 2, 998), (BOB, 0, 2)])


def test_one_history_breaks_nothing():
    case = Case()
    commits = chain(4)
    for index in range(4):
        case.commit(index, *commits)
        case.checks.delivered(index, FIRST)
        case.checks.delivered(index, SECOND)
    case.checks.restarted(2, 2, [])
    case.commit(2, *commits[1:])
    assert case.broken is None
    assert case.checks.expected.executed == {
        transaction_id(body(0)): 1,
        transaction_id(body(1)): 2,
    }
    assert case.checks.accounts.get(ALICE).balance == 998


def test_another_commit_at_an_index_is_a_fork_and_ends_the_run_once():
    case = Case()
    case.commit(0, *chain(2))
    case.commit(1, *chain(2, salt=1))
    assert case.broken == "commit_fork"
    assert case.ended == 1
    assert any("VIOLATION commit_fork" in note for note in case.notes)


def test_a_commit_that_does_not_follow_the_one_before_is_a_fork():
    case = Case()
    case.commit(0, chain(1)[0], chain(2, salt=1)[1])
    assert case.broken == "commit_fork"


def test_commits_come_one_after_the_other():
    case = Case()
    commits = chain(3)
    case.commit(0, commits[0], commits[2])
    assert case.broken == "commit_order"
    again = Case()
    again.commit(0, commits[0], commits[1], commits[1])
    assert again.broken == "commit_order"


def test_who_fell_behind_its_former_life_may_be_brought_up_by_peers():
    commits = chain(9)
    for executed, broken in ((6, None), (2, "commit_order")):
        case = Case()
        case.commit(0, *commits)
        case.commit(1, *commits[:8])
        case.checks.restarted(1, 0, [])
        case.commit(1, *commits[:2])
        # 3 to 6 come from a peer, or nobody brings them.
        case.validators[1].handle(CommitsExecuted(executed), 0)
        case.commit(1, commits[6])
        assert case.broken == broken


def test_commits_that_were_set_aside_are_not_known_any_more():
    case = Case()
    commits = chain(3)
    case.commit(1, *commits)
    case.checks.set_aside(1)
    case.checks.restarted(1, 0, [])
    case.commit(1, commits[1])
    assert case.broken == "commit_order"


def test_another_block_at_a_height_is_a_fork():
    case = Case()
    case.checks.delivered(0, FIRST)
    case.checks.delivered(1, block(1, CHAIN, [], []))
    assert case.broken == "block_fork"


def test_blocks_come_one_after_the_other():
    case = Case()
    case.checks.delivered(0, SECOND)
    assert case.broken == "block_order"


@pytest.mark.parametrize(
    ("invariant", "blocks"),
    [
        ("parent", [block(1, ZERO, [], [])]),
        ("executed_twice", [FIRST, block(2, FIRST.block_hash, [body(0)], [(ALICE, 2, 999)])]),
        ("nonce_order", [block(1, CHAIN, [body(1)], [(ALICE, 2, 1_000)])]),
        ("nonce_order", [block(1, CHAIN, [body(0)], [(ALICE, 2, 1_000)])]),
        ("nonce_order", [block(1, CHAIN, [body(0)], [])]),
        ("nonce_order", [block(1, CHAIN, [], [(ALICE, 1, 1_000)])]),
        ("supply", [block(1, CHAIN, [body(0)], [(ALICE, 1, 999), (BOB, 0, 2)])]),
    ],
)
def test_a_block_that_breaks_the_rules_is_found(invariant: str, blocks: list[BlockExecuted]):
    case = Case()
    for executed in blocks:
        case.checks.delivered(0, executed)
    assert case.broken == invariant


def checkpoint(state_root: bytes) -> Checkpoint:
    return Checkpoint(CHAIN, 3, ZERO, state_root, 3, ZERO, ZERO, 0, 1)


def test_another_state_root_at_a_checkpoint_is_found():
    case = Case()
    case.validators[0].handle(CheckpointMade(checkpoint(ZERO)), 0)
    case.validators[1].handle(CheckpointMade(checkpoint(b"x" * 32)), 0)
    assert case.broken == "state_root"


def test_a_certificate_of_something_else_is_found():
    case = Case()
    case.validators[0].handle(CheckpointMade(checkpoint(ZERO)), 0)
    case.checks.delivered(1, CheckpointCertified(Certificate(checkpoint(b"x" * 32), ())))
    assert case.broken == "certificate"


def dag_block(author: int, timestamp_ms: int) -> bytes:
    return DagBlock(DagHeader(1, 0, 3, author, timestamp_ms, (), (), ()), b"s").encoded


def test_two_own_blocks_in_a_round_are_found_in_whatever_life():
    case = Case()
    case.checks.sending(1, DagBlocks((dag_block(1, 1), dag_block(2, 1))))
    case.checks.sending(1, DagBlocks((dag_block(1, 1), dag_block(2, 2))))
    assert case.broken is None
    case.checks.restarted(1, 0, [])
    case.checks.sending(1, DagBlocks((dag_block(1, 2),)))
    assert case.broken == "double_sign"
    assert case.checks.round == 3


def test_bytes_that_do_not_decode_are_found():
    case = Case()
    case.checks.sending(0, DagBlocks((b"junk",)))
    assert case.broken == "codec"


def test_promises_are_open_until_executed_or_taken_back_by_who_made_them():
    case = Case()
    ids = (transaction_id(body(0)), b"1" * 32)
    case.checks.delivered(0, StatusChanged("batched", ids))
    case.checks.delivered(1, StatusChanged("batched", ids))
    case.checks.delivered(0, FIRST)
    assert case.checks.batched == {ids[1]: {0: 0, 1: 0}}
    case.checks.delivered(0, StatusChanged("replaced", ids))
    assert case.checks.batched == {ids[1]: {1: 0}}
    case.checks.delivered(1, StatusChanged("unpayable", ids))
    case.checks.delivered(2, StatusChanged("batched", ids[:1]))
    assert case.checks.batched == {}


def test_a_promise_of_a_former_life_is_settled_by_the_chain():
    case = Case()
    spent, open_ = b"1" * 32, b"2" * 32
    bodies = {
        spent: BODY_CODEC.decode(body(0, amount=7)),
        open_: BODY_CODEC.decode(body(1, amount=7)),
    }
    for index in (0, 1):
        case.checks.delivered(index, StatusChanged("batched", (spent, open_)))
    case.checks.delivered(0, FIRST)
    case.checks.delivered(1, FIRST)
    case.checks.restarted(1, 1, [])
    case.checks.settle_by_chain(bodies.get)
    assert case.checks.batched == {spent: {0: 0}, open_: {0: 0, 1: 0}}


def test_a_new_life_knows_what_the_last_one_said():
    case = Case()
    case.checks.delivered(0, FIRST)
    case.checks.restarted(0, 2, [SECOND.record])
    assert case.broken is None
    assert case.checks.progress[0].height == 2
    case.checks.restarted(0, 1, [])
    assert case.broken == "forgotten"


def test_the_rarer_ways_are_counted():
    case = Case()
    mempool = case.checks.watch(0, MEMPOOL, Toy())
    mempool.handle(BatchesDropped(()), 0)
    mempool.handle(FetchBatches((), 1), 0)
    case.validators[0].handle(CaughtUp(Certificate(checkpoint(ZERO), ()), ()), 0)
    assert case.checks.paths == {"BatchesDropped": 1, "FetchBatches": 1, "CaughtUp": 1}
