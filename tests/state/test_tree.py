"""The tree against its definition."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.light import bit, leaf_hash, node_hash
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
values = st.binary(min_size=32, max_size=32)
batches = st.lists(st.dictionaries(keys, values, max_size=12), max_size=6)


@settings(max_examples=150, deadline=None)
@given(batches)
def test_batched_updates_equal_the_definition(batches):
    tree, held = StateTree(), {}
    for batch in batches:
        tree.update(list(batch.items()))
        held.update(batch)
        assert tree.root() == by_definition(sorted(held.items()))


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
