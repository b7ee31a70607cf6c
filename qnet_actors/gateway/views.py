"""Answers of validators as objects of the API."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from msgspec import structs

from qnet_actors.gateway.queries import (
    AccountAnswer,
    BlockAnswer,
    BlockSummary,
    CheckpointAnswer,
    EvidenceAnswer,
    StatusAnswer,
    TransactionAnswer,
    ValidatorsAnswer,
)
from qnet_actors.gateway.schema import (
    AccessView,
    AccountView,
    ActionView,
    BlockPlaceView,
    BlockSummaryView,
    BlockTransactionView,
    BlockView,
    BodyView,
    CheckpointView,
    CheckpointVoteView,
    EquivocationView,
    EventView,
    EvidenceView,
    FeesView,
    GasView,
    HeaderView,
    ParametersView,
    PaymentView,
    ReceiptView,
    RulesView,
    SignedSlotView,
    StatusView,
    SyncView,
    TransactionView,
    ValidatorsView,
    ValidatorView,
)
from qnet_actors.gateway.tracker import Tracked
from qnet_actors.wire.address import encode_address
from qnet_actors.wire.blocks import RECEIPT_CODEC, BlockHeader
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code
from qnet_actors.wire.evidence import SignedSlot
from qnet_actors.wire.hashing import ZERO_DIGEST
from qnet_actors.wire.limits import (
    GAS_LIMIT_MAX,
    GAS_PRICE_MAX,
    SUBMISSION_SIZE_BYTES_MAX,
    SUBMISSION_TRANSACTIONS_MAX,
    TRANSACTION_SIZE_BYTES_MAX,
)
from qnet_actors.wire.rules import EpochRules
from qnet_actors.wire.schemes import Scheme, key_id
from qnet_actors.wire.transactions import (
    BODY_CODEC,
    GAS_ACCESS_ENTRY,
    GAS_PAYMENT,
    GAS_ROTATE_KEY,
    GAS_TRANSFER,
    Action,
    Approve,
    Body,
    MultiTransfer,
    RegisterValidator,
    ReportEquivocation,
    RotateKey,
    Stake,
    Transfer,
    Unstake,
    transaction_id,
)


@cache
def status_name(code: int) -> str:
    """The label of a receipt's status, of which there are 65,536 at the most.

    Remembered: to look an enumeration up costs as much as the rest of a block's announcement.
    """
    try:
        return Code(code).label
    except ValueError:
        return f"code_{code}"


@lru_cache(maxsize=65_536)
def address_text(address: bytes, development: bool) -> str:
    """`encode_address`, remembered: its checksum costs more than the rest of a view."""
    return encode_address(address, development=development)


def _scheme_name(scheme: int) -> str:
    try:
        return Scheme(scheme).name.lower()
    except ValueError:
        return f"scheme_{scheme}"


def header_view(header: BlockHeader) -> HeaderView:
    return HeaderView(
        version=header.version,
        chain_id=header.chain_id.hex(),
        epoch=str(header.epoch),
        height=str(header.height),
        parent=header.parent.hex(),
        commit_index=str(header.commit_index),
        commit_digest=header.commit_digest.hex(),
        timestamp_ms=header.timestamp_ms,
        transactions_root=header.transactions_root.hex(),
        receipts_root=header.receipts_root.hex(),
        write_set_digest=header.write_set_digest.hex(),
        transaction_count=header.transaction_count,
        failed_count=header.failed_count,
        gas_used=str(header.gas_used),
    )


def status_view(answer: StatusAnswer) -> StatusView:
    return StatusView(
        chain_id=answer.chain_id.hex(),
        name=answer.name,
        development=answer.development,
        validator=answer.index,
        version=answer.version,
        ready=answer.ready,
        epoch=str(answer.epoch),
        round=str(answer.round),
        commit_index=str(answer.commit_index),
        height=str(answer.height),
        block_hash=answer.block_hash.hex(),
        timestamp_ms=answer.timestamp_ms,
        final_height=str(answer.final_height),
        pool_transactions=str(answer.pool_transactions),
        gas_price_min=str(answer.gas_price_min),
        sync=SyncView(
            answer.sync.phase, str(answer.sync.height), answer.sync.parts, answer.sync.parts_total
        ),
        disk_low=answer.disk_low,
    )


def fees_view(answer: StatusAnswer) -> FeesView:
    return FeesView(
        gas_price_min=str(answer.gas_price_min),
        gas_price_max=str(GAS_PRICE_MAX),
        gas_limit_max=str(GAS_LIMIT_MAX),
        gas=GasView(
            transfer=str(GAS_TRANSFER),
            payment=str(GAS_PAYMENT),
            rotate_key=str(GAS_ROTATE_KEY),
            access_entry=str(GAS_ACCESS_ENTRY),
        ),
        transaction_size_bytes_max=TRANSACTION_SIZE_BYTES_MAX,
        submission_size_bytes_max=SUBMISSION_SIZE_BYTES_MAX,
        submission_transactions_max=SUBMISSION_TRANSACTIONS_MAX,
    )


def checkpoint_view(answer: CheckpointAnswer) -> CheckpointView:
    checkpoint = answer.certificate.checkpoint
    return CheckpointView(
        chain_id=checkpoint.chain_id.hex(),
        height=str(checkpoint.height),
        block_hash=checkpoint.block_hash.hex(),
        state_root=checkpoint.state_root.hex(),
        commit_index=str(checkpoint.commit_index),
        commit_digest=checkpoint.commit_digest.hex(),
        committee=checkpoint.committee.hex(),
        epoch=str(checkpoint.epoch),
        version=checkpoint.version,
        digest=checkpoint.digest().hex(),
        votes=[
            CheckpointVoteView(vote.author, vote.signature) for vote in answer.certificate.votes
        ],
    )


def evidence_view(answer: EvidenceAnswer) -> EvidenceView:
    def signed(item: SignedSlot) -> SignedSlotView:
        return SignedSlotView(
            digest=item.slot.digest().hex(),
            timestamp_ms=item.slot.timestamp_ms,
            slot=encode(item.slot),
            signature=item.signature,
        )

    return EvidenceView(
        [
            EquivocationView(
                epoch=str(info.equivocation.epoch),
                round=str(info.equivocation.round),
                author=info.equivocation.author,
                scheme=_scheme_name(info.scheme),
                key_id=key_id(info.scheme, info.public_key).hex(),
                public_key=info.public_key,
                first=signed(info.equivocation.first),
                second=signed(info.equivocation.second),
            )
            for info in answer.proofs
        ]
    )


def tracked_views(tracked: Tracked) -> dict[str, Any]:
    """Where a followed transaction stands, as fields of a view; the receipt without its data."""
    if not tracked.height:
        return {"status": tracked.status}
    return {
        "status": tracked.status,
        "block": BlockPlaceView(str(tracked.height), tracked.block_hash.hex(), tracked.position),
        "receipt": ReceiptView(status_name(tracked.code), str(tracked.gas_used)),
    }


def rules_view(rules: EpochRules) -> RulesView:
    values = structs.asdict(rules.parameters)
    # Only what may be over 2^53 is text, as everywhere in the API.
    for name in ("block_gas_max", "stake_min"):
        values[name] = str(values[name])
    return RulesView(rules.version, ParametersView(**values))


class Views:
    """The views that hold addresses, whose prefix depends on the network."""

    def __init__(self, *, development: bool) -> None:
        self._development = development

    def address(self, address: bytes) -> str:
        return address_text(address, self._development)

    def validators(self, answer: ValidatorsAnswer) -> ValidatorsView:
        return ValidatorsView(
            epoch=str(answer.epoch),
            quorum=str(answer.quorum),
            rules=rules_view(answer.rules),
            validators=[
                ValidatorView(
                    index=info.index,
                    scheme=_scheme_name(info.scheme),
                    key_id=info.key_id.hex(),
                    stake=str(info.stake),
                    reward=self.address(info.reward),
                    connected=info.connected,
                )
                for info in answer.validators
            ],
        )

    def account(self, address: bytes, answer: AccountAnswer) -> AccountView:
        return AccountView(
            address=self.address(address),
            height=str(answer.height),
            balance=str(answer.balance),
            nonce=str(answer.nonce),
            key_id=None if answer.key_id == ZERO_DIGEST else answer.key_id.hex(),
        )

    def action(self, action: Action) -> ActionView:
        match action:
            case Transfer():
                return ActionView(
                    "transfer", payee=self.address(action.payee), amount=str(action.amount)
                )
            case MultiTransfer():
                return ActionView(
                    "multi_transfer",
                    payments=[
                        PaymentView(self.address(payment.payee), str(payment.amount))
                        for payment in action.payments
                    ],
                )
            case RotateKey():
                return ActionView("rotate_key", key_id=action.key_id.hex())
            case RegisterValidator():
                name = key_id(action.scheme, action.public_key).hex()
                return ActionView("register_validator", key_id=name, amount=str(action.stake))
            case Stake():
                return ActionView("stake", amount=str(action.amount))
            case Unstake():
                return ActionView("unstake", amount=str(action.amount))
            case Approve(epoch=epoch, rules=rules):
                return ActionView("approve", epoch=str(epoch), rules=rules_view(rules))
            case ReportEquivocation():
                name = key_id(action.scheme, action.public_key).hex()
                return ActionView("report_equivocation", key_id=name)

    def body(self, body: Body) -> BodyView:
        return BodyView(
            version=body.version,
            chain_id=body.chain_id.hex(),
            sender=self.address(body.sender),
            key_id=body.key_id.hex(),
            nonce=str(body.nonce),
            valid_until=str(body.valid_until),
            gas_limit=str(body.gas_limit),
            gas_price=str(body.gas_price),
            action=self.action(body.action),
            access=[
                AccessView(self.address(access.contract), access.key, access.write)
                for access in body.access
            ],
        )

    def receipt(self, encoded: bytes) -> ReceiptView:
        receipt = RECEIPT_CODEC.decode(encoded)
        return ReceiptView(
            code=status_name(receipt.status),
            gas_used=str(receipt.gas_used),
            return_data=receipt.return_data,
            events=[
                EventView(self.address(event.source), event.topic, event.data)
                for event in receipt.events
            ],
        )

    def transaction(self, id_: bytes, answer: TransactionAnswer, status: str) -> TransactionView:
        return TransactionView(
            id=id_.hex(),
            status=status,
            block=BlockPlaceView(str(answer.height), answer.block_hash.hex(), answer.index)
            if answer.height
            else None,
            receipt=self.receipt(answer.receipt) if answer.receipt else None,
            body=self.body(BODY_CODEC.decode(answer.body)) if answer.body else None,
        )

    def block(self, answer: BlockAnswer, final: bool, first: int, wanted: bool) -> BlockView:
        """A block; with its transactions from `first` on where they were `wanted`."""
        transactions = None
        next_offset = None
        if wanted:
            transactions = [
                BlockTransactionView(
                    transaction_id(body).hex(),
                    self.body(BODY_CODEC.decode(body)),
                    self.receipt(receipt),
                )
                for body, receipt in zip(answer.bodies, answer.receipts, strict=True)
            ]
            end = first + len(transactions)
            if transactions and end < answer.header.transaction_count:
                next_offset = end
        return BlockView(
            hash=answer.block_hash.hex(),
            final=final,
            header=header_view(answer.header),
            transactions=transactions,
            next_offset=next_offset,
        )

    def summary(self, summary: BlockSummary, final: bool) -> BlockSummaryView:
        return BlockSummaryView(summary.block_hash.hex(), final, header_view(summary.header))
