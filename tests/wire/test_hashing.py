"""Hash contexts, key ids and Merkle roots."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.wire import hashing, schemes
from qnet_actors.wire.hashing import hash32, hasher, merkle_root
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme, key_id

CONTEXTS = {
    name: value
    for name, value in vars(hashing).items()
    if name.isupper() and isinstance(value, str)
}


def test_every_context_is_the_projects_and_used_once():
    assert len(set(CONTEXTS.values())) == len(CONTEXTS) > 20
    assert all(value.startswith("qnet ") and value.endswith(" v1") for value in CONTEXTS.values())


def test_every_signing_context_is_used_once_and_short_enough():
    contexts = [value for name, value in vars(schemes).items() if name.startswith("CONTEXT_")]
    assert len(set(contexts)) == len(contexts) == 5
    # FIPS 204 bounds a context at 255 bytes.
    assert all(context.startswith(b"qnet/") and len(context) < 256 for context in contexts)


@given(st.sampled_from(sorted(CONTEXTS.values())), st.lists(st.binary(max_size=200), max_size=4))
def test_a_digest_is_blake3_in_derive_key_mode(context, parts):
    expected = blake3(b"".join(parts), derive_key_context=context).digest()
    assert hash32(context, *parts) == expected
    # A hasher that was used leaves no trace in the next one.
    used = hasher(context)
    used.update(b"something")
    assert hash32(context, *parts) == expected


def plain_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1: split at the largest power of two below the number of leaves."""
    if len(leaves) == 1:
        return blake3(leaves[0], derive_key_context="leaf").digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    pair = plain_root(leaves[:split]) + plain_root(leaves[split:])
    return blake3(pair, derive_key_context="node").digest()


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=40))
def test_a_merkle_root_has_the_shape_of_rfc_6962(leaves):
    assert merkle_root("leaf", "node", leaves) == plain_root(leaves)


def test_the_root_of_nothing_is_zeros():
    assert merkle_root("leaf", "node", []) == bytes(32)


def test_key_ids_depend_on_the_scheme():
    ids = {key_id(scheme, b"k" * 32) for scheme in range(256)}
    assert len(ids) == 256
    assert key_id(2, b"k") == hash32("qnet key v1", b"\x02k")


@pytest.mark.parametrize("scheme", Scheme)
def test_every_scheme_has_sizes_within_the_bounds_of_the_types(scheme):
    sizes = SCHEME_SIZES[scheme]
    assert 0 < sizes.public_key <= 8_192
    assert 0 < sizes.signature <= 8_192
