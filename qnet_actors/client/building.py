"""Building and signing transactions, without a network."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from qnet_actors.wire.codec import encode
from qnet_actors.wire.schemes import CONTEXT_TRANSACTION, key_id
from qnet_actors.wire.transactions import (
    TRANSACTION_VERSION,
    Action,
    Body,
    Transaction,
    Witness,
    check_body,
    intrinsic_gas,
    transaction_id,
)


class TransactionSigner(Protocol):
    """A key that signs: `qnet_actors.crypto.Signer` is one."""

    @property
    def scheme(self) -> int: ...

    @property
    def public_key(self) -> bytes: ...

    def sign(self, message: bytes, context: bytes) -> bytes:
        """The signature over `message` under `context`."""
        ...


class Signed(NamedTuple):
    """A signed transaction."""

    id: bytes
    data: bytes
    """The wire bytes."""


def signer_key_id(signer: TransactionSigner) -> bytes:
    """The key id of a signer, which is the address of the account that it is the first key of."""
    return key_id(signer.scheme, signer.public_key)


def build(
    *,
    chain_id: bytes,
    sender: bytes,
    signer: TransactionSigner,
    nonce: int,
    action: Action,
    valid_until: int = 0,
    gas_price: int = 1,
    gas_limit: int | None = None,
) -> Body:
    """A body that `signer` may sign; without a gas limit it has just what the action costs.

    `valid_until` is the last height at which it may be included, 0: for ever.  Raises `QnetError`
    where the network would refuse the form: see `wire.transactions.check_body`.
    """
    body = Body(
        version=TRANSACTION_VERSION,
        chain_id=chain_id,
        sender=sender,
        key_id=signer_key_id(signer),
        nonce=nonce,
        valid_until=valid_until,
        gas_limit=intrinsic_gas(0, action) if gas_limit is None else gas_limit,
        gas_price=gas_price,
        access=(),
        action=action,
    )
    check_body(body, chain_id)
    return body


def sign(body: Body, signer: TransactionSigner, *, with_key: bool = True) -> Signed:
    """The signed transaction; `with_key` brings the public key, which a first one must."""
    id_ = transaction_id(encode(body))
    witness = Witness(
        scheme=int(signer.scheme),
        signature=signer.sign(id_, CONTEXT_TRANSACTION),
        public_key=signer.public_key if with_key else b"",
    )
    return Signed(id_, encode(Transaction(body, witness)))
