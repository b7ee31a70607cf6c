"""What a gateway asks a validator and what it is answered: frames inside one trust domain.

Every query is answered by the answer of the same name, or by a `Fault` in its place.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from qnet_actors.light import HandOff, ProvedAccount, ProvedTransaction
from qnet_actors.wire.blocks import BlockHeader, Certificate
from qnet_actors.wire.codec import U8, U16, U32, Address, Codec, Digest, Struct, Unsigned
from qnet_actors.wire.evidence import Equivocation
from qnet_actors.wire.limits import (
    SUBMISSION_SIZE_BYTES_MAX,
    SUBMISSION_TRANSACTIONS_MAX,
    VALIDATORS_MAX,
)
from qnet_actors.wire.rules import EpochRules

GENESIS_SIZE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of a genesis that is served; a larger one goes from hand to hand."""
PAGE_BLOCKS_MAX: Final = 100
PAGE_TRANSACTIONS_MAX: Final = 1_000
PAGE_SIZE_BYTES_MAX: Final = 8 * 1024 * 1024
"""A page of transactions ends early where the next one would take it over this."""
HISTORY_PAGE_MAX: Final = 100
PageCount = Annotated[int, msgspec.Meta(ge=1, le=HISTORY_PAGE_MAX)]
Topic = Annotated[bytes, msgspec.Meta(max_length=64)]
_ANSWER_SIZE_BYTES_MAX: Final = 32 * 1024 * 1024


class Fault(Struct, frozen=True, tag=0):
    """A `QnetError` as it travels: a code of the one table, and what to do about it."""

    code: U16
    detail: Annotated[str, msgspec.Meta(max_length=1_000)]


class StatusQuery(Struct, frozen=True, tag=1):
    """Where the validator stands."""


class ValidatorsQuery(Struct, frozen=True, tag=2):
    """The committee, and whom the validator is linked with."""


class AccountQuery(Struct, frozen=True, tag=3):
    """An account in the newest executed state, or as of a block.

    Faults with NOT_FOUND where no history of that height is kept.
    """

    address: Address
    height: Unsigned | None = None


class TransactionQuery(Struct, frozen=True, tag=4):
    """What is known of a transaction; faults with NOT_FOUND."""

    id: Digest


class BlockQuery(Struct, frozen=True, tag=5):
    """A block by height or by hash, or the latest; faults with NOT_FOUND."""

    selector: Unsigned | Digest | None
    """None: the latest."""
    first: U32 = 0
    """Index of the first transaction that is wanted."""
    count_max: Annotated[int, msgspec.Meta(ge=0, le=PAGE_TRANSACTIONS_MAX)] = 0
    """0: the header alone."""


class BlocksQuery(Struct, frozen=True, tag=6):
    """Headers by falling height, from the one just below `before` on."""

    before: Unsigned | None
    """None: from the latest."""
    count_max: Annotated[int, msgspec.Meta(ge=1, le=PAGE_BLOCKS_MAX)]


class CheckpointQuery(Struct, frozen=True, tag=7):
    """The latest certified checkpoint; faults with NOT_FOUND before the first."""


class AccountProofQuery(Struct, frozen=True, tag=8):
    """An account under the newest certified checkpoint.

    Faults with NOT_FOUND where that one is below `height_min`, or its tree is not kept.
    """

    address: Address
    height_min: Unsigned = 0


class TransactionProofQuery(Struct, frozen=True, tag=9):
    """A transaction under a certified checkpoint; faults with NOT_FOUND until it is final."""

    id: Digest


class GenesisQuery(Struct, frozen=True, tag=10):
    """The network's genesis; faults with TOO_LARGE."""


class HandOffQuery(Struct, frozen=True, tag=22):
    """How an epoch ended; faults with NOT_FOUND while it has not, or where that is not kept."""

    epoch: Unsigned


class ActivityQuery(Struct, frozen=True, tag=11):
    """Transactions of an account, the newest first; faults with NOT_FOUND without a history."""

    address: Address
    before: tuple[Unsigned, U32] | None
    """(height, index) of a transaction that is not wanted any more; None: from the newest."""
    count_max: PageCount


class EventsQuery(Struct, frozen=True, tag=12):
    """Events of a topic, the newest first; faults with NOT_FOUND without a history."""

    topic: Topic
    source: Address | None
    """None: whoever tells."""
    before: tuple[Unsigned, U32, U16] | None
    """(height, index, number) of an event that is not wanted any more."""
    count_max: PageCount


class EvidenceQuery(Struct, frozen=True, tag=20):
    """The proofs of equivocations that the validator keeps."""


class VerifierQuery(Struct, frozen=True, tag=21):
    """What the validator verifies signatures with, and how that goes."""


Query = (
    StatusQuery
    | ValidatorsQuery
    | AccountQuery
    | TransactionQuery
    | BlockQuery
    | BlocksQuery
    | CheckpointQuery
    | AccountProofQuery
    | TransactionProofQuery
    | GenesisQuery
    | HandOffQuery
    | ActivityQuery
    | EventsQuery
    | EvidenceQuery
    | VerifierQuery
)


class SyncInfo(Struct, frozen=True):
    """How a validator comes to stand where the others do."""

    phase: Literal["snapshot", "blocks", "following", "observing"]
    """It fetches a snapshot of the state, takes blocks from peers, follows consensus, or is an
    observer that is up with its peers."""
    height: Unsigned = 0
    """Of the snapshot that is fetched; 0: none is."""
    parts: Unsigned = 0
    """How many of its parts are here, checked and durable,"""
    parts_total: Unsigned = 0
    """and how many there are."""


class StatusAnswer(Struct, frozen=True, tag=1):
    chain_id: Digest
    name: str
    """The network's, from genesis."""
    development: bool
    index: U16
    """The validator's in its committee."""
    version: str
    ready: bool
    """False while it recovers or catches up."""
    epoch: Unsigned
    round: Unsigned
    commit_index: Unsigned
    height: Unsigned
    """Of the latest executed block; 0: none yet."""
    block_hash: Digest
    """Of that block; at height 0 the chain id."""
    timestamp_ms: Unsigned
    """Of that block; at height 0 the genesis'."""
    final_height: Unsigned
    pool_transactions: Unsigned
    gas_price_min: Unsigned
    """The lowest gas price that the pool takes now: 1 unless it is full."""
    sync: SyncInfo = SyncInfo("following")
    disk_low: bool = False
    """Whether it takes no transactions for want of room on its disk."""


class ValidatorInfo(Struct, frozen=True):
    """A member of the committee as the answering validator sees it."""

    index: U16
    scheme: U8
    key_id: Digest
    stake: Unsigned
    reward: Address
    connected: bool
    """Whether a link to it stands; true for itself."""


class ValidatorsAnswer(Struct, frozen=True, tag=2):
    epoch: Unsigned
    quorum: Unsigned
    """The stake that decides."""
    validators: Annotated[tuple[ValidatorInfo, ...], msgspec.Meta(max_length=VALIDATORS_MAX)]
    rules: EpochRules


class AccountAnswer(Struct, frozen=True, tag=3):
    """An account; one that does not exist reads as zeros."""

    height: Unsigned
    """The height of the state that was read."""
    balance: Unsigned
    nonce: Unsigned
    next_nonce: Unsigned
    """The first that neither state nor this validator's pool has used; at least `nonce`."""
    key_id: Digest
    """Zeros: none yet, the address is the only valid key id."""


class TransactionAnswer(Struct, frozen=True, tag=4):
    """A transaction: in the block log, or only remembered by status (then the bytes are empty)."""

    status: Annotated[str, msgspec.Meta(max_length=32)]
    """received, batched, executed, final, or a refusal's label: see `tracker`."""
    height: Unsigned
    """0 where it is in no block."""
    index: U32
    block_hash: Annotated[bytes, msgspec.Meta(max_length=32)]
    body: bytes
    receipt: bytes


class BlockAnswer(Struct, frozen=True, tag=5):
    header: BlockHeader
    block_hash: Digest
    final: bool
    bodies: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=PAGE_TRANSACTIONS_MAX)]
    """Canonical bodies from `first` on; fewer than asked where the page is full."""
    receipts: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=PAGE_TRANSACTIONS_MAX)]


class BlockSummary(Struct, frozen=True):
    header: BlockHeader
    block_hash: Digest


class BlocksAnswer(Struct, frozen=True, tag=6):
    blocks: Annotated[tuple[BlockSummary, ...], msgspec.Meta(max_length=PAGE_BLOCKS_MAX)]


class CheckpointAnswer(Struct, frozen=True, tag=7):
    certificate: Certificate


class EvidenceInfo(Struct, frozen=True):
    """A proof, with the key that it is to be checked with."""

    equivocation: Equivocation
    scheme: U8
    public_key: Annotated[bytes, msgspec.Meta(max_length=8_192)]


class AccountProofAnswer(Struct, frozen=True, tag=8):
    proved: ProvedAccount


class TransactionProofAnswer(Struct, frozen=True, tag=9):
    proved: ProvedTransaction


class GenesisAnswer(Struct, frozen=True, tag=10):
    genesis: bytes
    """Canonical; hashes to the chain id."""


class HandOffAnswer(Struct, frozen=True, tag=22):
    hand_off: HandOff


class ActivityItem(Struct, frozen=True):
    """A transaction of an account."""

    height: Unsigned
    index: U32
    id: Digest
    sent: bool
    """Whether the account sent it; else it received from it."""
    amount: Unsigned
    """Sent or received in all, fees apart."""
    status: U16
    """The receipt's; only a sender is told of one that failed."""
    kind: Annotated[str, msgspec.Meta(max_length=32)]


class ActivityAnswer(Struct, frozen=True, tag=11):
    items: Annotated[tuple[ActivityItem, ...], msgspec.Meta(max_length=HISTORY_PAGE_MAX)]
    before: tuple[Unsigned, U32] | None
    """Where to go on; None: there is no more.  A page may be empty and not the last."""
    height: Unsigned
    """The last block in the history."""


class EventItem(Struct, frozen=True):
    height: Unsigned
    index: U32
    """Of the transaction."""
    number: U16
    """Of the event in it."""
    id: Digest
    source: Address
    topic: Topic
    data: bytes


class EventsAnswer(Struct, frozen=True, tag=12):
    items: Annotated[tuple[EventItem, ...], msgspec.Meta(max_length=HISTORY_PAGE_MAX)]
    before: tuple[Unsigned, U32, U16] | None
    height: Unsigned


class EvidenceAnswer(Struct, frozen=True, tag=20):
    proofs: Annotated[tuple[EvidenceInfo, ...], msgspec.Meta(max_length=2 * VALIDATORS_MAX)]


class VerifierAnswer(Struct, frozen=True, tag=21):
    """Counts since the validator's start; of a split one, those of its consensus process.

    All are 0 where a library verifies and no compiled kernel does.
    """

    reason: Annotated[str, msgspec.Meta(max_length=1_000)]
    """Which verifier, and why."""
    compiled: bool
    verified: Unsigned = 0
    """Signatures, whatever the verdict."""
    refused: Unsigned = 0
    cache_hits: Unsigned = 0
    """Of a batch's part, each key counts once."""
    cache_misses: Unsigned = 0
    cache_evictions: Unsigned = 0
    cache_keys: Unsigned = 0
    cache_capacity: Unsigned = 0
    """In keys."""
    sampled: Unsigned = 0
    """Verdicts that a library was asked about too; one that differs stops the validator."""


Answer = (
    StatusAnswer
    | ValidatorsAnswer
    | AccountAnswer
    | TransactionAnswer
    | BlockAnswer
    | BlocksAnswer
    | CheckpointAnswer
    | AccountProofAnswer
    | TransactionProofAnswer
    | GenesisAnswer
    | HandOffAnswer
    | ActivityAnswer
    | EventsAnswer
    | EvidenceAnswer
    | VerifierAnswer
)


class SubmitFrame(Struct, frozen=True):
    """Transactions in wire bytes, of many clients."""

    transactions: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=SUBMISSION_TRANSACTIONS_MAX)]


class SubmitAnswer(Struct, frozen=True, tag=1):
    """(code, id, detail) for each, in order; SUCCESS: it is in the pool."""

    results: Annotated[
        tuple[tuple[U16, bytes, str], ...], msgspec.Meta(max_length=SUBMISSION_TRANSACTIONS_MAX)
    ]


QUERY_CODEC: Final = Codec[Query](Query, 1_024)
ANSWER_CODEC: Final = Codec["Answer | Fault"](Answer | Fault, _ANSWER_SIZE_BYTES_MAX)
SUBMIT_CODEC: Final = Codec[SubmitFrame](SubmitFrame, SUBMISSION_SIZE_BYTES_MAX + 64 * 1024)
SUBMIT_ANSWER_CODEC: Final = Codec["SubmitAnswer | Fault"](SubmitAnswer | Fault, 4 * 1024 * 1024)
