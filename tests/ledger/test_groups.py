"""Conflict groups on executors against one executor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.ledger import Executor, GroupExecution, LedgerCore, MemoryLog, recover
from qnet_actors.ledger.execute import Block, execute, open_batch
from qnet_actors.ledger.groups import groups, shares
from qnet_actors.state import PartitionedState, PartitionServer, split_sections
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.transactions import Action, MultiTransfer, Payment, Transfer
from tests.ledger.chain import chain_genesis, drive
from tests.ledger.rig import VERIFIER, Rig
from tests.ledger.test_execute import GENESIS, HEIGHT, accounts, state_of, transactions
from tests.ledger.world import a_batch, a_transaction, address, reward


def executors(count: int) -> list[Executor]:
    return [Executor() for _ in range(count)]


@settings(max_examples=150)
@given(
    st.lists(st.lists(transactions(), min_size=1, max_size=10), min_size=1, max_size=3),
    accounts,
    st.integers(1, 5),
)
def test_executors_equal_one_executor(parts, rows, count):
    batches = [open_batch(a_batch(part, author, 1)) for author, part in enumerate(parts)]
    rewards = [reward(batch.author) for batch in batches]
    split = GroupExecution(executors(count), rows_min=1)

    def outcome(run: Any) -> Any:
        try:
            return run(HEIGHT, batches, rewards, state_of(rows))
        except QnetError as error:
            return error.code

    assert outcome(split) == outcome(execute)


def test_rows_with_an_account_in_common_are_of_one_group():
    actions: list[tuple[int, Action]] = [
        (0, Transfer(address(1), 1)),
        (2, Transfer(address(3), 1)),
        (4, Transfer(address(4), 1)),
        (5, MultiTransfer((Payment(address(6), 1), Payment(address(3), 1)))),
        (1, Transfer(address(7), 1)),
    ]
    batch = open_batch(a_batch([a_transaction(GENESIS, s, 0, a) for s, a in actions]))
    rows = Block(HEIGHT, [batch], [reward(0)], state_of({})).rows
    first, second, third, fourth, fifth = groups(rows).tolist()
    assert first == fifth
    assert second == fourth
    assert len({first, second, third}) == 3


def test_a_long_chain_of_payments_is_one_group():
    chain = [a_transaction(GENESIS, n, 0, Transfer(address(n + 1), 1)) for n in range(300)]
    batch = open_batch(a_batch(chain[::2] + chain[1::2]))
    rows = Block(HEIGHT, [batch], [reward(0)], state_of({})).rows
    assert len(set(groups(rows).tolist())) == 1


def test_shares_hold_every_row_once_and_no_group_is_torn():
    group_of = np.array([7, 7, 2, 5, 2, 9, 7, 5, 11, 7])
    parts = shares(group_of, 3)
    assert sorted(row for part in parts for row in part.tolist()) == list(range(10))
    owners = [{int(group_of[row]) for row in part} for part in parts]
    assert sum(len(owned) for owned in owners) == len(set.union(*owners)) == 5


class SplitRig(Rig):
    """A ledger over partitions and executors behind frames, in this process."""

    def __init__(self, partitions: int, count: int) -> None:
        genesis = chain_genesis()
        super().__init__(genesis)
        self.log = MemoryLog()
        servers = [PartitionServer() for _ in range(partitions)]
        self.core = LedgerCore(
            genesis=genesis,
            committee=genesis.committee(),
            verifier=VERIFIER,
            recovered=recover(self.log, genesis, lambda: PartitionedState(servers)),
            log=self.log,
            run=GroupExecution(executors(count), rows_min=1),
        )
        self.carry_out(self.core.tick(0))


@pytest.mark.parametrize("partitions", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_blocks_and_roots_do_not_depend_on_partitions_and_executors(partitions, count):
    packed, split = Rig(chain_genesis()), SplitRig(partitions, count)
    drive(packed, 12)
    drive(split, 12)
    records = [(event.block_hash, event.record) for event in packed.executed]
    assert len({record.checkpoint for _, record in records if record.checkpoint}) >= 3
    assert [(event.block_hash, event.record) for event in split.executed] == records


def test_a_partitioned_ledger_recovers_what_a_packed_one_wrote():
    packed = Rig(chain_genesis())
    drive(packed, 9)
    servers = [PartitionServer() for _ in range(4)]
    recovered = recover(packed.log, packed.genesis, lambda: PartitionedState(servers))
    assert recovered.tip == packed.tip
    whole = recover(packed.log, packed.genesis).state
    sections = [list(split_sections(state.snapshot())) for state in (recovered.state, whole)]
    assert sections[0] == sections[1]
