"""`State` against a dictionary, for any number of partitions."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.light import Account, AccountProof, key_hash, verify_account
from qnet_actors.state import State, split_sections
from qnet_actors.state.partition import CHECKPOINTS_KEPT, genesis_write_set, write_set_columns
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import ZERO_DIGEST
from tests.ledger.world import a_genesis

Values = dict[bytes, tuple[int, int, bytes]]


def write_set(values: Values) -> WriteSet:
    rows = sorted(values.items())
    return WriteSet(
        addresses=b"".join(address for address, _ in rows),
        nonces=b"".join(v[0].to_bytes(8, "little") for _, v in rows),
        balances=b"".join(v[1].to_bytes(8, "little") for _, v in rows),
        key_ids=b"".join(v[2] for _, v in rows),
    )


def columns(addresses: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(addresses), dtype=np.uint8).reshape(-1, 32)


addresses = st.integers(0, 40).map(lambda n: n.to_bytes(32, "big"))
values = st.tuples(
    st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(addresses, values, max_size=15), max_size=5), st.integers(0, 6))
def test_reads_and_roots_do_not_depend_on_partitions(blocks, depth):
    one, many, held = State(), State(1 << depth), {}
    asked = [n.to_bytes(32, "big") for n in range(42)]
    for height, changed in enumerate(blocks, 1):
        for state in (one, many):
            state.apply(height, write_set(changed))
        held.update(changed)
        for state in (one, many):
            got = state.read(columns(asked))
            rows = zip(got.nonces, got.balances, got.key_ids, strict=True)
            for address, (nonce, balance, key_id) in zip(asked, rows, strict=True):
                expected = held.get(address, (0, 0, ZERO_DIGEST))
                assert (int(nonce), int(balance), key_id.tobytes()) == expected
        if height % 2:
            assert one.root() == many.root()
    assert one.root() == many.root()
    assert len(one) == len(many) == len(held)


@pytest.mark.parametrize("partitions", [1, 2, 16, 64])
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_proofs_through_partitions(partitions, count):
    rng = random.Random(count)
    state = State(partitions)
    held = {rng.randbytes(32): (1, n + 1, ZERO_DIGEST) for n in range(count)}
    state.apply(1, write_set(held))
    expected = state.root()
    for address in [*held, *(rng.randbytes(32) for _ in range(30))]:
        root, account, proof = state.prove(address, 1)
        assert root == expected
        assert (account is not None) == (address in held)
        assert verify_account(root, address, account, proof)


def test_an_account_of_zeros_is_there_all_the_same():
    state = State()
    state.apply(1, write_set({bytes(32): (0, 0, ZERO_DIGEST)}))
    root = state.root()
    assert state.prove(bytes(32), 1) == (
        root,
        Account(0, 0, ZERO_DIGEST),
        AccountProof(b"", (), None),
    )


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.dictionaries(addresses, values, max_size=10), st.booleans()), max_size=24
    ),
    st.sampled_from([0, 1, 3]),
)
def test_proofs_under_the_last_checkpoints(made, depth):
    """Blocks go on while proofs are made under the checkpoints that were cut on the way."""
    state = State(1 << depth)
    held: dict[bytes, tuple[int, int, bytes]] = {}
    then: dict[int, tuple[bytes, dict[bytes, tuple[int, int, bytes]]]] = {}
    for height, (changed, checkpoint) in enumerate(made, 1):
        state.apply(height, write_set(changed))
        held.update(changed)
        if checkpoint:
            then[height] = (state.root(), dict(held))
    kept = list(then)[-CHECKPOINTS_KEPT:]
    for height in range(1, len(made) + 2):
        for address in (n.to_bytes(32, "big") for n in (0, 1, 2, 20, 40, 41)):
            if height not in kept:
                with pytest.raises(QnetError) as refused:
                    state.prove(address, height)
                assert refused.value.code is Code.NOT_FOUND
                continue
            root, account, proof = state.prove(address, height)
            assert root == then[height][0]
            value = then[height][1].get(address)
            assert account == (None if value is None else Account(*value))
            assert verify_account(root, address, account, proof)


def test_snapshot_restores_the_same_root():
    rng = random.Random(5)
    # Addresses that end in zeros must sort by all of their bytes.
    held = {rng.randbytes(4) + bytes(28): (1, 2, rng.randbytes(32)) for _ in range(200)}
    held[bytes(32)] = (1, 1, ZERO_DIGEST)
    state = State(4)
    state.apply(1, write_set(held))
    snapshot = state.snapshot()
    rows = [snapshot.addresses[i : i + 32] for i in range(0, len(snapshot.addresses), 32)]
    assert sorted(rows) == sorted(held)
    other = State()
    other.load(1, write_set(held))
    assert (other.root(), other.height) == (state.root(), 1)
    with pytest.raises(QnetError, match="empty state"):
        other.load(1, write_set(held))
    other.replace(7, [part for _, part in split_sections(snapshot, 16)])
    assert (other.root(), other.height) == (state.root(), 7)
    # What does not hold leaves the state as it was.
    with pytest.raises(QnetError, match="differ in length"):
        other.replace(8, [write_set({}), WriteSet(bytes(32), b"", b"", b"")])
    assert (other.root(), other.height) == (state.root(), 7)


def test_grows_past_its_first_capacity():
    held = {key_hash(n.to_bytes(4, "big")): (n, n + 1, ZERO_DIGEST) for n in range(5_000)}
    state = State()
    state.apply(1, write_set(held))
    got = state.read(columns(list(held)))
    assert got.nonces.tolist() == list(range(5_000))


@pytest.mark.parametrize(
    "bad",
    [
        WriteSet(bytes(32), bytes(8), bytes(8), b""),
        WriteSet(bytes(33), bytes(8), bytes(8), bytes(32)),
        WriteSet(bytes(32), bytes(16), bytes(8), bytes(32)),
        WriteSet(bytes(64), bytes(16), bytes(16), bytes(64)),
        WriteSet(b"\x01" * 32 + bytes(32), bytes(16), bytes(16), bytes(64)),
    ],
)
def test_write_sets_of_the_wrong_form_are_refused(bad):
    with pytest.raises(QnetError) as caught:
        write_set_columns(bad)
    assert caught.value.code is Code.DATA_CORRUPT


def test_heights_come_in_order():
    state = State()
    with pytest.raises(QnetError, match="height 2 follows 0"):
        state.apply(2, write_set({}))


@pytest.mark.parametrize("partitions", [0, 3, 128])
def test_partitions_are_a_bounded_power_of_two(partitions):
    with pytest.raises(QnetError, match="power of two"):
        State(partitions)


def test_genesis_accounts_without_balance_do_not_exist():
    genesis = a_genesis(balances={b"\x02" * 32: 5, b"\x01" * 32: 7, b"\x03" * 32: 0})
    state = State()
    state.load(0, genesis_write_set(genesis))
    assert len(state) == 2
    assert state.read(columns([b"\x01" * 32, b"\x02" * 32])).balances.tolist() == [7, 5]


@pytest.mark.parametrize("partitions", [1, 4])
def test_a_reader_sees_one_height_while_blocks_are_applied(partitions):
    asked = [key_hash(n.to_bytes(2, "big")) for n in range(200)]
    state = State(partitions)
    done = threading.Event()
    torn: list[str] = []
    heights: set[int] = set()

    def read() -> None:
        while not done.is_set():
            height, values = state.read_at(columns(asked))
            heights.add(height)
            if set(values.balances.tolist()) != {height} or set(values.nonces.tolist()) != {height}:
                torn.append(f"at {height}")

    reader = threading.Thread(target=read)
    reader.start()
    for height in range(1, 60):
        state.apply(height, write_set(dict.fromkeys(asked, (height, height, ZERO_DIGEST))))
        state.root()
    done.set()
    reader.join()
    assert not torn
    assert heights
