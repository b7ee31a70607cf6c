"""What a gateway answers, as Python sees it: u64 as int, bytes as bytes, ids as hex, addresses as
text.  A field that a later gateway adds is passed over.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Sync(msgspec.Struct, frozen=True):
    """How a validator comes to stand where the others do."""

    phase: str
    """"snapshot": it fetches one of the state; "blocks": it takes them from peers; "following";
    "observing": an observer that is up with its peers."""
    height: int = 0
    """Of the snapshot that is fetched; 0: none is."""
    parts: int = 0
    parts_total: int = 0


class Status(msgspec.Struct, frozen=True):
    """Where the network stands, as the validator sees it that is furthest ahead."""

    chain_id: str
    name: str
    development: bool
    validator: int
    version: str
    ready: bool
    epoch: int
    round: int
    commit_index: int
    height: int
    block_hash: str
    timestamp_ms: int
    final_height: int
    pool_transactions: int
    gas_price_min: int
    sync: Sync = Sync("following")
    disk_low: bool = False
    """Whether the validator takes no transactions for want of room on its disk."""


class Validator(msgspec.Struct, frozen=True):
    index: int
    scheme: str
    key_id: str
    stake: int
    reward: str
    connected: bool


class Parameters(msgspec.Struct, frozen=True):
    """The parameters of an epoch; see the configuration reference."""

    block_interval_ms: int
    block_gas_max: int
    block_size_bytes_max: int
    round_delay_ms: int
    round_idle_ms: int
    leader_timeout_ms: int
    leader_timeout_ms_max: int
    gc_depth: int
    commit_lag: int
    epoch_commits_min: int
    unbonding_epochs: int
    stake_min: int
    power_durability: bool


class Rules(msgspec.Struct, frozen=True):
    """What all validators go by in an epoch."""

    protocol_version: int
    parameters: Parameters


class Validators(msgspec.Struct, frozen=True):
    """The committee and the epoch's rules; `quorum` is the stake that decides."""

    epoch: int
    quorum: int
    validators: list[Validator]
    rules: Rules


class Account(msgspec.Struct, frozen=True):
    """An account at a height; one that does not exist reads as zeros."""

    address: str
    height: int
    balance: int
    nonce: int
    key_id: str | None = None
    proved: bool = False
    """Whether a proof was checked that a quorum certified it at this height."""


class Proof(msgspec.Struct, frozen=True):
    """What is to be checked: canonical MessagePack, see docs/reference/proofs.md."""

    proof: bytes


class AccountTransaction(msgspec.Struct, frozen=True):
    """A transaction as one of its accounts sees it: what it sent, or received, fees apart."""

    id: str
    height: int
    index: int
    kind: str
    sent: bool
    amount: int
    code: str


class AccountTransactions(msgspec.Struct, frozen=True):
    """A page, the newest first; `next_cursor` is None on the last.  `height`: of the history."""

    transactions: list[AccountTransaction]
    height: int
    next_cursor: str | None = None


class FoundEvent(msgspec.Struct, frozen=True):
    """An event, with the transaction that it is of."""

    transaction: str
    height: int
    index: int
    number: int
    source: str
    topic: bytes
    data: bytes


class Events(msgspec.Struct, frozen=True):
    """A page, the newest first; `next_cursor` is None on the last."""

    events: list[FoundEvent]
    height: int
    next_cursor: str | None = None


class Place(msgspec.Struct, frozen=True):
    """Where a transaction stands in the ledger."""

    height: int
    hash: str
    index: int


class Event(msgspec.Struct, frozen=True):
    source: str
    topic: bytes
    data: bytes


class Receipt(msgspec.Struct, frozen=True):
    """What became of an included transaction; `code` is `success`, or why it failed."""

    code: str
    gas_used: int
    return_data: bytes = b""
    events: list[Event] = []

    @property
    def succeeded(self) -> bool:
        return self.code == "success"


class Payment(msgspec.Struct, frozen=True):
    payee: str
    amount: int


class Action(msgspec.Struct, frozen=True):
    kind: str
    payee: str | None = None
    amount: int | None = None
    payments: list[Payment] | None = None
    key_id: str | None = None
    epoch: int | None = None
    rules: Rules | None = None


class Body(msgspec.Struct, frozen=True):
    version: int
    chain_id: str
    sender: str
    key_id: str
    nonce: int
    valid_until: int
    gas_limit: int
    gas_price: int
    action: Action


class Transaction(msgspec.Struct, frozen=True):
    """A transaction: `status` is received, batched, executed or final, or why a pool gave it up."""

    id: str
    status: str
    block: Place | None = None
    receipt: Receipt | None = None
    body: Body | None = None


class Submitted(msgspec.Struct, frozen=True):
    """What became of one of several submitted transactions."""

    id: str | None
    code: str
    status: str | None = None
    detail: str | None = None
    block: Place | None = None
    receipt: Receipt | None = None

    @property
    def accepted(self) -> bool:
        return self.code == "success"


class Submission(msgspec.Struct, frozen=True):
    results: list[Submitted]


class Header(msgspec.Struct, frozen=True):
    version: int
    chain_id: str
    epoch: int
    height: int
    parent: str
    commit_index: int
    commit_digest: str
    timestamp_ms: int
    transactions_root: str
    receipts_root: str
    write_set_digest: str
    transaction_count: int
    failed_count: int
    gas_used: int


class BlockTransaction(msgspec.Struct, frozen=True):
    id: str
    body: Body
    receipt: Receipt


class Block(msgspec.Struct, frozen=True):
    """A block; `transactions` is None where they were not asked for."""

    hash: str
    final: bool
    header: Header
    transactions: list[BlockTransaction] | None = None
    next_offset: int | None = None


class Blocks(msgspec.Struct, frozen=True):
    """A page of blocks, the latest first; `next_cursor` is None on the last."""

    blocks: list[Block]
    next_cursor: str | None = None


class CheckpointVote(msgspec.Struct, frozen=True):
    author: int
    signature: bytes


class Checkpoint(msgspec.Struct, frozen=True):
    chain_id: str
    height: int
    block_hash: str
    state_root: str
    commit_index: int
    commit_digest: str
    committee: str
    epoch: int
    version: int
    digest: str
    votes: list[CheckpointVote]


class SignedSlot(msgspec.Struct, frozen=True):
    digest: str
    timestamp_ms: int
    slot: bytes
    """Canonical bytes of the wire's `Slot`."""
    signature: bytes


class Equivocation(msgspec.Struct, frozen=True):
    """Two blocks that one validator signed for one slot."""

    epoch: int
    round: int
    author: int
    scheme: str
    key_id: str
    public_key: bytes
    first: SignedSlot
    second: SignedSlot


class Evidence(msgspec.Struct, frozen=True):
    evidence: list[Equivocation]


class Gas(msgspec.Struct, frozen=True):
    transfer: int
    payment: int
    rotate_key: int
    access_entry: int


class Fees(msgspec.Struct, frozen=True):
    gas_price_min: int
    gas_price_max: int
    gas_limit_max: int
    gas: Gas
    transaction_size_bytes_max: int
    submission_size_bytes_max: int
    submission_transactions_max: int


class NextNonce(msgspec.Struct, frozen=True):
    next_nonce: int


class BlockOutcome(msgspec.Struct, frozen=True):
    """One transaction of a block, as subscribers see it."""

    id: str
    code: str
    gas_used: int


class Message(msgspec.Struct, frozen=True):
    """What a subscription brings; `type` says which fields are set.

    block: hash, final, header and, where asked for, transactions.  final: height, block_hash.
    transaction: id, status and, once executed, block and receipt.  missed: the reader was too slow
    or the gateway lost sight of a validator; first_height to last_height, where known, are to be
    asked for; `dropped` says that the connection ends.  subscribed, unsubscribed, error: answers.
    """

    type: str
    hash: str | None = None
    final: bool | None = None
    header: Header | None = None
    transactions: list[BlockOutcome] | None = None
    height: int | None = None
    block_hash: str | None = None
    state_root: str | None = None
    id: str | None = None
    status: str | None = None
    block: Place | None = None
    receipt: Receipt | None = None
    messages: int | None = None
    first_height: int | None = None
    last_height: int | None = None
    dropped: bool = False
    to: str | None = None
    problem: dict[str, Any] | None = None
