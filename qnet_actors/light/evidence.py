"""What a gateway hands out to be checked: a certificate and the way from it to what was asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from qnet_actors.light.checkpoints import HEADERS_MAX, check_headers
from qnet_actors.light.merkle import MerkleProof, merkle_proof, verify_leaf
from qnet_actors.light.proofs import Account, AccountProof, verify_account
from qnet_actors.wire.blocks import RECEIPT_CODEC, BlockHeader, BlockRecord, Certificate, Receipt
from qnet_actors.wire.codec import Codec, Struct
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import (
    RECEIPTS_LEAF,
    RECEIPTS_NODE,
    TRANSACTIONS_LEAF,
    TRANSACTIONS_NODE,
)
from qnet_actors.wire.transactions import BODY_CODEC, Body, transaction_id


class ProvedAccount(Struct, frozen=True):
    """An account under the state root of a certified checkpoint."""

    certificate: Certificate
    account: Account | None
    """None: it does not exist there."""
    proof: AccountProof


class ProvedTransaction(Struct, frozen=True):
    """An included transaction and its receipt, in a block at or below a certified one."""

    certificate: Certificate
    headers: Annotated[tuple[BlockHeader, ...], msgspec.Meta(min_length=1, max_length=HEADERS_MAX)]
    """From the transaction's block up to the certified one."""
    body: bytes
    receipt: bytes
    transaction: MerkleProof
    """Of the transaction id, under the first header's `transactions_root`."""
    outcome: MerkleProof
    """Of the canonical receipt, under its `receipts_root`."""


PROVED_ACCOUNT_CODEC: Final = Codec[ProvedAccount](ProvedAccount, 2 * 1024 * 1024)
PROVED_TRANSACTION_CODEC: Final = Codec[ProvedTransaction](ProvedTransaction, 24 * 1024 * 1024)


def prove_transaction(
    certificate: Certificate, headers: Sequence[BlockHeader], record: BlockRecord, position: int
) -> ProvedTransaction:
    """The proof of the transaction at `position` of `record`, the block of `headers[0]`.

    Hashes both trees of the block.  Raises IndexError.
    """
    ids = [transaction_id(body) for body in record.bodies]
    return ProvedTransaction(
        certificate=certificate,
        headers=tuple(headers),
        body=record.bodies[position],
        receipt=record.receipts[position],
        transaction=merkle_proof(TRANSACTIONS_LEAF, TRANSACTIONS_NODE, ids, position),
        outcome=merkle_proof(RECEIPTS_LEAF, RECEIPTS_NODE, record.receipts, position),
    )


def check_account(address: bytes, proved: ProvedAccount) -> None:
    """Raises `QnetError(BAD_PROOF)` unless the account is as it says under its checkpoint's root.

    The certificate is the caller's to check.
    """
    root = proved.certificate.checkpoint.state_root
    if not verify_account(root, address, proved.account, proved.proof):
        raise QnetError(Code.BAD_PROOF, "the account's proof does not lead to the state root")


def check_transaction(id_: bytes, proved: ProvedTransaction) -> tuple[BlockHeader, Body, Receipt]:
    """(header of its block, body, receipt) of the transaction.

    Raises `QnetError`: BAD_PROOF unless body and receipt stand at one place of a block that the
    checkpoint covers; MALFORMED, NON_CANONICAL.  The certificate is the caller's to check.
    """
    check_headers(proved.certificate.checkpoint, proved.headers)
    if transaction_id(proved.body) != id_:
        raise QnetError(Code.BAD_PROOF, "the body is another transaction's")
    header = proved.headers[0]
    if proved.transaction.index != proved.outcome.index:
        raise QnetError(Code.BAD_PROOF, "the receipt stands at another place")
    count = header.transaction_count
    if not verify_leaf(
        TRANSACTIONS_LEAF,
        TRANSACTIONS_NODE,
        header.transactions_root,
        count,
        id_,
        proved.transaction,
    ):
        raise QnetError(Code.BAD_PROOF, "the transaction does not lead to the block's root")
    if not verify_leaf(
        RECEIPTS_LEAF, RECEIPTS_NODE, header.receipts_root, count, proved.receipt, proved.outcome
    ):
        raise QnetError(Code.BAD_PROOF, "the receipt does not lead to the block's root")
    receipt = RECEIPT_CODEC.decode(proved.receipt)
    if receipt.transaction_id != id_:
        raise QnetError(Code.BAD_PROOF, "the receipt is another transaction's")
    return header, BODY_CODEC.decode(proved.body), receipt
