"""A little ledger in memory and the keys to its accounts; blocks are made when a test says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qnet_actors.crypto import KeyPair, Signer, simulator_provider
from qnet_actors.light import HandOff, ProvedAccount, ProvedTransaction
from qnet_actors.wire.blocks import (
    BLOCK_VERSION,
    BlockHeader,
    BlockRecord,
    Certificate,
    CertificateVote,
    Checkpoint,
    Receipt,
    WriteSet,
)
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.hashing import ZERO_DIGEST
from qnet_actors.wire.schemes import CONTEXT_TRANSACTION, Scheme
from qnet_actors.wire.transactions import (
    TRANSACTION_CODEC,
    TRANSACTION_VERSION,
    Action,
    Body,
    MultiTransfer,
    RotateKey,
    Transaction,
    Transfer,
    Witness,
    amount_total,
    intrinsic_gas,
    transaction_id,
)

CHAIN_ID = b"\x11" * 32
BALANCE = 10**15
SIMULATOR = simulator_provider()


@dataclass
class Account:
    balance: int = 0
    nonce: int = 0
    key_id: bytes = ZERO_DIGEST


@dataclass
class Ledger:
    """What all validators of a test agree on; blocks are made when the test says so."""

    accounts: dict[bytes, Account] = field(default_factory=dict)
    records: list[tuple[BlockRecord, bytes]] = field(default_factory=list)
    places: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    keys: dict[bytes, bytes] = field(default_factory=dict)
    """Public keys by key id, as far as they were ever brought."""
    certificate: Certificate | None = None
    proved_accounts: dict[bytes, ProvedAccount] = field(default_factory=dict)
    proved_transactions: dict[bytes, ProvedTransaction] = field(default_factory=dict)
    hand_offs: dict[int, HandOff] = field(default_factory=dict)
    genesis: Genesis | None = None
    development: bool = True
    genesis_ms: int = 1_700_000_000_000

    @property
    def height(self) -> int:
        return len(self.records)

    @property
    def final_height(self) -> int:
        return self.certificate.checkpoint.height if self.certificate else 0

    def account(self, address: bytes) -> Account:
        return self.accounts.setdefault(address, Account())

    def execute(self, bodies: Sequence[Body]) -> tuple[BlockRecord, bytes]:
        """A block of `bodies`, in order."""
        height = self.height + 1
        receipts = [self._run(body) for body in bodies]
        header = BlockHeader(
            version=BLOCK_VERSION,
            chain_id=CHAIN_ID,
            epoch=0,
            height=height,
            parent=self.records[-1][1] if self.records else CHAIN_ID,
            commit_index=2 * height,
            commit_digest=ZERO_DIGEST,
            timestamp_ms=self.genesis_ms + 100 * height,
            transactions_root=ZERO_DIGEST,
            receipts_root=ZERO_DIGEST,
            write_set_digest=ZERO_DIGEST,
            transaction_count=len(bodies),
            failed_count=sum(receipt.status != 0 for receipt in receipts),
            gas_used=sum(receipt.gas_used for receipt in receipts),
        )
        record = BlockRecord(
            header=header,
            commits=(),
            bodies=tuple(encode(body) for body in bodies),
            receipts=tuple(encode(receipt) for receipt in receipts),
            write_set=WriteSet(b"", b"", b"", b""),
            checkpoint=None,
        )
        block_hash = header.hash()
        self.records.append((record, block_hash))
        for index, receipt in enumerate(receipts):
            self.places[receipt.transaction_id] = (height, index)
        return record, block_hash

    def certify(self) -> Certificate:
        """A checkpoint at the latest block."""
        record, block_hash = self.records[-1]
        checkpoint = Checkpoint(
            CHAIN_ID,
            self.height,
            block_hash,
            b"\x22" * 32,
            record.header.commit_index,
            ZERO_DIGEST,
            ZERO_DIGEST,
            0,
            1,
        )
        self.certificate = Certificate(checkpoint, (CertificateVote(0, b"signature"),))
        return self.certificate

    def _run(self, body: Body) -> Receipt:
        sender = self.account(body.sender)
        gas = intrinsic_gas(len(body.access), body.action)
        sender.balance -= gas * body.gas_price
        sender.nonce = body.nonce + 1
        status = Code.SUCCESS
        if amount_total(body.action) > sender.balance:
            status = Code.INSUFFICIENT_BALANCE
        else:
            self._apply(sender, body.action)
        return Receipt(transaction_id(encode(body)), status, gas, b"", ())

    def _apply(self, sender: Account, action: Action) -> None:
        match action:
            case Transfer():
                sender.balance -= action.amount
                self.account(action.payee).balance += action.amount
            case MultiTransfer():
                for payment in action.payments:
                    sender.balance -= payment.amount
                    self.account(payment.payee).balance += payment.amount
            case RotateKey():
                sender.key_id = action.key_id


class Wallet:
    """A key of the simulator and its account."""

    def __init__(self, seed: int) -> None:
        self.pair: KeyPair = SIMULATOR.generate(Scheme.KEYED_HASH, seed.to_bytes(32, "big"))
        self.signer = Signer(self.pair, SIMULATOR)
        self.address = self.pair.key_id

    def transfer(self, nonce: int, amount: int = 1, **changes: Any) -> bytes:
        """The wire bytes of a signed transfer."""
        fields: dict[str, Any] = {
            "version": TRANSACTION_VERSION,
            "chain_id": CHAIN_ID,
            "sender": self.address,
            "key_id": self.pair.key_id,
            "nonce": nonce,
            "valid_until": 0,
            "gas_limit": 1_000,
            "gas_price": 1,
            "access": (),
            "action": Transfer(b"\x44" * 32, amount),
        }
        body = Body(**{**fields, **changes})
        id_ = transaction_id(encode(body))
        signature = self.signer.sign(id_, CONTEXT_TRANSACTION)
        witness = Witness(Scheme.KEYED_HASH, signature, self.pair.public_key)
        return encode(Transaction(body, witness))


def id_of(data: bytes) -> bytes:
    return transaction_id(encode(TRANSACTION_CODEC.decode(data).body))
