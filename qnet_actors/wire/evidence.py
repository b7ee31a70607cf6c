"""Proof that a validator signed two DAG blocks for one slot."""

from __future__ import annotations

from qnet_actors.wire.codec import Struct
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.dag import DagBlock, Signature, Slot, header_slot


class SignedSlot(Struct, frozen=True):
    """What is left of a block where only its slot and its signature count."""

    slot: Slot
    signature: Signature


class Equivocation(Struct, frozen=True):
    """Two slots with different contents and good signatures of one author; the lower digest first.

    Its author proves it against itself: nothing but the author's public key and the chain id, which
    the signatures bind, is needed to check it.
    """

    first: SignedSlot
    second: SignedSlot

    @property
    def epoch(self) -> int:
        return self.first.slot.epoch

    @property
    def round(self) -> int:
        return self.first.slot.round

    @property
    def author(self) -> int:
        return self.first.slot.author

    def rows(self) -> list[tuple[bytes, bytes]]:
        """(message, signature) of both, to be verified under `schemes.dag_context`."""
        return [(signed.slot.digest(), signed.signature) for signed in (self.first, self.second)]


def equivocation_of(one: DagBlock, other: DagBlock) -> Equivocation:
    """The proof in two signed blocks of one slot."""
    first, second = sorted((one, other), key=lambda block: block.digest)
    return Equivocation(
        SignedSlot(header_slot(first.header), first.signature),
        SignedSlot(header_slot(second.header), second.signature),
    )


def check_equivocation(equivocation: Equivocation) -> None:
    """Holds a proof to its form: all but the signatures.

    Raises `QnetError(MALFORMED)` where the two are not different blocks of one slot, in order.
    """
    first, second = equivocation.first.slot, equivocation.second.slot
    if (first.epoch, first.round, first.author) != (second.epoch, second.round, second.author):
        raise QnetError(Code.MALFORMED, "the two blocks are not of one slot")
    if first.round < 1 or first.version != second.version:
        raise QnetError(Code.MALFORMED, "such blocks break no rule together")
    if first.digest() >= second.digest():
        raise QnetError(Code.MALFORMED, "the lower digest stands first")
