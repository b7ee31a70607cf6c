"""The core of a mempool shard: takes events of the seam, joins the parts of the room."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from qnet_actors.kernels.expand import expand
from qnet_actors.mempool.admission import Admission
from qnet_actors.mempool.backlog import Backlog
from qnet_actors.mempool.batcher import Batcher, assemble
from qnet_actors.mempool.dissemination import Dissemination
from qnet_actors.mempool.entries import PENDING, Entry, entries_of_batch
from qnet_actors.mempool.execution import Execution
from qnet_actors.mempool.fetching import Fetching
from qnet_actors.mempool.holdings import Holdings
from qnet_actors.mempool.inbox import Inbox
from qnet_actors.mempool.metrics import MempoolMetrics
from qnet_actors.mempool.pool import Pool
from qnet_actors.mempool.retention import Retention
from qnet_actors.mempool.serving import Serving
from qnet_actors.mempool.settings import MempoolSettings
from qnet_actors.mempool.store import DropBatches, PutBatch, PutKeys, RecoveredBatch, Write
from qnet_actors.mempool.takeover import Takeover
from qnet_actors.mempool.validity import Verifier
from qnet_actors.rooms import (
    AccountReader,
    BatchesDropped,
    BatchesExpiring,
    BatchesHeld,
    BatchesReleased,
    BlockExecuted,
    Bodies,
    BodiesWanted,
    CheckpointCertified,
    Effect,
    FetchBatches,
    FromPeer,
    Joined,
    PeerUp,
    Persist,
    Room,
    StatusChanged,
    Submit,
    ToRoom,
)
from qnet_actors.wire.batches import Batch
from qnet_actors.wire.blocks import BlockHeader
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.limits import SHARDS_MAX
from qnet_actors.wire.messages import BatchAcks, Batches, BatchRequest, KeyRequest, Keys

EXECUTED_REREAD_MAX: Final = 32
"""Own batches, the newest that are executed, in which a restart looks for what was left out."""
_BODIES_WAITING_MAX: Final = 1_024
_PRUNE_MS: Final = 10_000
_EXPIRING_MAX: Final = 4_096
"""Batches that the validator is asked about at a time."""
_VERIFYING_SHARE: Final = 3
"""Of what a shard takes on, one part of so many may wait for verification: until then a client has
no answer."""
_BODIES_LOOK_MS: Final = 20
"""How often a shard looks for a batch that another shard of the validator may have obtained."""


class MempoolShard:
    """A `rooms.Core`.  `holdings` is shared by the `shard_count` shards of one validator.

    `height` is that of the newest block which `reader` shows.
    """

    def __init__(
        self,
        *,
        genesis: Genesis,
        committee: Committee,
        own_index: int,
        holdings: Holdings,
        verifier: Verifier,
        reader: AccountReader,
        shard: int = 0,
        shard_count: int = 1,
        height: int = 0,
        settings: MempoolSettings | None = None,
        previous: Committee | None = None,
    ) -> None:
        """`previous`: the committee of the epoch before, whose batches may not be executed yet."""
        if not 0 <= shard < shard_count <= SHARDS_MAX:
            raise ValueError(f"shard {shard} of {shard_count}")
        settings = MempoolSettings() if settings is None else settings
        self.metrics: Final = MempoolMetrics()
        self._chain_id = genesis.chain_id()
        self._committee = committee
        self._own_index = own_index
        self._shard = shard
        self._settings = settings
        self._holdings = holdings
        self._height = height
        self._pool = Pool(settings)
        self._backlog = Backlog(settings)
        self._retention = Retention(genesis.parameters.gc_depth, settings)
        self._batcher = Batcher(self._pool, holdings.keys, settings)
        self._dissemination = Dissemination(
            committee=committee,
            own_index=own_index,
            store=holdings.store,
            settings=settings,
            metrics=self.metrics,
        )
        self._fetching = Fetching(
            validators=len(committee),
            own_index=own_index,
            wanted=holdings.wanted,
            settings=settings,
        )
        schemes = frozenset(genesis.schemes)
        self._admission = Admission(
            chain_id=self._chain_id,
            schemes=schemes,
            epochs_end=genesis.parameters.epoch_commits_min > 0,
            pool=self._pool,
            keys=holdings.keys,
            reader=reader,
            verifier=verifier,
            settings=settings,
            metrics=self.metrics,
        )
        self._inbox = Inbox(
            chain_id=self._chain_id,
            schemes=schemes,
            committee=committee,
            own_index=own_index,
            holdings=holdings,
            pool=self._pool,
            fetching=self._fetching,
            retention=self._retention,
            verifier=verifier,
            settings=settings,
            metrics=self.metrics,
        )
        self._execution = Execution(
            pool=self._pool,
            dissemination=self._dissemination,
            retention=self._retention,
            reader=reader,
            store=holdings.store,
            settings=settings,
            metrics=self.metrics,
        )
        self._takeover = Takeover(
            validators=len(committee),
            own_index=own_index,
            pool=self._pool,
            retention=self._retention,
            store=holdings.store,
            take_over=partial(self.take_over, owed=False),
            settings=settings,
            metrics=self.metrics,
        )
        self._serving = Serving(holdings, settings, self.metrics)
        self._bodies: dict[int, tuple[bytes, ...]] = {}
        self._bodies_look_ms = 0
        self._prune_ms = 0
        self._started = False
        self._lost: dict[str, list[bytes]] = {}
        """What the pool could not take over, by status, until the first tick says so."""
        self._sequence = 0
        self._previous = previous
        self._recover(shard_count)

    def _recover(self, shard_count: int) -> None:
        """Takes over the batches of this shard: own ones not executed are disseminated anew."""
        recovered = self._holdings.recovered
        for author, shard, sequence in recovered.sequences:
            if author == self._own_index and shard == self._shard:
                # Others may hold batches that are forgotten here, and would refuse another one of
                # the same sequence, with all that has to wait behind it.
                self._sequence = max(self._sequence, sequence + recovered.forgotten_max)
        mine = [b for b in recovered.batches if b.header.shard % shard_count == self._shard]
        # Batches of an older height first, as `Retention` wants them.
        for batch in sorted(mine, key=lambda b: (b.executed or (0, 0))[0]):
            if batch.digest in self._holdings.store:
                self._retention.add(batch.header, batch.digest, batch.size_bytes, 0)
                if batch.executed is not None:
                    self._retention.executed((batch.digest,), *batch.executed, 0)
        if self._previous is not None:
            self._take_over(mine, self._previous)
        own = [b for b in mine if b.executed is None and b.header.author == self._own_index]
        for batch in sorted(own, key=lambda b: (b.header.shard, b.header.sequence)):
            stored = self._holdings.store.get(batch.digest)
            if stored is not None and stored.header.epoch == self._committee.epoch:
                self._adopt(stored)
        done = [b for b in mine if b.executed and b.header.author == self._own_index]
        done.sort(key=lambda b: b.executed or (0, 0))
        # What a block excluded was pooled again, and the pool did not outlive the restart.
        self._pool_leftovers(done[-EXECUTED_REREAD_MAX:])

    def _take_over(self, held: Sequence[RecoveredBatch], previous: Committee) -> None:
        """Pools what the epoch before left in batches, for no block names those any more.

        Own batches, and those of who has left the committee: they are promises too, and of these
        every validator takes over what it holds.  The nonce sees to it that each is executed once.
        """
        own_key = self._committee.members[self._own_index].public_key
        present = {member.public_key for member in self._committee.members}
        mine = {
            author
            for author, member in enumerate(previous.members)
            if member.public_key == own_key or member.public_key not in present
        }
        promised = [
            batch
            for batch in held
            if not batch.executed
            and batch.header.epoch == previous.epoch
            and batch.header.author in mine
        ]
        self._pool_leftovers(promised)

    def _pool_leftovers(self, batches: Sequence[RecoveredBatch]) -> None:
        """Pools the transactions of held batches that are not executed, as if they were new."""
        entries: list[Entry] = []
        for batch in batches:
            stored = self._holdings.store.get(batch.digest)
            if stored is not None:
                entries += entries_of_batch(stored, expand(stored))
        for entry in entries:
            entry.brings_key = bool(entry.public_key)
        self.take_over(entries)

    def take_over(self, entries: Sequence[Entry], *, owed: bool = True) -> None:
        """Pools verified entries as if they were new, such as the `leftovers` of the epoch before.

        They were promised already, so it does not count how much the shard may take on; the pool's
        own bounds hold, and whoever falls to them is told at the next tick.  What is not `owed` is
        another author's promise: that it finds no room here is no word on what becomes of it.
        """
        if not entries:
            return
        entries = sorted(entries, key=lambda entry: entry.nonce)
        for entry, account in zip(entries, self._admission.accounts(entries), strict=True):
            if entry.nonce < account.nonce:
                continue
            entry.state, entry.batch, entry.seen = PENDING, b"", False
            entry.promised = not owed
            entry.ticket = entry.rank = entry.order = entry.restores = 0
            added = self._pool.add(entry, account)
            if added.code == Code.SUCCESS and entry.brings_key:
                self._admission.learn(entry)
            gone = [evicted for evicted in added.evicted if not evicted.promised]
            if owed and added.code not in (Code.SUCCESS, Code.DUPLICATE):
                gone.append(entry)
            if gone:
                self._lost.setdefault(Code.EVICTED.label, []).extend(e.id for e in gone)
            if added.replaced is not None:
                self._lost.setdefault(Code.REPLACED.label, []).append(added.replaced.id)

    def _adopt(self, batch: Batch) -> None:
        entries = entries_of_batch(batch, expand(batch))
        accounts = self._admission.accounts(entries)
        alive = [
            entry.id
            for entry, account in zip(entries, accounts, strict=True)
            if self._pool.adopt(entry, account)
        ]
        if alive:
            self._dissemination.add(batch.ref, alive)

    # Events.

    def handle(self, event: Any, now_ms: int) -> Sequence[Effect]:
        """Takes an event of the seam; raises TypeError for what is no event of this room."""
        match event:
            case FromPeer():
                return self._from_peer(event, now_ms)
            case Submit():
                busy, crowded = self._pressure(now_ms)
                return self._admission.submit(event, self._height, busy=busy, crowded=crowded)
            case FetchBatches():
                return self._fetch(event, now_ms)
            case BodiesWanted():
                return self._bodies_wanted(event, now_ms)
            case BlockExecuted():
                self._moved_to(event.record.header)
                before = len(self._pool)
                ages_ms = self._dissemination.ages_ms(event.batches, now_ms)
                effects = self._execution.executed(event, now_ms)
                self._backlog.executed(before - len(self._pool), now_ms, ages_ms)
                self._backlog.look(now_ms, self._under_way)
                return [*effects, *self._prune(now_ms)]
            case Joined(record=record):
                self._moved_to(record.header)
                return self._execution.joined(event, now_ms)
            case CheckpointCertified(certificate):
                checkpoint = certificate.checkpoint
                self._retention.certified(checkpoint.height, checkpoint.commit_index)
                return self._prune(now_ms)
            case BatchesDropped(refs):
                return self._dissemination.dropped(refs, now_ms)
            case BatchesReleased(digests):
                return self._released(digests, now_ms)
            case PeerUp(peer):
                return [
                    *self._dissemination.peer_up(peer, now_ms),
                    *self._fetching.peer_up(peer, now_ms),
                ]
            case _:
                raise TypeError(f"not an event of a mempool shard: {type(event).__name__}")

    def _pressure(self, now_ms: int) -> tuple[bool, bool]:
        """(whether nothing more may be taken on, whether only in the place of something else).

        The first where quorums, verification or the disk lag behind, the second where execution
        does.  What waits for a nonce before it does not count, since nothing can be done about it.
        """
        under_way = self._under_way
        self._backlog.look(now_ms, under_way)
        capacity = self._backlog.capacity
        busy = self._busy or self._verifying * _VERIFYING_SHARE >= capacity
        return busy, under_way >= capacity

    @property
    def _verifying(self) -> int:
        metrics = self.metrics
        return metrics.submitted - metrics.admitted - metrics.refused.total()

    @property
    def _under_way(self) -> int:
        """What can be executed without anything more: being verified, ready, or batched."""
        ready = sum(len(entries) for entries in self._pool.ready.values())
        return self._verifying + ready + self._dissemination.transactions

    @property
    def _busy(self) -> bool:
        """Whether quorums or the disk lag behind."""
        return self._dissemination.congested or self._holdings.store.full

    @property
    def _holds_back(self) -> bool:
        """Whether no batch may be sealed now.

        What is sealed cannot give way any more, so the rest of the backlog waits where it can.
        """
        sealed = self._dissemination.transactions
        return self._dissemination.congested or sealed >= self._backlog.sealed_max

    def _from_peer(self, event: FromPeer, now_ms: int) -> Sequence[Effect]:
        peer, message = event.peer, event.message
        if not 0 <= peer < len(self._committee) or peer == self._own_index:
            self.metrics.messages_refused[Code.UNKNOWN_AUTHOR] += 1
            return ()
        match message:
            case Batches(batches):
                effects = self._inbox.receive(peer, batches, now_ms)
            case BatchAcks(digests):
                effects = self._dissemination.acked(peer, digests, now_ms)
            case BatchRequest(digests):
                effects = self._serving.batches(peer, digests, now_ms)
            case KeyRequest(key_ids):
                effects = self._serving.keys(peer, key_ids, now_ms)
            case Keys():
                effects = self._inbox.keys(message, now_ms)
            case _:
                self.metrics.messages_refused[Code.UNEXPECTED_MESSAGE] += 1
                return ()
        return effects

    def _fetch(self, event: FetchBatches, now_ms: int) -> list[Effect]:
        held = tuple(ref.digest for _, ref in event.refs if ref.digest in self._holdings.store)
        effects: list[Effect] = []
        if held:
            effects.append(ToRoom(Room.VALIDATOR, BatchesHeld(held)))
        by_author: dict[int, list[bytes]] = {}
        for author, ref in event.refs:
            if ref.digest not in self._holdings.store:
                by_author.setdefault(author, []).append(ref.digest)
        for author, digests in by_author.items():
            effects += self._fetching.start(digests, (event.peer, author), self._inbox, now_ms)
        return effects

    def _bodies_wanted(self, event: BodiesWanted, now_ms: int) -> list[Effect]:
        if len(self._bodies) >= _BODIES_WAITING_MAX:
            raise QnetError(Code.INTERNAL, "the ledger waits for more commits than it may")
        self._bodies[event.commit_index] = event.digests
        self._bodies_look_ms = now_ms
        missing = [digest for digest in event.digests if digest not in self._holdings.store]
        self._holdings.committed.update(missing)
        return [
            *self._fetching.start(missing, (), self._inbox, now_ms),
            *self._answer_bodies(now_ms),
        ]

    def _moved_to(self, header: BlockHeader) -> None:
        """Nobody waits for the bodies of commits that a block of a peer brought."""
        self._height = max(self._height, header.height)
        for index in [index for index in self._bodies if index <= header.commit_index]:
            del self._bodies[index]

    def _answer_bodies(self, now_ms: int) -> list[Effect]:
        """Answers the ledger for every commit whose batches are all here."""
        self._bodies_look_ms = now_ms + _BODIES_LOOK_MS
        store, effects = self._holdings.store, list[Effect]()
        for commit_index, digests in list(self._bodies.items()):
            if not all(digest in store for digest in digests):
                continue
            batches = [batch for digest in digests if (batch := store.get(digest)) is not None]
            del self._bodies[commit_index]
            self._holdings.committed.difference_update(digests)
            effects.append(ToRoom(Room.LEDGER, Bodies(commit_index, tuple(batches))))
        return effects

    def _prune(self, now_ms: int) -> list[Effect]:
        """Asks the validator to let go what is due: a block may name any of it again."""
        self._prune_ms = now_ms + _PRUNE_MS
        due = self._retention.due(now_ms, self._dissemination)[:_EXPIRING_MAX]
        return [ToRoom(Room.VALIDATOR, BatchesExpiring(due, self._shard))] if due else []

    def _released(self, digests: tuple[bytes, ...], now_ms: int) -> list[Effect]:
        pruned = self._retention.drop(digests, now_ms, self._dissemination)
        if not pruned:
            return []
        for digest in pruned:
            self._holdings.store.discard(digest)
        self.metrics.batches_pruned += len(pruned)
        return [Persist((DropBatches(pruned),))]

    # Time.

    def tick(self, now_ms: int) -> Sequence[Effect]:
        """Seals what is due, sends again, asks again, prunes."""
        if not self._started:
            self._started = True
            self._retention.started(now_ms)
            self._prune_ms = now_ms + _PRUNE_MS
        effects: list[Effect] = []
        self._takeover.tick(now_ms, busy=self._busy)
        for status, ids in self._lost.items():
            self.metrics.transactions_dropped[status] += len(ids)
            effects.append(ToRoom(Room.GATEWAY, StatusChanged(status, tuple(ids))))
        self._lost.clear()
        effects += self._inbox.tick(now_ms)
        effects += self._seal(now_ms)
        effects += self._dissemination.push(now_ms)
        effects += self._dissemination.tick(now_ms)
        effects += self._fetching.tick(now_ms)
        if self._bodies and now_ms >= self._bodies_look_ms:
            effects += self._answer_bodies(now_ms)
        if now_ms >= self._prune_ms and len(self._retention):
            effects += self._execution.sweep(now_ms)
            effects += self._prune(now_ms)
        metrics = self.metrics
        metrics.pool_transactions = len(self._pool)
        metrics.pool_size_bytes = self._pool.size_bytes
        metrics.batches_without_quorum = self._dissemination.without_quorum
        metrics.batches_unexecuted = self._dissemination.unexecuted
        return effects

    def _seal(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        self._backlog.look(now_ms, self._under_way)
        self._batcher.look(now_ms)
        while not self._holds_back:
            self._batcher.under_way = self._dissemination.without_quorum > 0
            entries = self._batcher.take(now_ms)
            if not entries:
                break
            self._sequence += 1
            batch = assemble(
                entries,
                chain_id=self._chain_id,
                epoch=self._committee.epoch,
                author=self._own_index,
                shard=self._shard,
                sequence=self._sequence,
            )
            data = batch.encode()
            self._pool.batched(entries, batch.digest)
            self._holdings.store.put(batch)
            self._retention.add(batch.header, batch.digest, len(data), now_ms)
            self._dissemination.add(batch.ref, [entry.id for entry in entries], data)
            self.metrics.batches_sealed += 1
            self.metrics.transactions_batched += len(entries)
            writes: list[Write] = [PutBatch(batch.digest, data)]
            if self._admission.learned:
                writes.append(PutKeys(tuple(self._admission.learned)))
                self._admission.learned.clear()
            effects.append(Persist(tuple(writes)))
            self._batcher.look(now_ms)
        return effects

    def next_nonce(self, sender: bytes, nonce: int) -> int:
        """The first nonce that neither the account, which is at `nonce`, nor this pool has used."""
        return self._pool.end_of(sender, nonce)

    def leftovers(self) -> list[Entry]:
        """What no batch of this shard holds, for whoever comes after it: see `take_over`."""
        return self._pool.unbatched()

    def wake_ms(self) -> int | None:
        """When `tick` is wanted next."""
        self._batcher.under_way = self._dissemination.without_quorum > 0
        due = [
            self._dissemination.wake_ms(),
            self._fetching.wake_ms(),
            self._inbox.wake_ms(),
            self._takeover.wake_ms(),
            self._prune_ms if len(self._retention) else None,
            self._bodies_look_ms if self._bodies else None,
            None if self._holds_back else self._batcher.due_ms(),
        ]
        return min((at for at in due if at is not None), default=None)
