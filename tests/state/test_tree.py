"""The tree against its definition."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.light import bit, leaf_hash, node_hash, verify_key
from qnet_actors.state.tree import Kind, StateTree, Subtree, combine
from qnet_actors.wire.hashing import ZERO_DIGEST


def by_definition(items: list[tuple[bytes, bytes]], depth: int = 0) -> Subtree:
    """The root as the design defines it, from all items at once."""
    if not items:
        return Subtree(Kind.EMPTY, ZERO_DIGEST)
    if len(items) == 1:
        return Subtree(Kind.LEAF, leaf_hash(*items[0]))
    sides = [[item for item in items if bit(item[0], depth) == side] for side in (0, 1)]
    left, right = (by_definition(side, depth + 1) for side in sides)
    return Subtree(Kind.NODE, node_hash(left.hash, right.hash))


# Keys that share long prefixes, as someone who grinds addresses could make them.
prefixed = st.builds(
    lambda prefix, tail: (bytes(prefix) + tail)[:32].ljust(32, b"\x5a"),
    st.lists(st.sampled_from([0, 0x80, 0xFF]), min_size=1, max_size=31),
    st.binary(max_size=31),
)
keys = st.one_of(st.binary(min_size=32, max_size=32), prefixed)
values = st.binary(min_size=32, max_size=32).filter(any)


def batches_over(pool: list[bytes]) -> st.SearchStrategy[list[dict[bytes, bytes]]]:
    """Updates of few keys, so that many of them change or take out what is there."""
    batch = st.dictionaries(
        st.sampled_from(pool), st.one_of(values, st.just(ZERO_DIGEST)), max_size=12
    )
    return st.lists(batch, max_size=8)


batches = st.lists(keys, min_size=1, max_size=16, unique=True).flatmap(batches_over)


def put(held: dict[bytes, bytes], batch: dict[bytes, bytes]) -> None:
    """What a dictionary holds after a batch."""
    held.update(batch)
    for key in [key for key, value in held.items() if value == ZERO_DIGEST]:
        del held[key]


@settings(max_examples=200, deadline=None)
@given(batches)
def test_batched_updates_equal_the_definition(batches):
    tree = StateTree()
    held: dict[bytes, bytes] = {}
    for batch in batches:
        tree.update(list(batch.items()))
        put(held, batch)
        assert tree.root() == by_definition(sorted(held.items()))


@settings(max_examples=60, deadline=None)
@given(batches)
def test_a_proof_shows_what_is_there_and_what_was_taken_out(batches):
    tree = StateTree()
    held: dict[bytes, bytes] = {}
    for batch in batches:
        tree.update(list(batch.items()))
        put(held, batch)
    root = tree.root().hash
    for key in {key for batch in batches for key in batch}:
        assert verify_key(root, key, held.get(key), tree.prove(key))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, values, max_size=40), st.integers(1, 4))
def test_partitions_combine_to_the_same_root(items, depth):
    parts = []
    for index in range(1 << depth):
        tree = StateTree(depth)
        tree.update([i for i in items.items() if i[0][0] >> (8 - depth) == index])
        parts.append(tree.root())
    while len(parts) > 1:
        parts = [combine(parts[i], parts[i + 1]) for i in range(0, len(parts), 2)]
    assert parts[0] == by_definition(sorted(items.items()))
