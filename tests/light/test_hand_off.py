"""From epoch to epoch, and whoever would lead elsewhere."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qnet_actors.light import HAND_OFF_CODEC, HandOff, LightClient, check_hand_off
from qnet_actors.wire.blocks import BlockHeader, WriteSet
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code
from qnet_actors.wire.committee import Member, committee_account
from tests.ledger.epochs import GENESIS, signed_by, told
from tests.ledger.rig import PROVIDER, VERIFIER
from tests.ledger.world import address
from tests.light.test_client import refused

CHAIN_ID = GENESIS.chain_id()


def client(epoch: int = 0) -> LightClient:
    light = LightClient(GENESIS, PROVIDER)
    for hand_off in told().hand_offs[:epoch]:
        light.follow(hand_off)
    return light


def test_a_client_follows_the_committee_from_the_genesis_on():
    light = client()
    chain = told()
    for epoch, proved in enumerate(chain.proved):
        assert light.epoch == epoch
        checkpoint, account = light.account(address(1), proved)
        assert account == proved.account
        assert (checkpoint.epoch, checkpoint.height) == (epoch, light.height)
        if epoch < len(chain.hand_offs):
            hand_off = HAND_OFF_CODEC.decode(encode(chain.hand_offs[epoch]))
            following = light.follow(hand_off)
            assert following.digest == chain.committees[epoch + 1].digest
            assert light.height == hand_off.certificate.checkpoint.height
    assert [len(committee) for committee in chain.committees] == [4, 5, 6, 5, 6]


def test_an_epoch_that_nobody_led_to_is_not_believed():
    chain = told()
    light = client()
    for proved in chain.proved[1:]:
        refused(Code.BAD_CERTIFICATE, light.account, address(1), proved)
    # No epoch can be left out either.
    for hand_off in chain.hand_offs[1:]:
        refused(Code.BAD_CERTIFICATE, light.follow, hand_off)
    assert (light.epoch, light.height) == (0, 0)


def test_certificates_of_epochs_before_hold_up_to_their_end():
    chain = told()
    light = client(4)
    for certificates in chain.certificates:
        for certificate in certificates:
            assert light.accept(certificate) == certificate.checkpoint
    assert light.height == chain.certificates[-1][-1].checkpoint.height


def forged_members(members: tuple[Member, ...]) -> list[tuple[Member, ...]]:
    richer = replace(members[0], stake=members[0].stake + 1)
    other = replace(members[0], public_key=b"\x09" * 32)
    elsewhere = replace(members[0], reward=bytes(32))
    return [
        members[:-1],
        members[::-1],
        (richer, *members[1:]),
        (other, *members[1:]),
        (elsewhere, *members[1:]),
        (*members, replace(members[0], public_key=b"\x08" * 32)),
        (members[0], *members),
        (replace(members[0], stake=0), *members[1:]),
    ]


@pytest.mark.parametrize("epoch", range(4))
def test_other_members_are_refused(epoch):
    light, hand_off = client(epoch), told().hand_offs[epoch]
    for members in forged_members(hand_off.members):
        refused(Code.BAD_PROOF, light.follow, replace(hand_off, members=members))
    refused(Code.BAD_PROOF, light.follow, replace(hand_off, seed=bytes(32)))
    assert light.epoch == epoch
    light.follow(hand_off)


def with_row(write_set: WriteSet, account: bytes, key_id: bytes) -> WriteSet:
    """A write set that leaves this key id in an account."""
    at = write_set.addresses.find(account)
    key_ids = write_set.key_ids[:at] + key_id + write_set.key_ids[at + 32 :]
    return replace(write_set, key_ids=key_ids)


def test_a_block_that_nobody_certified_hands_over_to_nobody():
    chain = told()
    light, hand_off, next_one = client(), chain.hand_offs[0], chain.hand_offs[1]
    mine = chain.committees[1].members[:1]
    digest = type(chain.committees[1])(mine, 1, bytes(32)).digest
    written = with_row(hand_off.write_set, committee_account(1), digest)
    forged = replace(hand_off, members=mine, seed=bytes(32), write_set=written)
    refused(Code.BAD_PROOF, light.follow, forged)
    header = replace(hand_off.header, write_set_digest=written.digest())
    refused(Code.BAD_PROOF, light.follow, replace(forged, header=header))
    # All of it fits, but it is signed by those who would take over.
    checkpoint = replace(hand_off.certificate.checkpoint, block_hash=header.hash())
    for committee in chain.committees[1:]:
        certificate = signed_by(committee, checkpoint)
        whole = replace(forged, header=header, certificate=certificate)
        refused(Code.BAD_CERTIFICATE, light.follow, whole)
    few = replace(hand_off.certificate, votes=hand_off.certificate.votes[:2])
    refused(Code.BAD_CERTIFICATE, light.follow, replace(hand_off, certificate=few))
    refused(Code.BAD_PROOF, light.follow, replace(hand_off, header=next_one.header))
    refused(Code.BAD_PROOF, light.follow, replace(hand_off, write_set=next_one.write_set))
    # It would hold if a quorum had signed it.
    signed = replace(forged, header=header, certificate=signed_by(chain.committees[0], checkpoint))
    assert check_hand_off(CHAIN_ID, chain.committees[0], signed, VERIFIER).members == mine


def odd(write_set: WriteSet, **changes: bytes) -> HandOff:
    """A hand-off that a quorum signed, over a write set of a form that no block has."""
    chain = told()
    hand_off = chain.hand_offs[0]
    written = replace(write_set, **changes)
    header: BlockHeader = replace(hand_off.header, write_set_digest=written.digest())
    checkpoint = replace(hand_off.certificate.checkpoint, block_hash=header.hash())
    certificate = signed_by(chain.committees[0], checkpoint)
    return replace(hand_off, header=header, certificate=certificate, write_set=written)


def test_only_a_row_of_the_account_counts():
    write_set = told().hand_offs[0].write_set
    at = write_set.addresses.find(committee_account(1))
    shifted = b"\x01" + write_set.addresses[: at + 32]
    for hand_off in (
        odd(write_set, addresses=b"", key_ids=b""),
        odd(write_set, addresses=shifted),
        odd(write_set, key_ids=b""),
        odd(write_set, key_ids=write_set.key_ids[: at + 31]),
    ):
        refused(Code.BAD_PROOF, client().follow, hand_off)
    assert client().follow(odd(write_set)).digest == told().committees[1].digest


def test_what_the_old_committee_signs_after_its_end_is_not_believed():
    chain = told()
    old, end = chain.committees[0], chain.hand_offs[0].certificate.checkpoint
    late = signed_by(old, replace(end, height=end.height + 1, state_root=b"\x01" * 32))
    light = client(1)
    refused(Code.BAD_CERTIFICATE, light.accept, late)
    early = signed_by(
        chain.committees[1],
        replace(end, epoch=1, committee=light.follow(chain.hand_offs[0]).digest),
    )
    refused(Code.BAD_CERTIFICATE, light.accept, early)
    # Whoever believed it before learns that the old committee has lied.
    light = client()
    assert light.accept(late) == late.checkpoint
    refused(Code.DIVERGED, light.follow, chain.hand_offs[0])
    assert light.epoch == 0


def test_the_same_end_again_changes_nothing_and_another_one_is_told():
    chain = told()
    light = client(2)
    assert light.follow(chain.hand_offs[0]).digest == chain.committees[1].digest
    assert light.epoch == 2
    hand_off = chain.hand_offs[0]
    mine = type(chain.committees[1])(chain.committees[1].members[:1], 1, bytes(32))
    other = odd(with_row(hand_off.write_set, committee_account(1), mine.digest))
    refused(Code.DIVERGED, light.follow, replace(other, members=mine.members, seed=bytes(32)))


def test_committees_are_kept_for_so_many_epochs(monkeypatch):
    monkeypatch.setattr("qnet_actors.light.client.EPOCHS_KEPT", 2)
    light, chain = client(4), told()
    for epoch in (3, 4):
        light.accept(chain.certificates[epoch][0])
    for epoch in (0, 1, 2):
        refused(Code.BAD_CERTIFICATE, light.accept, chain.certificates[epoch][0])
