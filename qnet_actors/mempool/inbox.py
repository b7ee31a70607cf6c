"""Batches of other validators: taken in, verified off the event loop, held, acknowledged.

A batch passes these stations: its header is looked at and held against quotas; a job decodes it and
checks its form; its keys are resolved, or asked for; jobs verify its signatures; then it is held.
What a peer may have on the way is bounded by bytes.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from qnet_actors.mempool.entries import Entry, rows_of
from qnet_actors.mempool.fetching import Fetching
from qnet_actors.mempool.holdings import Holdings
from qnet_actors.mempool.keys import KeyTable
from qnet_actors.mempool.metrics import MempoolMetrics
from qnet_actors.mempool.pool import Pool
from qnet_actors.mempool.retention import Retention
from qnet_actors.mempool.settings import MempoolSettings
from qnet_actors.mempool.store import PutBatch, PutKeys, Write
from qnet_actors.mempool.validity import (
    Opened,
    Refused,
    Verifier,
    open_batch,
    peek,
    verify_rows,
)
from qnet_actors.rooms import BatchesHeld, Effect, Persist, Room, Run, ToPeers, ToRoom
from qnet_actors.wire.batches import BatchHeader
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.limits import MESSAGE_KEYS_MAX
from qnet_actors.wire.messages import BatchAcks, KeyRequest, Keys, PublicKey
from qnet_actors.wire.schemes import key_id

_REFUSED_MAX: Final = 4_096


@dataclass(slots=True)
class _Job:
    """A batch on its way, from one peer."""

    peer: int
    header: BatchHeader
    digest: bytes
    data: bytes
    opened: Opened | None = None
    parts_left: int = 0
    valid: bool = True
    missing: set[bytes] = field(default_factory=set)
    """Key ids asked for and not answered yet."""
    key_tries: int = 0
    due_ms: int = 0


class Inbox:
    """Takes batches of others for one shard."""

    def __init__(
        self,
        *,
        chain_id: bytes,
        schemes: frozenset[int],
        committee: Committee,
        own_index: int,
        holdings: Holdings,
        pool: Pool,
        fetching: Fetching,
        retention: Retention,
        verifier: Verifier,
        settings: MempoolSettings,
        metrics: MempoolMetrics,
    ) -> None:
        self._chain_id = chain_id
        self._schemes = schemes
        self._committee = committee
        self._own_index = own_index
        self._peers = tuple(i for i in range(len(committee)) if i != own_index)
        self._holdings = holdings
        self._pool = pool
        self._fetching = fetching
        self._retention = retention
        self._verifier = verifier
        self._settings = settings
        self._metrics = metrics
        self._pending_bytes: Counter[int] = Counter()
        self._pending_batches: Counter[int] = Counter()
        # Author -> (invalid batches pushed, time until which it is not listened to).
        self._penalties: dict[int, tuple[int, int]] = {}
        # From several peers at once, so that none can keep another's copy out by sending its own.
        self._jobs: dict[bytes, dict[int, _Job]] = {}
        self._for_keys: dict[tuple[bytes, int], _Job] = {}
        # Which of those wait for a key, in order.
        self._askers: dict[bytes, dict[tuple[bytes, int], None]] = {}
        self._refused: OrderedDict[bytes, Code] = OrderedDict()
        # Pooled transactions left to another's batch, and until when.
        self._left: deque[tuple[int, list[Entry]]] = deque()

    def __contains__(self, digest: object) -> bool:
        """Whether a batch is on its way."""
        return digest in self._jobs

    def receive(self, peer: int, batches: Sequence[bytes], now_ms: int) -> list[Effect]:
        """Batches pushed by their author or sent on request, from `peer`."""
        effects: list[Effect] = []
        again: dict[int, list[bytes]] = {}
        for data in batches:
            self._metrics.batches_received += 1
            try:
                header, digest = peek(data)
                if digest in self._holdings.store:
                    if peer == header.author and self._retention.is_first(header, digest):
                        again.setdefault(peer, []).append(digest)
                    continue
                self._check(peer, header, digest, len(data), now_ms)
            except QnetError as error:
                self._metrics.batches_refused[error.code] += 1
                continue
            job = _Job(peer, header, digest, data)
            self._jobs.setdefault(digest, {})[peer] = job
            self._pending_bytes[peer] += len(data)
            self._pending_batches[peer] += 1
            self._fetching.arriving(digest, now_ms)
            call = partial(open_batch, data, self._chain_id, self._schemes)
            effects.append(Run(call, partial(self._opened, job)))
        for author, digests in again.items():
            # The author did not hear of it, or forgot.
            self._metrics.acks_sent += len(digests)
            effects.append(ToPeers(BatchAcks(tuple(digests)), (author,)))
        return effects

    def _check(
        self, peer: int, header: BatchHeader, digest: bytes, size_bytes: int, now_ms: int
    ) -> None:
        """Raises `QnetError` where a batch is not to be looked at any further."""
        if digest in self._refused:
            raise QnetError(self._refused[digest])
        if header.author >= len(self._committee):
            raise QnetError(Code.UNKNOWN_AUTHOR)
        if header.epoch != self._committee.epoch:
            raise QnetError(Code.WRONG_EPOCH)
        if header.chain_id != self._chain_id:
            raise QnetError(Code.WRONG_CHAIN)
        settings = self._settings
        if (
            self._pending_bytes[peer] + size_bytes > settings.peer_pending_size_bytes_max
            or self._pending_batches[peer] >= settings.peer_pending_batches_max
        ):
            raise QnetError(Code.BUSY, "the peer has too much on its way")
        if peer in self._jobs.get(digest, ()):
            raise QnetError(Code.DUPLICATE)
        if digest in self._holdings.wanted:
            self._check_quota(header, digest, size_bytes)
            return
        if peer != header.author:
            raise QnetError(Code.UNEXPECTED_MESSAGE, "neither pushed by its author nor asked for")
        if now_ms < self._penalties.get(peer, (0, 0))[1]:
            raise QnetError(Code.BUSY, "the author has pushed invalid batches")
        self._check_quota(header, digest, size_bytes)

    def _check_quota(self, header: BatchHeader, digest: bytes, size_bytes: int) -> None:
        """Raises `QnetError` where a batch may not be held besides those of its author here."""
        if digest not in self._holdings.wanted:
            self._retention.check_quota(header, digest, size_bytes)
        elif digest not in self._holdings.committed and header.author != self._own_index:
            self._retention.check_named(header, size_bytes)

    def _opened(self, job: _Job, result: Opened | Refused, now_ms: int) -> list[Effect]:
        """Form and static rules are checked: resolves the keys."""
        if isinstance(result, Refused):
            self._refuse(job, result.code, result.of_bytes, now_ms)
            return []
        job.opened = result
        return self._resolve(job, now_ms)

    def _resolve(self, job: _Job, now_ms: int) -> list[Effect]:
        opened = job.opened
        if opened is None:
            raise QnetError(Code.INTERNAL, "keys are resolved before a batch is opened")
        scheme = job.header.scheme
        keys = self._holdings.keys.table(scheme, opened.key_ids, opened.brought)
        if not isinstance(keys, KeyTable):
            if any(self._holdings.keys.get(id_) is not None for id_ in keys):
                # A key id covers the scheme: what names another scheme's key is never valid.
                self._refuse(job, Code.UNKNOWN_KEY, True, now_ms)
                return []
            job.missing = set(keys)
            self._for_keys[job.digest, job.peer] = job
            for id_ in job.missing:
                self._askers.setdefault(id_, {})[job.digest, job.peer] = None
            return self._ask_for_keys(job, keys, now_ms)
        return self._verify(job, opened, keys)

    def _verify(self, job: _Job, opened: Opened, keys: KeyTable) -> list[Effect]:
        count, rows = job.header.count, self._settings.verify_rows
        starts = range(0, count, rows)
        job.parts_left = len(starts)
        then = partial(self._part_verified, job)
        return [
            Run(
                partial(verify_rows, self._verifier, opened, keys, start, min(start + rows, count)),
                then,
            )
            for start in starts
        ]

    def _part_verified(self, job: _Job, valid: bool, now_ms: int) -> list[Effect]:
        job.parts_left -= 1
        job.valid = job.valid and valid
        if job.parts_left:
            return []
        self._metrics.signatures_verified += job.header.count
        if not job.valid:
            self._refuse(job, Code.BAD_SIGNATURE, True, now_ms)
            return []
        return self._accept(job, now_ms)

    def _accept(self, job: _Job, now_ms: int) -> list[Effect]:
        """The batch is valid: holds it, says so to the validator, and to its author."""
        opened, digest = job.opened, job.digest
        if opened is None:
            raise QnetError(Code.INTERNAL, "a batch is accepted before it is opened")
        store = self._holdings.store
        if digest in store:
            self._end(job)
            return []
        try:
            self._check_quota(job.header, digest, len(job.data))
        except QnetError as error:
            self._refuse(job, error.code, False, now_ms)
            return []
        self._end(job)
        self._metrics.batches_accepted += 1
        self._metrics.batches_fetched += self._fetching.obtained(digest)
        self._holdings.wanted.discard(digest)
        self._holdings.committed.discard(digest)
        store.put(opened.batch)
        self._retention.add(job.header, digest, len(job.data), now_ms)
        writes: list[Write] = [PutBatch(digest, job.data)]
        keys = [PublicKey(job.header.scheme, key) for key in opened.brought.values()]
        learned = tuple(key for key in keys if self._holdings.keys.add(key))
        if learned:
            writes.append(PutKeys(learned))
        left = self._pool.seen(rows_of(opened.expanded.ids), digest)
        if left:
            self._left.append((now_ms + self._settings.seen_wait_ms, left))
        effects: list[Effect] = [Persist(tuple(writes))]
        author = job.header.author
        if author in self._peers and self._retention.is_first(job.header, digest):
            self._metrics.acks_sent += 1
            effects.append(ToPeers(BatchAcks((digest,)), (author,)))
        effects.append(ToRoom(Room.VALIDATOR, BatchesHeld((digest,))))
        return effects

    def _refuse(self, job: _Job, code: Code, of_bytes: bool, now_ms: int) -> None:
        self._metrics.batches_refused[code] += 1
        if of_bytes:
            self._refused[job.digest] = code
            if len(self._refused) > _REFUSED_MAX:
                self._refused.popitem(last=False)
            if job.peer == job.header.author:
                self._punish(job.peer, now_ms)
        self._end(job)
        self._fetching.failed(job.digest, now_ms)

    def _punish(self, author: int, now_ms: int) -> None:
        """An honest author never makes an invalid batch, and verifying one costs as a good one."""
        settings = self._settings
        times, _ = self._penalties.get(author, (0, 0))
        wait_ms = min(settings.penalty_ms_min << min(times, 16), settings.penalty_ms_max)
        self._penalties[author] = (times + 1, now_ms + wait_ms)

    def _end(self, job: _Job) -> None:
        """The job holds no bytes of its peer any more."""
        jobs = self._jobs.get(job.digest, {})
        if jobs.pop(job.peer, None) is None:
            return
        if not jobs:
            del self._jobs[job.digest]
        if self._for_keys.pop((job.digest, job.peer), None) is not None:
            self._waits_no_more(job, job.missing)
        self._pending_bytes[job.peer] -= len(job.data)
        self._pending_batches[job.peer] -= 1

    # Keys.

    def _ask_for_keys(self, job: _Job, keys: Sequence[bytes], now_ms: int) -> list[Effect]:
        """Asks who sent the batch first, then the others in turn."""
        others = [peer for peer in self._peers if peer != job.peer]
        turn = [job.peer, *others]
        peer = turn[job.key_tries % len(turn)]
        wait_ms = self._settings.fetch_ms_min << min(job.key_tries // len(turn), 16)
        job.due_ms = now_ms + min(wait_ms, self._settings.fetch_ms_max)
        job.key_tries += 1
        return [
            ToPeers(KeyRequest(tuple(keys[at : at + MESSAGE_KEYS_MAX])), (peer,))
            for at in range(0, len(keys), MESSAGE_KEYS_MAX)
        ]

    def keys(self, message: Keys, now_ms: int) -> list[Effect]:
        """Public keys of a peer; those that no batch waits for are not kept."""
        if not self._for_keys:
            return []
        arrived: dict[bytes, PublicKey] = {}
        for key in message.keys:
            id_ = key_id(key.scheme, key.public_key)
            if id_ in self._askers:
                arrived[id_] = key
        # By key and who waits for it, not by all that wait for anything: a peer may send one key
        # after the other.
        found: dict[tuple[bytes, int], list[bytes]] = {}
        for id_ in arrived:
            for place in self._askers[id_]:
                found.setdefault(place, []).append(id_)
        effects: list[Effect] = []
        for place, ids in found.items():
            job = self._for_keys[place]
            if job.opened is None:
                continue
            if any(arrived[id_].scheme != job.header.scheme for id_ in ids):
                self._refuse(job, Code.UNKNOWN_KEY, True, now_ms)
                continue
            # Kept with the batch, and for good only once its signatures have proved them.
            job.opened.brought.update({id_: arrived[id_].public_key for id_ in ids})
            self._waits_no_more(job, ids)
            if not job.missing:
                effects += self._found_keys(job, now_ms)
        return effects

    def _waits_no_more(self, job: _Job, ids: Iterable[bytes]) -> None:
        """`job` has no use for these keys any more."""
        for id_ in tuple(ids):
            job.missing.discard(id_)
            askers = self._askers[id_]
            askers.pop((job.digest, job.peer), None)
            if not askers:
                del self._askers[id_]

    def _found_keys(self, job: _Job, now_ms: int) -> list[Effect]:
        del self._for_keys[job.digest, job.peer]
        return self._resolve(job, now_ms)

    def tick(self, now_ms: int) -> list[Effect]:
        """Asks again for keys that have not come, and gives up where nobody seems to have them.

        Pooled transactions that another's batch did not bring to execution are pending again.
        """
        while self._left and self._left[0][0] <= now_ms:
            self._pool.restore(self._left.popleft()[1])
        effects: list[Effect] = []
        for job in list(self._for_keys.values()):
            if now_ms < job.due_ms:
                continue
            # Another batch, or a client, may have brought them.
            known = [id_ for id_ in job.missing if self._holdings.keys.get(id_) is not None]
            self._waits_no_more(job, known)
            if not job.missing:
                effects += self._found_keys(job, now_ms)
            elif job.key_tries >= self._settings.key_attempts_max:
                self._refuse(job, Code.UNKNOWN_KEY, False, now_ms)
            else:
                effects += self._ask_for_keys(job, sorted(job.missing), now_ms)
        return effects

    def wake_ms(self) -> int | None:
        due = [job.due_ms for job in self._for_keys.values()]
        if self._left:
            due.append(self._left[0][0])
        return min(due, default=None)
