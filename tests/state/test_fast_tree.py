"""The tree on arrays against the tree in plain Python."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings

from qnet_actors.state.fast_tree import FastTree
from qnet_actors.state.tree import StateTree
from tests.state.test_tree import batches


def columns(rows: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 32)


@settings(max_examples=150, deadline=None)
@given(batches)
def test_roots_and_proofs_equal_the_specification(batches):
    slow, fast = StateTree(), FastTree()
    asked = [key for batch in batches for key in batch] + [bytes(32), b"\xff" * 32]
    for batch in batches:
        slow.update(list(batch.items()))
        fast.update(columns(list(batch)), columns(list(batch.values())))
        assert fast.root() == slow.root()
    held = {key for batch in batches for key in batch}
    for key in asked:
        assert fast.prove(key) == (key in held, slow.prove(key))


@settings(max_examples=150, deadline=None)
@given(batches)
def test_earlier_versions_are_proved_from_as_they_were(batches):
    slow, fast = StateTree(), FastTree(kept=3)
    asked = [key for batch in batches for key in batch] + [bytes(32), b"\xff" * 32]
    held: set[bytes] = set()
    then = [(fast.root(), {key: (False, slow.prove(key)) for key in asked})]
    for batch in batches:
        slow.update(list(batch.items()))
        fast.update(columns(list(batch)), columns(list(batch.values())))
        held |= batch.keys()
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
