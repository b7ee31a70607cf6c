"""What a validator answers its gateways: from state, block log and what it remembers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeVar

from qnet_actors import __version__
from qnet_actors.crypto import Choice
from qnet_actors.gateway.events import BlockEvent, CheckpointEvent, StatusEvent
from qnet_actors.gateway.queries import (
    GENESIS_SIZE_BYTES_MAX,
    PAGE_SIZE_BYTES_MAX,
    AccountAnswer,
    AccountProofAnswer,
    AccountProofQuery,
    AccountQuery,
    ActivityAnswer,
    ActivityItem,
    ActivityQuery,
    Answer,
    BlockAnswer,
    BlockQuery,
    BlocksAnswer,
    BlocksQuery,
    BlockSummary,
    CheckpointAnswer,
    CheckpointQuery,
    EventItem,
    EventsAnswer,
    EventsQuery,
    EvidenceAnswer,
    EvidenceInfo,
    EvidenceQuery,
    GenesisAnswer,
    GenesisQuery,
    HandOffAnswer,
    HandOffQuery,
    Query,
    StatusAnswer,
    StatusQuery,
    SyncInfo,
    TransactionAnswer,
    TransactionProofAnswer,
    TransactionProofQuery,
    TransactionQuery,
    ValidatorInfo,
    ValidatorsAnswer,
    ValidatorsQuery,
    VerifierAnswer,
    VerifierQuery,
)
from qnet_actors.gateway.tracker import EXECUTED, FINAL, Tracker
from qnet_actors.ledger import BlockQueries, LedgerQueries
from qnet_actors.light import Account, AccountProof, ProvedAccount
from qnet_actors.network.settings import HostSettings
from qnet_actors.rooms import JoinProgress
from qnet_actors.validators import ValidatorCore, ValidatorStatus
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.evidence import Equivocation
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.rules import EpochRules

if TYPE_CHECKING:
    from qnet_actors.ledger import HandOffs, History
    from qnet_actors.network.compose import Validator

T = TypeVar("T")
Q = TypeVar("Q")
NO_MEMBER: Final = 2**16 - 1
"""The index of who is not of the committee."""
Proof = tuple[bytes, Account | None, AccountProof]


class Connected(Protocol):
    """The part of `Neighbours` that is shown."""

    @property
    def up(self) -> tuple[int, ...]:
        """The names of those to whom a link stands."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What answers are read from, wherever the rooms live."""

    committee: Committee
    rules: EpochRules
    """Of the epoch."""
    own: int | None
    """The place in it; None: not of it."""
    status: Callable[[], ValidatorStatus]
    equivocations: Callable[[], Sequence[Equivocation]]
    log: BlockQueries
    """What `ledger` reads."""
    ledger: LedgerQueries
    """Its calls may wait, and are made in threads."""
    account: Callable[[bytes], Awaitable[AccountAnswer]]
    prove: Callable[[bytes, int], Proof]
    """(root, account or None, proof) of an address at a checkpoint; may wait.

    Raises `QnetError(NOT_FOUND)`.
    """
    pool_transactions: Callable[[], int]
    hand_offs: HandOffs | None = None
    """None: epochs never end here."""


def packed_sources(validator: Validator, hand_offs: HandOffs) -> Sources:
    """The rooms of this process."""
    ledger = LedgerQueries(validator.stores.log, validator.state)
    shards, consensus = validator.shards, validator.consensus

    async def account(address: bytes) -> AccountAnswer:
        found = ledger.account(address)
        return AccountAnswer(
            height=found.height,
            balance=found.balance,
            nonce=found.nonce,
            next_nonce=max(
                (shard.next_nonce(address, found.nonce) for shard in shards), default=found.nonce
            ),
            key_id=found.key_id,
        )

    return Sources(
        committee=validator.committee,
        rules=validator.rules,
        own=validator.own,
        status=lambda: consensus.status,
        equivocations=(
            consensus.evidence.equivocations if isinstance(consensus, ValidatorCore) else tuple
        ),
        log=validator.stores.log,
        ledger=ledger,
        account=account,
        prove=validator.state.prove,
        pool_transactions=lambda: sum(shard.metrics.pool_transactions for shard in shards),
        hand_offs=hand_offs,
    )


def open_history(genesis: Genesis, settings: HostSettings, log: BlockQueries) -> History | None:
    """The history that a validator keeps, which fills from now on; reads the log."""
    if not settings.history_blocks:
        return None
    from qnet_actors.ledger import History, LogOptions

    # Where blocks are pruned, what a power failure took could not be derived again.
    durable = settings.keep.retention != "archive" and genesis.parameters.power_durability
    history = History(
        settings.directory / "history",
        genesis,
        log,
        settings.history_blocks,
        options=LogOptions(fsync=durable),
    )
    history.poke()
    return history


class Answers:
    """Reads one validator for gateways.  Reads of the block log run in threads, and those of
    the history in its own.

    The constructor reads the log too.
    """

    def __init__(
        self,
        genesis: Genesis,
        sources: Sources,
        links: Connected,
        history: History | None = None,
        choice: Choice | None = None,
    ) -> None:
        self._genesis: Final = genesis
        self._chain_id: Final = genesis.chain_id()
        self._sources = sources
        self._links: Final = links
        self._history: Final = history
        self._choice: Final = choice
        self._tracker: Final = Tracker()
        self._ledger = sources.ledger
        self._latest = self._ledger.header(None)
        self._tracker.height = self._ledger.last_height()
        certificate = self._ledger.certificate()
        if certificate is not None:
            self._tracker.final_height = certificate.checkpoint.height

    def renew(self, sources: Sources) -> None:
        """The rooms were made anew, for another epoch."""
        self._sources, self._ledger = sources, sources.ledger

    def note(self, event: BlockEvent | StatusEvent | CheckpointEvent) -> None:
        """Keeps up with what happens."""
        self._tracker.apply(event, _now_ms())
        if isinstance(event, BlockEvent):
            self._latest = event.header
            if self._history is not None:
                self._history.poke()

    def received(self, ids: list[bytes]) -> None:
        """Notes transactions that the pool took."""
        self._tracker.received(ids, _now_ms())

    async def answer(
        self,
        request: Query,
        *,
        ready: bool,
        joining: JoinProgress | None = None,
        disk_low: bool = False,
    ) -> Answer:
        """The answer of the same name; raises `QnetError`: NOT_FOUND, PRUNED, or BUSY.

        `joining`: how much is here of the snapshot that is being fetched.  `disk_low`: whether
        nothing is taken for want of room.
        """
        match request:
            case StatusQuery():
                return self._status(ready, joining, disk_low)
            case ValidatorsQuery():
                return self._validators()
            case AccountQuery(address=address, height=None):
                return await self._sources.account(address)
            case AccountQuery():
                return await self._from_history(self._account_at, request)
            case ActivityQuery():
                return await self._from_history(self._activity, request)
            case EventsQuery():
                return await self._from_history(self._events, request)
            case TransactionQuery(id=id_):
                return await asyncio.to_thread(self._transaction, id_)
            case BlockQuery():
                return await asyncio.to_thread(self._block, request)
            case BlocksQuery(before=before, count_max=count_max):
                return await asyncio.to_thread(self._blocks, before, count_max)
            case CheckpointQuery():
                return await asyncio.to_thread(self._checkpoint)
            case AccountProofQuery(address=address, height_min=height_min):
                return await asyncio.to_thread(self._account_proof, address, height_min)
            case TransactionProofQuery(id=id_):
                return await asyncio.to_thread(self._transaction_proof, id_)
            case GenesisQuery():
                return await asyncio.to_thread(self._genesis_answer)
            case HandOffQuery(epoch=epoch):
                return await asyncio.to_thread(self._hand_off, epoch)
            case EvidenceQuery():
                return self._evidence()
            case VerifierQuery():
                return self._verifier()

    def _status(self, ready: bool, joining: JoinProgress | None, disk_low: bool) -> StatusAnswer:
        consensus, latest, own = self._sources.status(), self._latest, self._sources.own
        settled: Literal["observing", "following"] = "observing" if own is None else "following"
        sync = SyncInfo("blocks" if consensus.catching_up else settled)
        if joining is not None:
            sync = SyncInfo("snapshot", joining.height, joining.parts, joining.parts_total)
        return StatusAnswer(
            chain_id=self._chain_id,
            name=self._genesis.name,
            development=self._genesis.development,
            index=NO_MEMBER if own is None else own,
            version=__version__,
            ready=ready and sync.phase == settled,
            epoch=self._sources.committee.epoch,
            round=consensus.round,
            commit_index=consensus.commit_index,
            height=latest.height if latest else 0,
            block_hash=latest.hash() if latest else self._chain_id,
            timestamp_ms=latest.timestamp_ms if latest else self._genesis.timestamp_ms,
            final_height=self._tracker.final_height,
            pool_transactions=self._sources.pool_transactions(),
            gas_price_min=1,
            sync=sync,
            disk_low=disk_low,
        )

    def _validators(self) -> ValidatorsAnswer:
        committee, up = self._sources.committee, {self._sources.own, *self._links.up}
        return ValidatorsAnswer(
            epoch=committee.epoch,
            quorum=committee.quorum,
            rules=self._sources.rules,
            validators=tuple(
                ValidatorInfo(
                    index=index,
                    scheme=member.scheme,
                    key_id=committee.key_id(index),
                    stake=member.stake,
                    reward=member.reward,
                    connected=index in up,
                )
                for index, member in enumerate(committee.members)
            ),
        )

    def _verifier(self) -> VerifierAnswer:
        choice = self._choice
        if choice is None or choice.counters is None:
            return VerifierAnswer("" if choice is None else choice.reason[:1_000], compiled=False)
        counted = choice.counters()
        cache, oracle = counted.cache, counted.oracle
        return VerifierAnswer(
            reason=choice.reason[:1_000],
            compiled=True,
            verified=counted.verified,
            refused=counted.refused,
            cache_hits=cache.hits,
            cache_misses=cache.misses,
            cache_evictions=cache.evictions,
            cache_keys=cache.keys,
            cache_capacity=cache.capacity,
            sampled=0 if oracle is None else oracle.accepts + oracle.rejects,
        )

    def _evidence(self) -> EvidenceAnswer:
        members = self._sources.committee.members
        return EvidenceAnswer(
            tuple(
                EvidenceInfo(proof, members[proof.author].scheme, members[proof.author].public_key)
                for proof in self._sources.equivocations()
            )
        )

    def _transaction(self, id_: bytes) -> TransactionAnswer:
        found = self._ledger.transaction(id_)
        if found is None:
            tracked = self._tracker.status(id_)
            if tracked is None or tracked.status in (EXECUTED, FINAL):
                raise QnetError(Code.NOT_FOUND, f"no transaction {id_.hex()} is known here")
            return TransactionAnswer(tracked.status, 0, 0, b"", b"", b"")
        height = found.place.height
        return TransactionAnswer(
            status=FINAL if self._is_final(height) else EXECUTED,
            height=height,
            index=found.place.position,
            block_hash=found.block_hash,
            body=found.body,
            receipt=found.receipt,
        )

    def _block(self, request: BlockQuery) -> BlockAnswer:
        if not request.count_max:
            header = _there(self._ledger.header(request.selector))
            return BlockAnswer(header, header.hash(), self._is_final(header.height), (), ())
        record = _there(self._ledger.block(request.selector))
        end = request.first
        size_bytes = 0
        while end < min(len(record.bodies), request.first + request.count_max):
            size_bytes += len(record.bodies[end]) + len(record.receipts[end])
            if size_bytes > PAGE_SIZE_BYTES_MAX and end > request.first:
                break
            end += 1
        return BlockAnswer(
            header=record.header,
            block_hash=record.header.hash(),
            final=self._is_final(record.header.height),
            bodies=record.bodies[request.first : end],
            receipts=record.receipts[request.first : end],
        )

    def _blocks(self, before: int | None, count_max: int) -> BlocksAnswer:
        headers = self._ledger.headers_before(before, count_max)
        return BlocksAnswer(tuple(BlockSummary(header, hash_) for header, hash_ in headers))

    def _checkpoint(self) -> CheckpointAnswer:
        certificate = self._ledger.certificate()
        if certificate is None:
            raise QnetError(Code.NOT_FOUND, "no checkpoint is certified yet")
        return CheckpointAnswer(certificate)

    def _account_proof(self, address: bytes, height_min: int) -> AccountProofAnswer:
        certificate = self._checkpoint().certificate
        height = certificate.checkpoint.height
        if height < height_min:
            raise QnetError(Code.NOT_FOUND, f"height {height} is the newest that is certified here")
        root, account, proof = self._sources.prove(address, height)
        if root != certificate.checkpoint.state_root:
            raise QnetError(Code.DIVERGED)
        return AccountProofAnswer(ProvedAccount(certificate, account, proof))

    def _transaction_proof(self, id_: bytes) -> TransactionProofAnswer:
        proved = self._ledger.proved_transaction(id_)
        if proved is None:
            raise QnetError(Code.NOT_FOUND, f"no transaction {id_.hex()} is in a block here")
        return TransactionProofAnswer(proved)

    def _genesis_answer(self) -> GenesisAnswer:
        encoded = encode(self._genesis)
        if len(encoded) > GENESIS_SIZE_BYTES_MAX:
            raise QnetError(Code.TOO_LARGE, "the genesis is too large to be served")
        return GenesisAnswer(encoded)

    def _hand_off(self, epoch: int) -> HandOffAnswer:
        kept = self._sources.hand_offs
        found = None if kept is None else kept.read(epoch)
        if found is None:
            raise QnetError(Code.NOT_FOUND, f"how epoch {epoch} ended is not known here")
        return HandOffAnswer(found)

    async def _from_history(self, read: Callable[[History, Q], T], query: Q) -> T:
        """In the one thread of the history: it holds up nothing but itself."""
        history = self._history
        if history is None:
            raise QnetError(Code.NOT_FOUND, "no validator of this gateway keeps a history")
        # Shielded: whoever gives up does not make room for more before the question is through.
        return await asyncio.shield(asyncio.wrap_future(history.ask(lambda: read(history, query))))

    @staticmethod
    def _account_at(history: History, query: AccountQuery) -> AccountAnswer:
        found = history.account(query.address, query.height or 0)
        return AccountAnswer(found.height, found.balance, found.nonce, found.nonce, found.key_id)

    @staticmethod
    def _activity(history: History, query: ActivityQuery) -> ActivityAnswer:
        found, before = history.transactions(query.address, query.before, query.count_max)
        items = tuple(
            ActivityItem(
                item.height, item.position, item.id, item.sent, item.amount, item.status, item.kind
            )
            for item in found
        )
        return ActivityAnswer(items, before, history.height)

    @staticmethod
    def _events(history: History, query: EventsQuery) -> EventsAnswer:
        found, before = history.events(query.topic, query.source, query.before, query.count_max)
        items = tuple(
            EventItem(
                item.height,
                item.position,
                item.number,
                item.id,
                item.source,
                item.topic,
                item.data,
            )
            for item in found
        )
        return EventsAnswer(items, before, history.height)

    def _is_final(self, height: int) -> bool:
        return height <= self._tracker.final_height


def _there(found: T | None) -> T:
    if found is None:
        raise QnetError(Code.NOT_FOUND, "no such block is known here")
    return found


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
