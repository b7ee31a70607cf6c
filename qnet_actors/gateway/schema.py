"""The objects of the API, as JSON shows them; OpenAPI is generated from these structs.

u64 stand as decimal strings, times in ms since 1970, bytes in base64, ids in hex, addresses in
bech32m.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class View(msgspec.Struct, frozen=True, omit_defaults=True):
    """An object of the API; a field that is absent has nothing to say."""


class SyncView(View, frozen=True):
    phase: Literal["snapshot", "blocks", "following", "observing"]
    """It fetches a snapshot of the state, takes blocks from peers, follows consensus, or is an
    observer that is up with its peers."""
    height: str
    """Of the snapshot that is fetched; "0": none is."""
    parts: int
    parts_total: int


class StatusView(View, frozen=True):
    chain_id: str
    name: str
    development: bool
    validator: int
    version: str
    ready: bool
    epoch: str
    round: str
    commit_index: str
    height: str
    block_hash: str
    timestamp_ms: int
    final_height: str
    pool_transactions: str
    gas_price_min: str
    sync: SyncView
    disk_low: bool
    """Whether the validator takes no transactions for want of room on its disk."""


class ValidatorView(View, frozen=True):
    index: int
    scheme: str
    key_id: str
    stake: str
    reward: str
    connected: bool


class ParametersView(View, frozen=True):
    """See the configuration reference."""

    block_interval_ms: int
    block_gas_max: str
    block_size_bytes_max: int
    round_delay_ms: int
    round_idle_ms: int
    leader_timeout_ms: int
    leader_timeout_ms_max: int
    gc_depth: int
    commit_lag: int
    epoch_commits_min: int
    unbonding_epochs: int
    stake_min: str
    power_durability: bool


class RulesView(View, frozen=True):
    """What all validators go by in an epoch."""

    protocol_version: int
    parameters: ParametersView


class ValidatorsView(View, frozen=True):
    epoch: str
    quorum: str
    validators: list[ValidatorView]
    rules: RulesView


class AccountView(View, frozen=True):
    address: str
    height: str
    balance: str
    nonce: str
    key_id: str | None = None
    """Absent: the account has no key yet, its address is the only valid key id."""


class AccountProofView(View, frozen=True):
    """An account at the newest certified checkpoint; whoever does not check `proof` trusts the
    gateway for the rest."""

    address: str
    height: str
    exists: bool
    balance: str
    nonce: str
    proof: bytes
    """A `ProvedAccount`: docs/reference/proofs.md."""
    key_id: str | None = None


class TransactionProofView(View, frozen=True):
    """Where a final transaction stands."""

    id: str
    height: str
    index: int
    proof: bytes
    """A `ProvedTransaction`: docs/reference/proofs.md."""


class AccountTransactionView(View, frozen=True):
    """A transaction as one of its accounts sees it."""

    id: str
    height: str
    index: int
    kind: str
    sent: bool
    """Whether the account sent it; else it received from it."""
    amount: str
    """What it sent or received in all, fees apart."""
    code: str
    """`success`, or why it failed; only its sender's list has one that failed."""


class AccountTransactionsView(View, frozen=True):
    transactions: list[AccountTransactionView]
    height: str
    """The last block that is in the history, seconds behind the newest at most."""
    next_cursor: str | None = None


class FoundEventView(View, frozen=True):
    transaction: str
    height: str
    index: int
    number: int
    source: str
    topic: bytes
    data: bytes


class EventsView(View, frozen=True):
    events: list[FoundEventView]
    height: str
    next_cursor: str | None = None


class NextNonceView(View, frozen=True):
    address: str
    next_nonce: str


class BlockPlaceView(View, frozen=True):
    height: str
    hash: str
    index: int


class EventView(View, frozen=True):
    source: str
    topic: bytes
    data: bytes


class ReceiptView(View, frozen=True):
    code: str
    """`success`, or why the transaction failed: a code below 100 of the table."""
    gas_used: str
    return_data: bytes = b""
    events: list[EventView] = []


class PaymentView(View, frozen=True):
    payee: str
    amount: str


class ActionView(View, frozen=True):
    kind: str
    """transfer, multi_transfer, rotate_key, register_validator, stake, unstake, approve or
    report_equivocation; the other fields are those of the kind."""
    payee: str | None = None
    amount: str | None = None
    payments: list[PaymentView] | None = None
    key_id: str | None = None
    epoch: str | None = None
    rules: RulesView | None = None


class AccessView(View, frozen=True):
    contract: str
    key: bytes
    write: bool


class BodyView(View, frozen=True):
    version: int
    chain_id: str
    sender: str
    key_id: str
    nonce: str
    valid_until: str
    gas_limit: str
    gas_price: str
    action: ActionView
    access: list[AccessView] = []


class TransactionView(View, frozen=True):
    id: str
    status: str
    """received, batched, executed, final; or replaced, evicted, expired, unpayable,
    nonce_too_low, key_not_current."""
    block: BlockPlaceView | None = None
    receipt: ReceiptView | None = None
    body: BodyView | None = None


class SubmittedView(View, frozen=True):
    """What became of one submitted transaction."""

    id: str | None
    """null where the bytes do not decode."""
    code: str
    """`success`: it is in a pool; else why it was refused."""
    status: str | None = None
    detail: str | None = None
    block: BlockPlaceView | None = None
    receipt: ReceiptView | None = None


class SubmissionView(View, frozen=True):
    results: list[SubmittedView]


class HeaderView(View, frozen=True):
    version: int
    chain_id: str
    epoch: str
    height: str
    parent: str
    commit_index: str
    commit_digest: str
    timestamp_ms: int
    transactions_root: str
    receipts_root: str
    write_set_digest: str
    transaction_count: int
    failed_count: int
    gas_used: str


class BlockTransactionView(View, frozen=True):
    id: str
    body: BodyView
    receipt: ReceiptView


class BlockView(View, frozen=True):
    hash: str
    final: bool
    header: HeaderView
    transactions: list[BlockTransactionView] | None = None
    next_offset: int | None = None
    """The offset of the next page of transactions; absent on the last."""


class BlockSummaryView(View, frozen=True):
    hash: str
    final: bool
    header: HeaderView


class BlocksView(View, frozen=True):
    blocks: list[BlockSummaryView]
    next_cursor: str | None = None


class CheckpointVoteView(View, frozen=True):
    author: int
    signature: bytes


class CheckpointView(View, frozen=True):
    chain_id: str
    height: str
    block_hash: str
    state_root: str
    commit_index: str
    commit_digest: str
    committee: str
    epoch: str
    version: int
    digest: str
    """What is signed, under the context `qnet/checkpoint/v1`."""
    votes: list[CheckpointVoteView]


class SignedSlotView(View, frozen=True):
    digest: str
    """Of the block: what is signed, under the context `qnet/dag/v1` and the chain id."""
    timestamp_ms: int
    slot: bytes
    """The canonical bytes of the slot, whose hash is the digest."""
    signature: bytes


class EquivocationView(View, frozen=True):
    """Two blocks that one validator signed for one slot."""

    epoch: str
    round: str
    author: int
    scheme: str
    key_id: str
    public_key: bytes
    first: SignedSlotView
    second: SignedSlotView


class EvidenceView(View, frozen=True):
    evidence: list[EquivocationView]


class GasView(View, frozen=True):
    transfer: str
    payment: str
    """Each further payment of a multi-transfer."""
    rotate_key: str
    access_entry: str


class FeesView(View, frozen=True):
    gas_price_min: str
    gas_price_max: str
    gas_limit_max: str
    gas: GasView
    transaction_size_bytes_max: int
    submission_size_bytes_max: int
    submission_transactions_max: int


class Problem(View, frozen=True):
    """A problem document (RFC 9457); `code` is stable."""

    type: str
    title: str
    status: int
    detail: str
    code: str
