"""A light client: from a genesis to what may be believed of a gateway's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final, Protocol

from qnet_actors.light.checkpoints import check_certificate
from qnet_actors.light.evidence import (
    ProvedAccount,
    ProvedTransaction,
    check_account,
    check_transaction,
)
from qnet_actors.light.hand_off import HandOff, check_hand_off
from qnet_actors.light.proofs import Account
from qnet_actors.wire.blocks import BlockHeader, Certificate, Checkpoint, Receipt
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.schemes import Scheme
from qnet_actors.wire.transactions import Body

EPOCHS_KEPT: Final = 64
"""Of how many epochs, the newest ones, certificates can still be checked."""


class Signatures(Protocol):
    """The part of a `crypto` provider that a light client needs."""

    def verify_many(
        self,
        scheme: Scheme,
        public_keys: Sequence[bytes],
        messages: Sequence[bytes],
        signatures: Sequence[bytes],
        context: bytes,
    ) -> list[bool]: ...


@dataclass(frozen=True, slots=True)
class FinalTransaction:
    """A transaction that no validator can take back."""

    header: BlockHeader
    """Of its block."""
    index: int
    body: Body
    receipt: Receipt


class LightClient:
    """Checks what it is shown against a genesis, and never goes back; threads may share it.

    `height` is that of the newest checkpoint it has accepted: an older state, though truly
    certified, is refused, so no gateway can show the past as the present.  How old the newest one
    is that a gateway shows cannot be seen from a checkpoint; compare gateways where it matters.

    It begins with the committee of the genesis, and `follow` takes it from one epoch to the next.
    Once it knows that an epoch is over, nothing that the old committee signs for after its end is
    believed.  Who trusts a committee that left long ago, and follows from there for the first time,
    trusts that two thirds of its stake sold no keys since.
    """

    def __init__(self, genesis: Genesis, signatures: Signatures) -> None:
        """Raises `QnetError(CONFIGURATION_INVALID)` for a genesis without a valid committee."""
        self.chain_id: Final = genesis.chain_id()
        first = genesis.committee()
        self._committees: Final[dict[int, Committee]] = {first.epoch: first}
        self._epoch = first.epoch
        self._ends: Final[dict[int, int]] = {}
        """The height of an epoch's last block."""
        self._verifier: Final = _Rows(signatures)
        self._newest: Checkpoint | None = None
        self._lock: Final = Lock()

    @property
    def height(self) -> int:
        """Of the newest checkpoint accepted; 0: none."""
        return 0 if self._newest is None else self._newest.height

    @property
    def epoch(self) -> int:
        """The newest epoch whose committee it knows."""
        return self._epoch

    def follow(self, hand_off: HandOff) -> Committee:
        """The committee of the epoch after the one that `hand_off` ends, trusted from now on; CPU
        work.

        Raises `QnetError`: BAD_PROOF, BAD_CERTIFICATE; DIVERGED where a quorum also signed for
        something after the end of its epoch, or for two committees.
        """
        last = hand_off.certificate.checkpoint
        committee = self._committee_of(last.epoch)
        following = check_hand_off(self.chain_id, committee, hand_off, self._verifier)
        with self._lock:
            if (known := self._committees.get(following.epoch)) is not None:
                if known.digest != following.digest:
                    raise QnetError(
                        Code.DIVERGED, f"a quorum signed for two committees of {following.epoch}"
                    )
                return known
            if self._newest is not None and self._newest.height > last.height:
                raise QnetError(
                    Code.DIVERGED, f"a quorum signed past the end of its epoch at {last.height}"
                )
            self._committees[following.epoch] = following
            self._ends[last.epoch] = last.height
            self._epoch, self._newest = following.epoch, last
            self._committees.pop(following.epoch - EPOCHS_KEPT, None)
            self._ends.pop(following.epoch - EPOCHS_KEPT - 1, None)
        return following

    def _committee_of(self, epoch: int) -> Committee:
        committee = self._committees.get(epoch)
        if committee is None:
            raise QnetError(
                Code.BAD_CERTIFICATE, f"of epoch {epoch}, whose committee is not known here"
            )
        return committee

    def accept(self, certificate: Certificate) -> Checkpoint:
        """The checkpoint, once a quorum of its committee proves to have signed it; CPU work.

        Raises `QnetError`: BAD_CERTIFICATE, also for an epoch that it has not been led to; DIVERGED
        where a quorum signed two at one height.
        """
        checkpoint = certificate.checkpoint
        if checkpoint == self._newest:
            return checkpoint
        committee = self._committee_of(checkpoint.epoch)
        check_certificate(self.chain_id, committee, certificate, self._verifier)
        with self._lock:
            newest, end = self._newest, self._ends.get(checkpoint.epoch, checkpoint.height)
            if not self._ends.get(checkpoint.epoch - 1, 0) < checkpoint.height <= end:
                raise QnetError(
                    Code.BAD_CERTIFICATE, f"height {checkpoint.height} is of another epoch"
                )
            if newest is None or checkpoint.height > newest.height:
                self._newest = checkpoint
            elif checkpoint.height == newest.height and checkpoint != newest:
                raise QnetError(
                    Code.DIVERGED, f"a quorum signed two checkpoints at height {checkpoint.height}"
                )
        return checkpoint

    def account(self, address: bytes, proved: ProvedAccount) -> tuple[Checkpoint, Account | None]:
        """The checkpoint, and the account in its state; None: it does not exist there.

        Raises `QnetError`: BAD_CERTIFICATE, BAD_PROOF, DIVERGED.
        """
        if proved.certificate.checkpoint.height < self.height:
            raise QnetError(
                Code.BAD_PROOF,
                f"of height {proved.certificate.checkpoint.height}, {self.height} is certified",
            )
        check_account(address, proved)
        return self.accept(proved.certificate), proved.account

    def transaction(self, id_: bytes, proved: ProvedTransaction) -> FinalTransaction:
        """The transaction with its place and receipt.

        Raises `QnetError`: BAD_CERTIFICATE, BAD_PROOF, DIVERGED, MALFORMED, NON_CANONICAL.
        """
        header, body, receipt = check_transaction(id_, proved)
        self.accept(proved.certificate)
        return FinalTransaction(header, proved.transaction.index, body, receipt)


class _Rows:
    """A provider as the verifier of certificates, which has few rows of one scheme."""

    def __init__(self, signatures: Signatures) -> None:
        self._signatures = signatures

    def verify(
        self,
        public_keys: Sequence[bytes],
        messages: Sequence[bytes],
        signatures: Sequence[bytes],
        context: bytes,
        scheme: Scheme,
    ) -> list[bool]:
        return self._signatures.verify_many(scheme, public_keys, messages, signatures, context)
