"""DAG blocks, commits, and what is hashed and signed of them."""

from __future__ import annotations

from hypothesis import given

from qnet_actors.wire.blocks import Checkpoint, Receipt
from qnet_actors.wire.codec import encode
from qnet_actors.wire.dag import (
    BlockRef,
    DagBlock,
    decode_dag_block,
    genesis_refs,
    header_digest,
    header_slot,
)
from qnet_actors.wire.hashing import (
    BLOCK,
    CHECKPOINT,
    COMMIT,
    DAG_BLOCK,
    DAG_CONTENT,
    RECEIPT,
    WRITE_SET,
    hash32,
)
from tests import strategies


@given(strategies.dag_headers)
def test_the_digest_is_of_the_slot_and_not_of_the_signature(header):
    one, other = DagBlock(header, b"one"), DagBlock(header, b"other")
    slot = header_slot(header)
    assert one.digest == other.digest == header_digest(header) == slot.digest()
    assert slot.digest() == hash32(DAG_BLOCK, encode(slot))
    lists = [list(header.ancestors), list(header.batches), list(header.votes)]
    assert slot.content == hash32(DAG_CONTENT, encode(lists))
    assert one == other
    assert len({one, other}) == 1
    assert one.encoded != other.encoded
    assert one.ref == BlockRef(header.round, header.author, one.digest)
    assert one != "a block"


@given(strategies.dag_blocks)
def test_a_decoded_block_keeps_its_bytes(block):
    data = block.encoded
    again = decode_dag_block(data)
    assert again.encoded == data
    assert (again.header, again.signature, again.ref) == (block.header, block.signature, block.ref)


def test_refs_are_ordered_by_round_author_digest():
    refs = [BlockRef(r, a, d * 32) for r in (0, 1) for a in (0, 1) for d in (b"a", b"b")]
    backwards = refs[::-1]
    assert sorted(backwards) == refs


def test_the_blocks_of_round_0_differ_by_author_and_seed():
    refs = genesis_refs(b"s" * 32, 4) + genesis_refs(b"t" * 32, 4)
    assert len({ref.digest for ref in refs}) == 8
    assert [ref.author for ref in refs[:4]] == [0, 1, 2, 3]
    assert {ref.round for ref in refs} == {0}


@given(strategies.commits)
def test_a_commit_is_hashed_under_its_context(commit):
    assert commit.digest() == hash32(COMMIT, encode(commit))


@given(strategies.block_records)
def test_the_parts_of_a_block_are_hashed_under_their_contexts(record):
    assert record.header.hash() == hash32(BLOCK, encode(record.header))
    assert record.write_set.digest() == hash32(WRITE_SET, encode(record.write_set))


@given(strategies.checkpoints, strategies.receipts)
def test_checkpoints_and_receipts_are_hashed_under_their_contexts(checkpoint, receipt):
    assert isinstance(checkpoint, Checkpoint)
    assert isinstance(receipt, Receipt)
    assert checkpoint.digest() == hash32(CHECKPOINT, encode(checkpoint))
    assert receipt.hash() == hash32(RECEIPT, encode(receipt))
