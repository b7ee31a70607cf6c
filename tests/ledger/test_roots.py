"""The roots of a block against the definition in `wire`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.ledger.roots import fast_merkle_root, receipts_root, transactions_root
from qnet_actors.wire.hashing import (
    RECEIPTS_LEAF,
    RECEIPTS_NODE,
    TRANSACTIONS_LEAF,
    TRANSACTIONS_NODE,
    merkle_root,
)

leaves = st.one_of(
    st.binary(max_size=70), st.binary(min_size=60, max_size=68), st.binary(min_size=300)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(leaves, max_size=70))
def test_roots_equal_the_definition(leaves):
    assert receipts_root(leaves) == merkle_root(RECEIPTS_LEAF, RECEIPTS_NODE, leaves)
    expected = merkle_root(TRANSACTIONS_LEAF, TRANSACTIONS_NODE, leaves)
    assert transactions_root(leaves) == expected
    assert fast_merkle_root(TRANSACTIONS_LEAF, TRANSACTIONS_NODE, leaves) == expected


def test_every_number_of_leaves():
    ids = [n.to_bytes(32, "big") for n in range(70)]
    for count in range(71):
        expected = merkle_root(TRANSACTIONS_LEAF, TRANSACTIONS_NODE, ids[:count])
        assert transactions_root(ids[:count]) == expected
