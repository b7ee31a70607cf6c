"""Admission of transactions from clients: checks cheapest first, each refusal with its code.

Signatures of one submission are verified in one job.  Submissions are released into the pool in
the order in which they came: released as their jobs end, a gap in a sender's nonces would refuse
all that follows it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np

from qnet_actors.mempool.entries import Entry, signature_rows
from qnet_actors.mempool.keys import KeyStore
from qnet_actors.mempool.metrics import MempoolMetrics
from qnet_actors.mempool.pool import Pool
from qnet_actors.mempool.reading import Candidates, Reading, Result
from qnet_actors.mempool.senders import Account, AccountRows
from qnet_actors.mempool.settings import MempoolSettings
from qnet_actors.mempool.validity import Verifier
from qnet_actors.rooms import (
    AccountReader,
    Effect,
    Room,
    Run,
    StatusChanged,
    Submit,
    SubmitResult,
    ToRoom,
)
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.messages import PublicKey
from qnet_actors.wire.schemes import CONTEXT_TRANSACTION, SCHEME_SIZES, Scheme


@dataclass(slots=True)
class _Submission:
    request: int
    results: list[Result | None]
    candidates: Candidates
    size_bytes: int = 0
    verdicts: list[bool] | None = None


class Admission:
    """Takes `Submit` and answers `SubmitResult`; what passes is in the pool by then."""

    def __init__(
        self,
        *,
        chain_id: bytes,
        schemes: frozenset[int],
        pool: Pool,
        keys: KeyStore,
        reader: AccountReader,
        verifier: Verifier,
        settings: MempoolSettings,
        metrics: MempoolMetrics,
    ) -> None:
        self._reading = Reading(chain_id=chain_id, schemes=schemes, pool=pool, keys=keys)
        self._pool = pool
        self._keys = keys
        self._reader = reader
        self._verifier = verifier
        self._settings = settings
        self._metrics = metrics
        self._line: deque[_Submission] = deque()
        self._line_size_bytes = 0
        # Nonces whose signatures are being verified, by sender: a later submission of the sender
        # may go on from them.
        self._under_way: dict[bytes, dict[int, int]] = {}
        # Rotations among them, by sender: until they are in the pool or refused, nobody can say
        # which key is the sender's.
        self._rotating: Counter[bytes] = Counter()
        self.learned: list[PublicKey] = []
        """New keys of transactions in the pool, to be written with the next batch."""

    def submit(self, event: Submit, height: int, busy: bool) -> list[Effect]:
        """Checks all but the signatures, and has those verified.

        `height` is that of the newest executed block; `busy` refuses everything.
        """
        count = len(event.transactions)
        self._metrics.submitted += count
        size_bytes = sum(map(len, event.transactions))
        if count > self._settings.submit_transactions_max:
            return self._refuse_all(event, Code.TOO_MANY_TRANSACTIONS)
        # An empty line takes any submission, so that none is refused for ever.
        over = self._line_size_bytes + size_bytes > self._settings.verifying_size_bytes_max
        if busy or (over and self._line):
            return self._refuse_all(event, Code.BUSY)
        results: list[Result | None] = [None] * count
        candidates = self._reading.read(event.transactions, height, results)
        candidates = self._check_accounts(candidates, results)
        submission = _Submission(event.request, results, candidates, size_bytes)
        if not candidates.entries:
            return self._answer(submission, [])
        self._line.append(submission)
        self._line_size_bytes += size_bytes
        call = partial(_verify, self._verifier, candidates)
        return [Run(call, partial(self._verified, submission))]

    def _check_accounts(self, given: Candidates, results: list[Result | None]) -> Candidates:
        """The candidates that neither the pool nor the accounts are against already.

        They are noted as under way.
        """
        entries: list[Entry] = []
        places: list[int] = []
        if not given.entries:
            return given
        rows, under_way = self._accounts(given.entries), self._under_way
        queue_of = self._pool.queue
        sender_max = self._settings.sender_transactions_max
        room = self._pool.has_room(1, max([entry.size_bytes for entry in given.entries]))
        ends: dict[bytes, int] = {}
        brought: dict[bytes, bytes] | None = None
        columns = zip(
            given.places, given.entries, rows.nonces, rows.balances, rows.current, strict=True
        )
        for row, (place, entry, next_nonce, balance, current) in enumerate(columns):
            sender, nonce = entry.sender, entry.nonce
            queue, nonces, end = queue_of(sender), under_way.get(sender), ends.get(sender)
            if end is None:
                end = next_nonce if queue is None else self._pool.end_of(sender, next_nonce)
                if nonces is not None:
                    end = self._end_of(sender, end)
            # The common case, in line, of what `Pool.refusal` says of the first nonce missing.
            if not (
                room
                and current
                and nonce == end
                and entry.public_key
                and (
                    entry.cost <= balance
                    if queue is None
                    else not queue.rotations
                    and len(queue.entries) < sender_max
                    and queue.cost_from(next_nonce) + entry.cost <= balance
                )
            ):
                if brought is None:
                    brought = {e.key_id: e.public_key for e in given.entries if e.brings_key}
                refused = self._refusal(entry, rows.account(row), end, brought)
                if refused is not None:
                    ends[sender] = end
                    results[place] = (refused[0], entry.id, refused[1])
                    continue
            if nonces is None:
                under_way[sender] = {nonce: 1}
            else:
                nonces[nonce] = nonces.get(nonce, 0) + 1
            if entry.rotates_to:
                self._rotating[sender] += 1
            if nonce == end:
                end += 1
                if queue is not None and end in queue.entries:
                    end = self._pool.end_of(sender, end)
                if nonces is not None and end in nonces:
                    end = self._end_of(sender, end)
            ends[sender] = end
            places.append(place)
            entries.append(entry)
        return Candidates(given.data, given.starts, places, entries)

    def _refusal(
        self, entry: Entry, account: Account, end: int, brought: dict[bytes, bytes]
    ) -> tuple[Code, str] | None:
        """Why a candidate is not worth a look at its signature; None: it is.

        `end` is the first nonce that its sender has nowhere, `brought` the keys that came along.
        """
        refused = self._pool.refusal(entry, account, end)
        # Until a rotation is in the pool or refused, nobody can say which key is the sender's.
        if (
            refused is not None
            and refused[0] == Code.KEY_NOT_CURRENT
            and self._rotating[entry.sender]
        ):
            refused = None
        if refused is None and not self._finds_key(entry, brought):
            refused = Code.UNKNOWN_KEY, ""
        return refused

    def _finds_key(self, entry: Entry, brought: dict[bytes, bytes]) -> bool:
        """Gives `entry` its key, from the store or from a transaction that came with it."""
        if entry.public_key:
            return True
        held = self._keys.get(entry.key_id)
        if held is not None and held.scheme == entry.scheme:
            entry.public_key = held.public_key
            return True
        key = brought.get(entry.key_id)
        if key is None or len(key) != SCHEME_SIZES[Scheme(entry.scheme)].public_key:
            return False
        # The other transaction may be refused: this one now brings the key by itself.
        entry.public_key, entry.brings_key = key, True
        entry.size_bytes += len(key)
        return True

    def _end_of(self, sender: bytes, end: int) -> int:
        """The first nonce from `end` on that is neither pooled nor being verified."""
        nonces = self._under_way.get(sender)
        while nonces and end in nonces:
            end = self._pool.end_of(sender, end + 1)
        return end

    def accounts(self, entries: Sequence[Entry]) -> list[Account]:
        """The senders' accounts, read at once."""
        rows = self._accounts(entries)
        return [rows.account(row) for row in range(len(entries))]

    def _accounts(self, entries: Sequence[Entry]) -> AccountRows:
        senders = [entry.sender for entry in entries]
        column = np.frombuffer(b"".join(senders), dtype=np.uint8).reshape(len(entries), 32)
        read = self._reader.read(column)
        return AccountRows(read, senders, [entry.key_id for entry in entries])

    def _verified(self, submission: _Submission, verdicts: list[bool], now_ms: int) -> list[Effect]:
        """Releases the submissions whose turn it is."""
        submission.verdicts = verdicts
        self._metrics.signatures_verified += len(verdicts)
        effects: list[Effect] = []
        while self._line and self._line[0].verdicts is not None:
            released = self._line.popleft()
            self._line_size_bytes -= released.size_bytes
            effects += self._release(released, released.verdicts or [])
        return effects

    def _release(self, submission: _Submission, verdicts: list[bool]) -> list[Effect]:
        """Adds to the pool what is signed well, after a new look at the state."""
        results, places = submission.results, submission.candidates.places
        entries = submission.candidates.entries
        for entry in entries:
            self._leave(entry)
        if not all(verdicts):
            rows = list(zip(places, entries, verdicts, strict=True))
            for place, entry, valid in rows:
                if not valid:
                    results[place] = (Code.BAD_SIGNATURE, entry.id, "")
            places = [place for place, _, valid in rows if valid]
            entries = [entry for _, entry, valid in rows if valid]
        if not entries:
            return self._answer(submission, [])
        others = self._pool.add_rows(entries, self._accounts(entries))
        ended: dict[str, list[bytes]] = {}
        for row, added in others.items():
            results[places[row]] = (added.code, entries[row].id, added.detail)
            if added.replaced is not None:
                ended.setdefault(Code.REPLACED.label, []).append(added.replaced.id)
            for evicted in added.evicted:
                ended.setdefault(Code.EVICTED.label, []).append(evicted.id)
        success = int(Code.SUCCESS)
        for place, entry in zip(places, entries, strict=True):
            if results[place] is None:
                results[place] = (success, entry.id, "")
        self._learn(
            entry
            for place, entry in zip(places, entries, strict=True)
            if entry.brings_key and (result := results[place]) and result[0] == success
        )
        effects: list[Effect] = []
        for status, ids in ended.items():
            self._metrics.transactions_dropped[status] += len(ids)
            effects.append(ToRoom(Room.GATEWAY, StatusChanged(status, tuple(ids))))
        return self._answer(submission, effects)

    def _learn(self, entries: Iterable[Entry]) -> None:
        """Keeps the keys that transactions in the pool brought."""
        for entry in entries:
            held = self._keys.get(entry.key_id)
            if held is not None and held.public_key is entry.public_key:
                continue
            key = PublicKey(entry.scheme, entry.public_key)
            if self._keys.add(key):
                self.learned.append(key)

    def _leave(self, entry: Entry) -> None:
        if entry.rotates_to:
            self._rotating[entry.sender] -= 1
            if not self._rotating[entry.sender]:
                del self._rotating[entry.sender]
        nonces = self._under_way[entry.sender]
        nonces[entry.nonce] -= 1
        if not nonces[entry.nonce]:
            del nonces[entry.nonce]
            if not nonces:
                del self._under_way[entry.sender]

    def _refuse_all(self, event: Submit, code: Code) -> list[Effect]:
        self._metrics.refused[code] += len(event.transactions)
        results = ((int(code), b"", ""),) * len(event.transactions)
        return [ToRoom(Room.GATEWAY, SubmitResult(event.request, results))]

    def _answer(self, submission: _Submission, effects: list[Effect]) -> list[Effect]:
        results = tuple(submission.results)
        if None in results:
            raise QnetError(Code.INTERNAL, "a transaction was neither refused nor verified")
        codes = Counter([int(result[0]) for result in results if result is not None])
        self._metrics.admitted += codes.pop(int(Code.SUCCESS), 0)
        self._metrics.refused.update(codes)
        answer = SubmitResult(submission.request, cast("tuple[Result, ...]", results))
        return [*effects, ToRoom(Room.GATEWAY, answer)]


def _verify(verifier: Verifier, candidates: Candidates) -> list[bool]:
    """One verdict a candidate, in their order; raises nothing for whatever clients sent."""
    entries = candidates.entries
    schemes = {entry.scheme for entry in entries}
    if len(schemes) == 1:
        return _verify_scheme(verifier, candidates, entries, candidates.places)
    verdicts = [False] * len(entries)
    for scheme in sorted(schemes):
        rows = [row for row, entry in enumerate(entries) if entry.scheme == scheme]
        places = [candidates.places[row] for row in rows]
        found = _verify_scheme(verifier, candidates, [entries[row] for row in rows], places)
        for row, verdict in zip(rows, found, strict=True):
            verdicts[row] = verdict
    return verdicts


def _verify_scheme(
    verifier: Verifier, candidates: Candidates, entries: list[Entry], places: list[int]
) -> list[bool]:
    """Verdicts on entries of one scheme, which stand at `places` of the submission."""
    count, scheme = len(entries), entries[0].scheme
    named = [entry.key_id for entry in entries]
    keys = dict(zip(named, [entry.public_key for entry in entries], strict=True))
    place_of = dict(zip(keys, range(len(keys)), strict=True))
    index = np.fromiter(map(place_of.__getitem__, named), np.intp, count)
    ends = np.array([entry.payload_end for entry in entries], dtype=np.int64)
    verdicts: list[bool] = verifier.verify_columns(
        (tuple(keys.values()), index),
        np.frombuffer(b"".join([entry.id for entry in entries]), dtype=np.uint8).reshape(count, 32),
        signature_rows(candidates.data, candidates.starts[places] + ends, scheme),
        CONTEXT_TRANSACTION,
        Scheme(scheme),
    ).tolist()
    return verdicts
