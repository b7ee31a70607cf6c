"""From the committee of one epoch to the next: what a quorum of the old one signed for."""

from __future__ import annotations

from typing import Final

from qnet_actors.light.checkpoints import CertificateVerifier, check_certificate, check_headers
from qnet_actors.wire.blocks import BlockHeader, Certificate, WriteSet
from qnet_actors.wire.codec import Codec, Digest, Struct
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee, Members, committee_account
from qnet_actors.wire.rules import check_known, rules_account, unpack_head


class HandOff(Struct, frozen=True):
    """The end of an epoch: the certificate of its last block, and the way to the next committee.

    That block writes the digest of the next committee into the state, and its header has the digest
    of what it writes.
    """

    certificate: Certificate
    """Of the epoch's last block, by the epoch's own committee."""
    header: BlockHeader
    """Of that block."""
    write_set: WriteSet
    """All of it, since its digest is of the whole."""
    seed: Digest
    """Of the next epoch's leader schedule."""
    members: Members
    """Of the next epoch."""


HAND_OFF_CODEC: Final = Codec[HandOff](HandOff, 24 * 1024 * 1024)


def check_hand_off(
    chain_id: bytes, committee: Committee, hand_off: HandOff, verifier: CertificateVerifier
) -> Committee:
    """The committee that `committee` hands over to; CPU work.

    Raises `QnetError`: BAD_PROOF where the members are not those that the certified block names;
    BAD_CERTIFICATE; UNSUPPORTED_VERSION where the next epoch goes by a protocol version that is not
    known here, so what its blocks mean is not either.
    """
    check_headers(hand_off.certificate.checkpoint, [hand_off.header])
    if hand_off.write_set.digest() != hand_off.header.write_set_digest:
        raise QnetError(Code.BAD_PROOF, "the write set is not the block's")
    number = committee.epoch + 1
    try:
        following = Committee(hand_off.members, number, hand_off.seed)
    except QnetError as error:
        raise QnetError(Code.BAD_PROOF, "the members are no committee") from error
    if _written(hand_off.write_set, committee_account(number)) != following.digest:
        raise QnetError(Code.BAD_PROOF, f"the block does not hand over to these for epoch {number}")
    check_certificate(chain_id, committee, hand_off.certificate, verifier)
    rules = _written(hand_off.write_set, rules_account(number, 0))
    if rules is not None:
        check_known(number, unpack_head(rules)[0])
    return following


def _written(write_set: WriteSet, address: bytes) -> bytes | None:
    """The key id that a block left in an account; None where it left the account alone."""
    size = len(address)
    at = write_set.addresses.find(address)
    while at >= 0 and at % size:
        at = write_set.addresses.find(address, at + 1)
    return write_set.key_ids[at : at + size] if at >= 0 else None
