"""The state over partitions behind frames, and the copy of its accounts, against `State`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.state import (
    AccountReplica,
    PartitionedProofs,
    PartitionedState,
    PartitionServer,
    State,
    split_sections,
)
from qnet_actors.wire.codes import Code, QnetError
from tests.state.test_partition import columns, write_set

ADDRESSES = [bytes((i,)) * 32 for i in range(40)]
values = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.just(b"\x05" * 32))
blocks = st.lists(st.dictionaries(st.sampled_from(ADDRESSES), values, max_size=12), max_size=5)


def partitioned(count: int) -> PartitionedState:
    return PartitionedState([PartitionServer() for _ in range(count)])


@settings(max_examples=40)
@given(blocks, st.sampled_from([1, 2, 4, 64]))
def test_equals_the_state_of_one_process(made, count):
    whole, split = State(), partitioned(count)
    replica = AccountReplica(0, whole.snapshot())
    for height, accounts in enumerate(made, 1):
        for state in (whole, split, replica):
            state.apply(height, write_set(accounts))
        expected = whole.read(columns(ADDRESSES))
        for state in (split, replica):
            found = state.read(columns(ADDRESSES))
            assert np.array_equal(found.nonces, expected.nonces)
            assert np.array_equal(found.balances, expected.balances)
            assert np.array_equal(found.key_ids, expected.key_ids)
        assert split.root() == whole.root()
    sections = list(split_sections(split.snapshot(), 4))
    assert sections == list(split_sections(whole.snapshot(), 4))
    replaced = partitioned(count)
    replaced.load(1, write_set({b"\x77" * 32: (1, 2, bytes(32))}))
    replaced.replace(whole.height, [part for _, part in sections])
    assert (replaced.root(), replaced.height) == (whole.root(), whole.height)
    assert split.height == whole.height == replica.height


@settings(max_examples=40)
@given(blocks, st.sampled_from([1, 2, 4, 64]))
def test_proofs_equal_those_of_one_process(made, count):
    servers = [PartitionServer() for _ in range(count)]
    whole, split, proofs = State(), PartitionedState(servers), PartitionedProofs(servers)
    for height, accounts in enumerate(made, 1):
        for state in (whole, split):
            state.apply(height, write_set(accounts))
            state.root()
    for height in range(1, len(made) + 1):
        for address in (*ADDRESSES[::7], b"\x77" * 32):
            assert proofs.prove(address, height) == whole.prove(address, height)
    with pytest.raises(QnetError) as caught:
        proofs.prove(ADDRESSES[0], len(made) + 1)
    assert caught.value.code == Code.NOT_FOUND


def test_a_new_state_empties_its_partitions():
    servers = [PartitionServer() for _ in range(2)]
    first = PartitionedState(servers)
    first.load(3, write_set({ADDRESSES[1]: (1, 2, bytes(32))}))
    with pytest.raises(QnetError) as caught:
        first.load(3, write_set({}))
    assert caught.value.code == Code.DATA_CORRUPT
    assert PartitionedState(servers).root() == State().root()


@pytest.mark.parametrize("make", [lambda: partitioned(2), lambda: AccountReplica(0, write_set({}))])
def test_heights_come_in_order(make):
    state = make()
    state.apply(1, write_set({}))
    with pytest.raises(QnetError):
        state.apply(3, write_set({}))


@pytest.mark.parametrize("count", [0, 3, 128])
def test_partitions_are_a_bounded_power_of_two(count):
    with pytest.raises(QnetError) as caught:
        partitioned(count)
    assert caught.value.code == Code.CONFIGURATION_INVALID
