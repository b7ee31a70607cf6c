from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.crypto import BatchVerifier, KeyPair, Signer, development_key, select_provider
from qnet_actors.validators.checks import BlockRules, Checked, Received, Scope
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee, Member
from qnet_actors.wire.dag import BlockRef, CheckpointVote, DagBlock, genesis_refs
from qnet_actors.wire.hashing import CHECKPOINT, hash32
from qnet_actors.wire.schemes import CONTEXT_CHECKPOINT, Scheme, dag_context
from tests.validators.support import (
    VERIFIER,
    batch_ref,
    genesis_blocks,
    make_block,
    make_genesis,
    sign,
    signer,
)

GENESIS = make_genesis()
COMMITTEE = GENESIS.committee()
CHAIN_ID = GENESIS.chain_id()
CONTEXT = dag_context(CHAIN_ID)
RULES = BlockRules(COMMITTEE, VERIFIER, CHAIN_ID)
ZERO = genesis_blocks(GENESIS)
ONES = [make_block(1, author, ZERO) for author in range(4)]
REFS = [block.ref for block in ONES]
SCOPE = Scope(own=9, gc_round=0, round_max=100, certified_height=0)


def check(*blocks: DagBlock, scope: Scope = SCOPE) -> list[Checked]:
    return RULES.check([Received(3, block.encoded) for block in blocks], scope)


def code(block: DagBlock, scope: Scope = SCOPE) -> Code:
    (verdict,) = check(block, scope=scope)
    assert (verdict.block is None) == (verdict.code != Code.SUCCESS)
    return verdict.code


def altered(**fields: Any) -> DagBlock:
    """A good block of round 2 with other fields, signed again."""
    return sign(msgspec.structs.replace(make_block(2, 1, REFS).header, **fields))


def test_good_blocks_are_valid_whoever_sent_them() -> None:
    verdicts = check(*ONES, make_block(2, 1, REFS, batches=[batch_ref(1), batch_ref(2)]))
    assert [verdict.code for verdict in verdicts] == [Code.SUCCESS] * 5
    assert verdicts[4].block is not None
    assert verdicts[4].received.peer == 3


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"version": 2}, Code.UNSUPPORTED_VERSION),
        ({"epoch": 1}, Code.WRONG_EPOCH),
        ({"round": 0}, Code.MALFORMED),
        ({"round": 1}, Code.BAD_ANCESTORS),
        ({"round": 3}, Code.BAD_ANCESTORS),
        ({"ancestors": ()}, Code.BAD_ANCESTORS),
        ({"ancestors": tuple(REFS)}, Code.BAD_ANCESTORS),
        ({"ancestors": (REFS[1], REFS[0])}, Code.BAD_ANCESTORS),
        ({"ancestors": (REFS[1], REFS[0], REFS[2], REFS[2])}, Code.BAD_ANCESTORS),
        ({"ancestors": (REFS[1], REFS[0], REFS[2], ZERO[2])}, Code.BAD_ANCESTORS),
        ({"ancestors": (REFS[1], REFS[0], REFS[2], BlockRef(1, 4, bytes(32)))}, Code.BAD_ANCESTORS),
        ({"ancestors": (REFS[1], REFS[0], REFS[2], BlockRef(2, 3, bytes(32)))}, Code.BAD_ANCESTORS),
        ({"ancestors": (REFS[1], REFS[0], REFS[2], BlockRef(0, 3, bytes(32)))}, Code.BAD_ANCESTORS),
        ({"batches": (batch_ref(2), batch_ref(1))}, Code.BAD_SEQUENCE),
        ({"batches": (batch_ref(1), batch_ref(1))}, Code.BAD_SEQUENCE),
        ({"batches": (batch_ref(1, shard=64),)}, Code.MALFORMED),
        (
            {"votes": (CheckpointVote(1, bytes(32), b""), CheckpointVote(1, bytes(32), b""))},
            Code.MALFORMED,
        ),
    ],
)
def test_a_block_that_breaks_a_rule_is_refused_by_its_code(
    fields: dict[str, Any], expected: Code
) -> None:
    assert code(altered(**fields)) == expected


def test_an_author_outside_the_committee_is_unknown() -> None:
    header = msgspec.structs.replace(make_block(2, 1, REFS).header, author=4)
    assert code(DagBlock(header, bytes(32))) == Code.UNKNOWN_AUTHOR


def test_two_shards_have_their_own_sequences() -> None:
    assert code(altered(batches=(batch_ref(5), batch_ref(1, shard=1)))) == Code.SUCCESS


def test_an_older_own_block_and_a_quorum_below_are_enough() -> None:
    twos = [make_block(2, author, REFS).ref for author in (0, 2, 3)]
    assert code(make_block(3, 1, [ONES[1].ref, *twos])) == Code.SUCCESS
    assert code(make_block(3, 1, [ONES[1].ref, *twos[:2]])) == Code.BAD_ANCESTORS


def test_the_quorum_is_of_stake() -> None:
    genesis = make_genesis((5, 4, 2, 1))
    rules = BlockRules(genesis.committee(), VERIFIER, genesis.chain_id())
    zero = genesis_blocks(genesis)
    for ancestors, good in ((zero[:2], True), (zero[1:], False)):
        block = make_block(1, ancestors[0].author, ancestors)
        if good:
            rules.check_form(block)
        else:
            with pytest.raises(QnetError, check=lambda e: e.code == Code.BAD_ANCESTORS):
                rules.check_form(block)


def test_a_signature_of_another_or_over_another_block_is_refused() -> None:
    good = make_block(2, 1, REFS)
    for signature in (
        signer(2).sign(good.digest, CONTEXT),
        signer(1).sign(good.digest, CONTEXT_CHECKPOINT),
        signer(1).sign(ONES[1].digest, CONTEXT),
        signer(1).sign(good.digest, dag_context(bytes(32))),
        good.signature[:-1],
        b"",
    ):
        assert code(DagBlock(good.header, signature)) == Code.BAD_SIGNATURE


def test_one_bad_block_does_not_spoil_the_others() -> None:
    good = make_block(2, 1, REFS)
    received = [
        Received(0, good.encoded),
        Received(1, good.encoded[:-1]),
        Received(2, b"\x00" * 200_000),
        Received(1, DagBlock(good.header, bytes(32)).encoded),
        Received(0, ONES[0].encoded),
    ]
    codes = [verdict.code for verdict in RULES.check(received, SCOPE)]
    assert codes == [
        Code.SUCCESS,
        Code.MALFORMED,
        Code.TOO_LARGE,
        Code.BAD_SIGNATURE,
        Code.SUCCESS,
    ]


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_any_bytes_get_a_verdict(data: bytes) -> None:
    (verdict,) = RULES.check([Received(0, data)], SCOPE)
    assert verdict.block is None
    assert verdict.code != Code.SUCCESS


@given(st.integers(0, 10**6), st.integers(1, 255))
@settings(max_examples=150)
def test_a_changed_byte_is_never_the_same_valid_block(at: int, flip: int) -> None:
    data = bytearray(make_block(2, 1, REFS, batches=[batch_ref(1)]).encoded)
    data[at % len(data)] ^= flip
    (verdict,) = RULES.check([Received(0, bytes(data))], SCOPE)
    assert verdict.block is None


def test_rounds_out_of_scope_are_not_checked_but_for_the_own_blocks() -> None:
    block = make_block(2, 1, REFS)
    for scope in (
        rescoped(SCOPE, gc_round=2),
        rescoped(SCOPE, round_max=1),
    ):
        assert code(block, scope) == Code.NOT_READY
        own = rescoped(scope, own=1)
        assert code(block, own) == Code.SUCCESS


def rescoped(scope: Scope, **fields: int) -> Scope:
    values = {name: getattr(scope, name) for name in Scope.__slots__}
    return Scope(**(values | fields))


def vote(author: int, height: int) -> CheckpointVote:
    digest = hash32(CHECKPOINT, bytes([height]))
    return CheckpointVote(height, digest, signer(author).sign(digest, CONTEXT_CHECKPOINT))


def test_good_votes_above_the_certified_height_are_returned_and_bad_ones_harm_nothing() -> None:
    votes = (vote(1, 3), vote(1, 4), vote(2, 5), vote(1, 6))
    block = make_block(2, 1, REFS, votes=votes)
    (verdict,) = check(block, scope=rescoped(SCOPE, certified_height=3))
    assert verdict.block == block
    assert [good.height for good in verdict.votes] == [4, 6]


def test_members_of_different_schemes_are_each_verified_by_their_own() -> None:
    provider = select_provider().provider
    pairs: list[KeyPair] = [
        development_key("validator", 0, Scheme.ML_DSA_65, provider),
        development_key("validator", 1, Scheme.ML_DSA_44, provider),
    ]
    members = [Member(pair.scheme, pair.public_key, 1, bytes(32)) for pair in pairs]
    committee = Committee(members, 0, bytes(32))
    with BatchVerifier(provider) as verifier:
        rules = BlockRules(committee, verifier, CHAIN_ID)
        zero = genesis_refs(committee.seed, 2)
        received = []
        for author, pair in enumerate(pairs):
            header = make_block(1, author, zero).header
            digest = DagBlock(header, b"").digest
            signature = Signer(pair, provider).sign(digest, CONTEXT)
            received.append(Received(0, DagBlock(header, signature).encoded))
        assert [v.code for v in rules.check(received, SCOPE)] == [Code.SUCCESS] * 2
        swapped = DagBlock(header, bytes(2420)).encoded
        assert rules.check([Received(0, swapped)], SCOPE)[0].code == Code.BAD_SIGNATURE
