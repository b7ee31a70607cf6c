"""Own batches, from sealing to execution: pushed, acknowledged by a quorum, offered in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from qnet_actors.mempool.metrics import MempoolMetrics
from qnet_actors.mempool.settings import MempoolSettings
from qnet_actors.mempool.store import BatchStore
from qnet_actors.rooms import BatchReady, Effect, Room, StatusChanged, ToPeers, ToRoom
from qnet_actors.wire.batches import BatchRef
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.messages import Batches

BATCHED_STATUS = "batched"


@dataclass(slots=True)
class _Own:
    ref: BatchRef
    ids: dict[bytes, None]
    """Those of its transactions that the pool still holds for it."""
    data: bytes | None
    """Its canonical bytes, until they are pushed for the first time."""
    acked: set[int] = field(default_factory=set)
    pushed: bool = False
    quorum: bool = False
    offered: bool = False
    due_ms: int = 0
    """Without a quorum: when to push again.  Offered: when to offer again."""
    wait_ms: int = 0
    pushed_ms: int = 0
    quorum_ms: int = 0


class Dissemination:
    """The own batches of a shard that are not executed.

    Few are without a quorum at a time: what a restart brings back beyond that waits its turn.
    """

    def __init__(
        self,
        *,
        committee: Committee,
        own_index: int,
        store: BatchStore,
        settings: MempoolSettings,
        metrics: MempoolMetrics,
    ) -> None:
        self._committee = committee
        self._own_index = own_index
        self._peers = tuple(i for i in range(len(committee)) if i != own_index)
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._own: dict[bytes, _Own] = {}
        # Not offered yet, by rising sequence, for each shard: a restart with fewer shards hands
        # the batches of others to this one.
        self._order: dict[int, deque[_Own]] = {}
        self._unpushed: deque[_Own] = deque()
        self._without_quorum: dict[bytes, _Own] = {}
        self._wake_ms: int | None = None

    @property
    def unexecuted(self) -> int:
        return len(self._own)

    @property
    def without_quorum(self) -> int:
        return len(self._without_quorum) + len(self._unpushed)

    @property
    def transactions(self) -> int:
        """Of own batches, those that the pool still holds for them."""
        return sum(len(own.ids) for own in self._own.values())

    @property
    def congested(self) -> bool:
        """Whether no batch may be sealed: quorums, or execution, lag behind."""
        return (
            self.without_quorum >= self._settings.batches_without_quorum_max
            or len(self._own) >= self._settings.batches_unexecuted_max
        )

    def __contains__(self, digest: object) -> bool:
        return digest in self._own

    def add(self, ref: BatchRef, ids: Iterable[bytes], data: bytes | None = None) -> None:
        """A batch that the store holds; `push` sends it.  Sequences of a shard rise.

        `ids` are those of its transactions that the pool holds; `data` saves reading it back.
        """
        own = _Own(ref, dict.fromkeys(ids), data)
        own.acked.add(self._own_index)
        self._own[ref.digest] = own
        self._order.setdefault(ref.shard, deque()).append(own)
        self._unpushed.append(own)

    def push(self, now_ms: int) -> list[Effect]:
        """Sends what was not sent yet, as far as the bound on batches without a quorum allows."""
        effects: list[Effect] = []
        while self._unpushed and (
            len(self._without_quorum) < self._settings.batches_without_quorum_max
        ):
            own = self._unpushed.popleft()
            if own.ref.digest not in self._own:
                continue
            own.pushed = True
            own.pushed_ms = now_ms
            self._without_quorum[own.ref.digest] = own
            own.wait_ms = self._settings.resend_ms_min
            effects += self._send(own, self._peers, now_ms)
            effects += self._count(own, now_ms)
        return effects

    def _send(self, own: _Own, peers: tuple[int, ...], now_ms: int) -> list[Effect]:
        own.due_ms = now_ms + own.wait_ms
        self._wake_at(own.due_ms)
        data = self._store.encoded(own.ref.digest) if own.data is None else own.data
        own.data = None
        if data is None or not peers:
            return []
        everyone = len(peers) == len(self._peers)
        return [ToPeers(Batches((data,)), None if everyone else peers)]

    def acked(self, peer: int, digests: Iterable[bytes], now_ms: int) -> list[Effect]:
        """`peer` says that it holds batches durably; unknown digests are passed over."""
        effects: list[Effect] = []
        for digest in digests:
            own = self._own.get(digest)
            if own is not None and own.pushed and peer not in own.acked:
                self._metrics.acks_received += 1
                own.acked.add(peer)
                effects += self._count(own, now_ms)
        if effects:
            effects += self.push(now_ms)
        return effects

    def _count(self, own: _Own, now_ms: int) -> list[Effect]:
        """On a quorum: the status of its transactions, and whatever is now next in sequence.

        What left the pool before the quorum has its final status already.
        """
        if own.quorum or not self._committee.has_quorum(own.acked):
            return []
        own.quorum = True
        own.quorum_ms = now_ms - own.pushed_ms
        self._without_quorum.pop(own.ref.digest, None)
        status = StatusChanged(BATCHED_STATUS, tuple(own.ids))
        told = [ToRoom(Room.GATEWAY, status)] if own.ids else []
        return [*told, *self._offer_next(own.ref.shard, now_ms)]

    def _offer_next(self, shard: int, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        order = self._order[shard]
        while order and (order[0].quorum or order[0].ref.digest not in self._own):
            own = order.popleft()
            if own.ref.digest in self._own:
                own.offered = True
                own.wait_ms = self._settings.offer_again_ms
                effects.append(self._offer(own, now_ms))
        return effects

    def _offer(self, own: _Own, now_ms: int) -> Effect:
        own.due_ms = now_ms + own.wait_ms
        self._wake_at(own.due_ms)
        return ToRoom(Room.VALIDATOR, BatchReady(own.ref, own.quorum_ms))

    def dropped(self, refs: Iterable[BatchRef], now_ms: int) -> list[Effect]:
        """Offers again what fell below gc_round, unless it is executed."""
        effects: list[Effect] = []
        for ref in sorted(refs, key=lambda ref: (ref.shard, ref.sequence)):
            own = self._own.get(ref.digest)
            if own is not None and own.offered:
                effects.append(self._offer(own, now_ms))
        return effects

    def peer_up(self, peer: int, now_ms: int) -> list[Effect]:
        """Pushes again to `peer` what it has not acknowledged and what has no quorum."""
        effects: list[Effect] = []
        if peer in self._peers:
            for own in self._without_quorum.values():
                if peer not in own.acked:
                    self._metrics.batches_resent += 1
                    effects += self._send(own, (peer,), now_ms)
        return effects

    def tick(self, now_ms: int) -> list[Effect]:
        """Pushes to those that have not acknowledged, and offers again, each with back-off."""
        if self._wake_ms is None or now_ms < self._wake_ms:
            return []
        self._wake_ms = None
        settings, effects = self._settings, list[Effect]()
        for own in self._own.values():
            if (not own.offered and own.quorum) or not own.pushed:
                continue
            if now_ms < own.due_ms:
                self._wake_at(own.due_ms)
            elif own.offered:
                own.wait_ms *= 2
                effects.append(self._offer(own, now_ms))
            else:
                own.wait_ms = min(2 * own.wait_ms, settings.resend_ms_max)
                self._metrics.batches_resent += 1
                missing = tuple(peer for peer in self._peers if peer not in own.acked)
                effects += self._send(own, missing, now_ms)
        return effects

    def ages_ms(self, digests: Iterable[bytes], now_ms: int) -> list[int]:
        """How long ago those of `digests` were first pushed that are own and not executed."""
        found = (self._own.get(digest) for digest in digests)
        return [now_ms - own.pushed_ms for own in found if own is not None and own.pushed]

    def left(self, digest: bytes, id_: bytes) -> bool:
        """A transaction of a batch left the pool; True: that was the last one."""
        own = self._own.get(digest)
        if own is None:
            return False
        own.ids.pop(id_, None)
        return not own.ids

    def finished(self, digest: bytes, now_ms: int) -> list[Effect]:
        """A batch is executed, or has nothing left to execute."""
        own = self._own.pop(digest, None)
        if own is None:
            return []
        self._without_quorum.pop(digest, None)
        # What waited behind it in sequence, or for its place among those without a quorum.
        return [*self._offer_next(own.ref.shard, now_ms), *self.push(now_ms)]

    def _wake_at(self, due_ms: int) -> None:
        if self._wake_ms is None or due_ms < self._wake_ms:
            self._wake_ms = due_ms

    def wake_ms(self) -> int | None:
        if self._unpushed and len(self._without_quorum) < (
            self._settings.batches_without_quorum_max
        ):
            return 0
        return self._wake_ms
