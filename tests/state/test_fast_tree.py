"""The tree on arrays against the tree in plain Python."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings

from qnet_actors.state.fast_tree import FastTree
from qnet_actors.state.tree import StateTree
from qnet_actors.wire.hashing import ZERO_DIGEST
from tests.state.test_tree import batches, put


def columns(rows: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 32)


@settings(max_examples=150, deadline=None)
@given(batches)
def test_roots_and_proofs_equal_the_specification(batches):
    slow, fast = StateTree(), FastTree()
    held: dict[bytes, bytes] = {}
    asked = [key for batch in batches for key in batch] + [bytes(32), b"\xff" * 32]
    for batch in batches:
        slow.update(list(batch.items()))
        fast.update(columns(list(batch)), columns(list(batch.values())))
        put(held, batch)
        assert fast.root() == slow.root()
    for key in asked:
        assert fast.prove(key) == (key in held, slow.prove(key))


@settings(max_examples=150, deadline=None)
@given(batches)
def test_earlier_versions_are_proved_from_as_they_were(batches):
    slow, fast = StateTree(), FastTree(kept=3)
    asked = [key for batch in batches for key in batch] + [bytes(32), b"\xff" * 32]
    held: dict[bytes, bytes] = {}
    then = [(fast.root(), {key: (False, slow.prove(key)) for key in asked})]
    for batch in batches:
        slow.update(list(batch.items()))
        fast.update(columns(list(batch)), columns(list(batch.values())))
        put(held, batch)
        if batch:
            then.append((fast.root(), {key: (key in held, slow.prove(key)) for key in asked}))
    assert fast.version == len(then) - 1
    for version, (root, proofs) in enumerate(then):
        if version < fast.version - 3:
            with pytest.raises(LookupError):
                fast.root(version)
            with pytest.raises(LookupError):
                fast.prove(bytes(32), version)
            continue
        assert fast.root(version) == root
        assert {key: fast.prove(key, version) for key in asked} == proofs
    with pytest.raises(LookupError):
        fast.root(fast.version + 1)


def test_grows_through_deep_chains():
    """Keys that share nearly all of their bits take hundreds of nodes each."""
    rng = random.Random(3)
    slow, fast = StateTree(), FastTree()
    for step in range(12):
        shared = rng.randbytes(31)
        items = {shared + bytes((n,)): rng.randbytes(32) for n in range(rng.randrange(1, 90))}
        items |= {rng.randbytes(32): rng.randbytes(32) for _ in range(150)}
        slow.update(list(items.items()))
        fast.update(columns(list(items)), columns(list(items.values())))
        assert fast.root() == slow.root(), step


def test_prefixes_of_partitions():
    rng = random.Random(4)
    for depth in range(1, 7):
        slow, fast = StateTree(depth), FastTree(depth)
        for _ in range(3):
            top = (0b101101 >> (6 - depth)) << (8 - depth)
            items = {
                bytes((top | rng.randrange(1 << (8 - depth)),)) + rng.randbytes(31): rng.randbytes(
                    32
                )
                for _ in range(60)
            }
            slow.update(list(items.items()))
            fast.update(columns(list(items)), columns(list(items.values())))
            assert fast.root() == slow.root()


@pytest.mark.parametrize("kept", [0, 3])
def test_what_is_taken_out_makes_room(kept):
    """A tree that grows, goes down to nothing and grows again takes no more memory than once."""
    rng = random.Random(6)
    # Chains of inner nodes among them, which go with the last but one key.
    items = {bytes(30) + n.to_bytes(2): rng.randbytes(32) for n in range(60)}
    items |= {rng.randbytes(32): rng.randbytes(32) for _ in range(700)}
    slow, fast = StateTree(), FastTree(kept=kept)
    made = []
    gone = rng.sample(list(items), len(items))
    for _ in range(8):
        for order in (list(items.items()), [(key, ZERO_DIGEST) for key in gone]):
            for part in (order[:300], order[300:301], order[301:]):
                slow.update(part)
                fast.update(columns([key for key, _ in part]), columns([v for _, v in part]))
                assert fast.root() == slow.root()
        assert fast.root().hash == ZERO_DIGEST
        made.append(fast.nodes)
    # With three trees kept, what one round takes out waits until the next has grown.
    assert made[0] >= 2 * len(items) - 1
    assert len(set(made[1:])) == 1
    assert made[-1] <= (2 if kept else 1) * made[0]


def test_taking_out_what_is_not_there_changes_nothing():
    rng = random.Random(7)
    keys = [rng.randbytes(32) for _ in range(50)]
    tree = FastTree(kept=1)
    absent = [key[:31] + bytes((key[31] ^ 1,)) for key in keys] + [rng.randbytes(32)]
    tree.update(columns(absent), columns([ZERO_DIGEST] * len(absent)))
    assert (tree.nodes, tree.root().hash) == (0, ZERO_DIGEST)
    tree.update(columns(keys), columns(keys))
    root, made = tree.root(), tree.nodes
    tree.update(columns(absent), columns([ZERO_DIGEST] * len(absent)))
    assert (tree.nodes, tree.root(), tree.root(tree.version - 1)) == (made, root, root)


def test_takes_out_thousands_at_once():
    rng = random.Random(8)
    shared = rng.randbytes(31)
    items = {shared + bytes((n,)): rng.randbytes(32) for n in range(256)}
    items |= {rng.randbytes(32): rng.randbytes(32) for _ in range(3_000)}
    slow, fast = StateTree(), FastTree(kept=2)
    slow.update(list(items.items()))
    fast.update(columns(list(items)), columns(list(items.values())))
    before = {key: fast.prove(key) for key in list(items)[:300]}
    left = rng.sample(list(items), 2)
    gone = dict.fromkeys((key for key in items if key not in left), ZERO_DIGEST)
    slow.update(list(gone.items()))
    fast.update(columns(list(gone)), columns(list(gone.values())))
    assert fast.root() == slow.root()
    for key in items:
        assert fast.prove(key) == (key in left, slow.prove(key))
    assert {key: fast.prove(key, 1) for key in before} == before
