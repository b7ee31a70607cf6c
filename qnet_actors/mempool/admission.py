"""Admission of transactions from clients: checks cheapest first, each refusal with its code.

Signatures of one submission are verified in one job.  Submissions are released into the pool in
the order in which they came: released as their jobs end, a gap in a sender's nonces would refuse
all that follows it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from qnet_actors.mempool.entries import Entry, entry_of
from qnet_actors.mempool.keys import KeyStore, KeyTable
from qnet_actors.mempool.metrics import MempoolMetrics
from qnet_actors.mempool.pool import Pool
from qnet_actors.mempool.senders import Account
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
from qnet_actors.wire.transactions import (
    TRANSACTION_CODEC,
    TRANSACTION_VERSION,
    Payload,
    Transaction,
    check_terms,
    check_witness,
)

Result = tuple[int, bytes, str]


@dataclass(frozen=True, slots=True)
class _Group:
    """The candidates of one scheme: what a job makes columns of."""

    scheme: Scheme
    places: list[int]
    keys: KeyTable
    ids: list[bytes]
    signatures: list[bytes]


@dataclass(slots=True)
class _Submission:
    request: int
    results: list[Result | None]
    places: list[int] = field(default_factory=list)
    """Which transaction of the request each candidate is."""
    entries: list[Entry] = field(default_factory=list)
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
        self._chain_id = chain_id
        self._schemes = schemes
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
        submission = _Submission(event.request, [None] * count, size_bytes=size_bytes)
        for place, data in enumerate(event.transactions):
            try:
                entry = self._decode(data, height)
            except QnetError as error:
                submission.results[place] = (error.code, b"", error.detail)
                continue
            if isinstance(entry, Entry):
                submission.places.append(place)
                submission.entries.append(entry)
            else:
                submission.results[place] = entry
        self._check_accounts(submission)
        groups = self._groups(submission)
        if not groups:
            return self._answer(submission, [])
        self._line.append(submission)
        self._line_size_bytes += size_bytes
        for entry in submission.entries:
            nonces = self._under_way.setdefault(entry.sender, {})
            nonces[entry.nonce] = nonces.get(entry.nonce, 0) + 1
            if entry.rotates_to:
                self._rotating[entry.sender] += 1
        call = partial(_verify, self._verifier, groups, len(submission.entries))
        return [Run(call, partial(self._verified, submission))]

    def _decode(self, data: bytes, height: int) -> Entry | Result:
        """An entry that keeps all rules that need no state; raises `QnetError` or refuses."""
        transaction: Transaction = TRANSACTION_CODEC.decode(data)
        body = transaction.body
        if body.version != TRANSACTION_VERSION:
            raise QnetError(Code.UNSUPPORTED_VERSION, f"transaction version {body.version}")
        if body.chain_id != self._chain_id:
            raise QnetError(Code.WRONG_CHAIN)
        entry = entry_of(transaction, data)
        try:
            if body.valid_until and body.valid_until <= height:
                raise QnetError(Code.EXPIRED, f"block {height} is executed already")
            if entry.id in self._pool:
                raise QnetError(Code.DUPLICATE)
            check_terms(body.gas_limit, body.gas_price, Payload(body.access, body.action))
            check_witness(body, transaction.witness, self._schemes)
        except QnetError as error:
            return (error.code, entry.id, error.detail)
        return entry

    def _check_accounts(self, submission: _Submission) -> None:
        """Drops the candidates that the pool and the accounts are against already."""
        entries, places = submission.entries, submission.places
        accounts = self.accounts(entries)
        ends: dict[bytes, int] = {}
        rotating: set[bytes] = set()
        brought = {entry.key_id: entry.public_key for entry in entries if entry.public_key}
        submission.entries, submission.places = [], []
        for place, entry, account in zip(places, entries, accounts, strict=True):
            end = ends.get(entry.sender)
            if end is None:
                end = self._end_of(entry.sender, self._pool.end_of(entry.sender, account.nonce))
            refused = self._pool.refusal(entry, account, end)
            if (
                refused is not None
                and refused[0] == Code.KEY_NOT_CURRENT
                and (entry.sender in rotating or self._rotating[entry.sender])
            ):
                refused = None
            if refused is None and not self._finds_key(entry, brought):
                refused = Code.UNKNOWN_KEY, ""
            if refused is not None:
                ends[entry.sender] = end
                submission.results[place] = (refused[0], entry.id, refused[1])
                continue
            if entry.nonce == end:
                end = self._end_of(entry.sender, self._pool.end_of(entry.sender, end + 1))
            ends[entry.sender] = end
            if entry.rotates_to:
                rotating.add(entry.sender)
            submission.places.append(place)
            submission.entries.append(entry)

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
        if not entries:
            return []
        senders = np.frombuffer(b"".join([entry.sender for entry in entries]), dtype=np.uint8)
        columns = self._reader.read(senders.reshape(len(entries), 32))
        key_ids = np.ascontiguousarray(columns.key_ids).tobytes()
        return [
            Account(nonce, balance, key_ids[32 * row : 32 * row + 32])
            for row, (nonce, balance) in enumerate(
                zip(columns.nonces.tolist(), columns.balances.tolist(), strict=True)
            )
        ]

    def _groups(self, submission: _Submission) -> list[_Group]:
        """The candidates' signatures as columns, scheme by scheme."""
        by_scheme: dict[int, list[int]] = {}
        for place, entry in enumerate(submission.entries):
            by_scheme.setdefault(entry.scheme, []).append(place)
        groups = []
        for scheme, places in by_scheme.items():
            entries = [submission.entries[place] for place in places]
            brought = {entry.key_id: entry.public_key for entry in entries}
            keys = self._keys.table(scheme, [entry.key_id for entry in entries], brought)
            if not isinstance(keys, KeyTable):
                raise QnetError(Code.INTERNAL, "a candidate has no key")
            groups.append(
                _Group(
                    Scheme(scheme),
                    places,
                    keys,
                    [entry.id for entry in entries],
                    [entry.signature for entry in entries],
                )
            )
        return groups

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
        for entry in submission.entries:
            self._leave(entry)
        accounts = self.accounts(submission.entries)
        ended: dict[str, list[bytes]] = {}
        rows = zip(submission.places, submission.entries, accounts, verdicts, strict=True)
        for place, entry, account, valid in rows:
            if not valid:
                submission.results[place] = (Code.BAD_SIGNATURE, entry.id, "")
                continue
            added = self._pool.add(entry, account)
            submission.results[place] = (added.code, entry.id, added.detail)
            if added.code == Code.SUCCESS and entry.brings_key:
                key = PublicKey(entry.scheme, entry.public_key)
                if self._keys.add(key):
                    self.learned.append(key)
            if added.replaced is not None:
                ended.setdefault(Code.REPLACED.label, []).append(added.replaced.id)
            for evicted in added.evicted:
                ended.setdefault(Code.EVICTED.label, []).append(evicted.id)
        effects: list[Effect] = []
        for status, ids in ended.items():
            self._metrics.transactions_dropped[status] += len(ids)
            effects.append(ToRoom(Room.GATEWAY, StatusChanged(status, tuple(ids))))
        return self._answer(submission, effects)

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
        results: list[Result] = []
        for result in submission.results:
            if result is None:
                raise QnetError(Code.INTERNAL, "a transaction was neither refused nor verified")
            code = int(result[0])
            if code == Code.SUCCESS:
                self._metrics.admitted += 1
            else:
                self._metrics.refused[code] += 1
            results.append((code, result[1], result[2]))
        answer = SubmitResult(submission.request, tuple(results))
        return [*effects, ToRoom(Room.GATEWAY, answer)]


def _verify(verifier: Verifier, groups: Sequence[_Group], count: int) -> list[bool]:
    """One verdict a candidate, in their order."""
    verdicts = [False] * count
    for group in groups:
        rows = len(group.places)
        valid = verifier.verify_columns(
            (group.keys.keys, group.keys.index),
            np.frombuffer(b"".join(group.ids), dtype=np.uint8).reshape(rows, 32),
            np.frombuffer(b"".join(group.signatures), dtype=np.uint8).reshape(rows, -1),
            CONTEXT_TRANSACTION,
            group.scheme,
        )
        for place, verdict in zip(group.places, valid.tolist(), strict=True):
            verdicts[place] = verdict
    return verdicts
