"""Admission of transactions from clients: checks cheapest first, each refusal with its code.

Signatures of one submission are verified in one job.  Submissions are released into the pool in
the order in which they came: released as their jobs end, a gap in a sender's nonces would refuse
all that follows it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import cast

import numpy as np
import numpy.typing as npt

from qnet_actors.mempool.displacement import Displacement, pays_too_little
from qnet_actors.mempool.entries import Entry, signature_rows
from qnet_actors.mempool.keys import KeyStore
from qnet_actors.mempool.metrics import MempoolMetrics
from qnet_actors.mempool.pool import Added, Pool
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
from qnet_actors.wire.limits import U64_MAX
from qnet_actors.wire.messages import PublicKey
from qnet_actors.wire.schemes import (
    CONTEXT_REGISTRATION,
    CONTEXT_TRANSACTION,
    SCHEME_SIZES,
    Scheme,
)
from qnet_actors.wire.transactions import (
    RegisterValidator,
    decode_payload,
    registration_digest,
)


@dataclass(slots=True)
class _Submission:
    request: int
    results: list[Result | None]
    candidates: Candidates
    slots: npt.NDArray[np.int64]
    """Those of the candidates' senders."""
    size_bytes: int = 0
    displacing: bool = False
    """Whether each of them takes the place of one that pays less."""
    verdicts: list[bool] | None = None


class Admission:
    """Takes `Submit` and answers `SubmitResult`; what passes is in the pool by then."""

    def __init__(
        self,
        *,
        chain_id: bytes,
        schemes: frozenset[int],
        epochs_end: bool,
        pool: Pool,
        keys: KeyStore,
        reader: AccountReader,
        verifier: Verifier,
        settings: MempoolSettings,
        metrics: MempoolMetrics,
    ) -> None:
        self._reading = Reading(
            chain_id=chain_id, schemes=schemes, pool=pool, keys=keys, epochs_end=epochs_end
        )
        self._chain_id = chain_id
        self._pool = pool
        self._displacement = Displacement(pool)
        self._keys = keys
        self._reader = reader
        self._verifier = verifier
        self._settings = settings
        self._metrics = metrics
        self._line: deque[_Submission] = deque()
        self._line_size_bytes = 0
        # Rotations that are being verified, by sender: until they are in the pool or refused,
        # nobody can say which key is the sender's.
        self._rotating: Counter[bytes] = Counter()
        self.learned: list[PublicKey] = []
        """New keys of transactions in the pool, to be written with the next batch."""

    def submit(
        self, event: Submit, height: int, *, busy: bool, crowded: bool = False
    ) -> list[Effect]:
        """Checks all but the signatures, and has those verified.

        `height` is that of the newest executed block; `busy` refuses everything, `crowded` all that
        does not pay more than the ready transaction that pays least.
        """
        count = len(event.transactions)
        self._metrics.submitted += count
        size_bytes = sum(map(len, event.transactions))
        if count > self._settings.submit_transactions_max:
            return self._refuse_all(event, Code.TOO_MANY_TRANSACTIONS)
        # An empty line takes any submission, so that none is refused for ever.
        over = self._line_size_bytes + size_bytes > self._settings.verifying_size_bytes_max
        rank = self._displacement.rank if crowded else 0
        if busy or rank is None or (over and self._line):
            return self._refuse_all(event, Code.BUSY)
        results: list[Result | None] = [None] * count
        candidates = self._reading.read(event.transactions, height, results)
        if crowded:
            candidates = _better(candidates, rank, results)
        submission = self._check_accounts(event.request, candidates, results)
        submission.size_bytes, submission.displacing = size_bytes, crowded
        if not submission.candidates.places:
            return self._answer(submission, [])
        self._line.append(submission)
        self._line_size_bytes += size_bytes
        call = partial(_verify, self._verifier, self._chain_id, submission.candidates)
        return [Run(call, partial(self._verified, submission))]

    def _check_accounts(
        self, request: int, given: Candidates, results: list[Result | None]
    ) -> _Submission:
        """Leaves the candidates that neither the pool nor the accounts are against already.

        They are noted as being verified.
        """
        rows, columns = given.rows, self._pool.columns
        entries = rows.entries
        if not entries:
            return _Submission(request, results, given, np.zeros(0, dtype=np.int64))
        accounts = self._accounts(given)
        usable = rows.plain & accounts.current
        if not all(entry.public_key for entry in entries):
            usable &= np.array([bool(entry.public_key) for entry in entries], dtype=np.bool_)
        if not self._pool.has_room(1, int(rows.sizes.max())):
            usable[:] = False
        slots = columns.slots([entry.sender for entry in entries])
        sender_max = self._settings.sender_transactions_max
        taken = columns.check(slots, rows.nonces, rows.costs, accounts, usable, sender_max)
        if taken.all():
            return _Submission(request, results, given, slots)
        brought = {entry.key_id: entry.public_key for entry in entries if entry.brings_key}
        for row in np.flatnonzero(~taken).tolist():
            entry, slot = entries[row], slots[row]
            account = accounts.account(row)
            # At most: what is verified may turn out to be no use.
            missing = self._pool.end_of(entry.sender, account.nonce)
            refused = self._refusal(entry, account, missing + int(columns.verifying[slot]), brought)
            if refused is not None:
                results[given.places[row]] = (refused[0], entry.id, refused[1])
                continue
            taken[row] = True
            rows.sizes[row] = entry.size_bytes
            columns.verifying[slot] += 1
            if entry.nonce == max(int(columns.ends[slot]), missing):
                columns.ends[slot] = min(entry.nonce + 1, U64_MAX)
            if entry.rotates_to:
                self._rotating[entry.sender] += 1
        if columns.idle(slots):
            columns.release([entry.sender for entry in entries])
        return _Submission(request, results, given.part(taken), slots[taken])

    def _refusal(
        self, entry: Entry, account: Account, end: int, brought: dict[bytes, bytes]
    ) -> tuple[Code, str] | None:
        """Why a candidate is not worth a look at its signature; None: it is.

        `end` is not below the first nonce that its sender has nowhere; `brought`: the keys that
        came along.
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

    def accounts(self, entries: Sequence[Entry]) -> list[Account]:
        """The senders' accounts, read at once."""
        senders = b"".join([entry.sender for entry in entries])
        column = np.frombuffer(senders, dtype=np.uint8).reshape(len(entries), 32)
        rows = AccountRows(self._reader.read(column), column, column)
        return [rows.account(row) for row in range(len(entries))]

    def _accounts(self, candidates: Candidates) -> AccountRows:
        senders = candidates.senders
        return AccountRows(self._reader.read(senders), senders, candidates.key_ids)

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
        results, candidates, columns = submission.results, submission.candidates, self._pool.columns
        slots = submission.slots
        everybody = [entry.sender for entry in candidates.rows.entries]
        for entry in candidates.rows.entries if self._rotating else ():
            if entry.rotates_to:
                self._rotating[entry.sender] -= 1
        self._rotating = +self._rotating
        np.subtract.at(columns.verifying, slots, 1)
        if not all(verdicts):
            valid = np.array(verdicts, dtype=np.bool_)
            for row in np.flatnonzero(~valid).tolist():
                entry = candidates.rows.entries[row]
                detail = "the witness, or the validator key's" if entry.registers else ""
                results[candidates.places[row]] = (Code.BAD_SIGNATURE, entry.id, detail)
            # What is verified behind it does not follow what the pool has.
            columns.ends[slots[~valid]] = 0
            candidates = candidates.part(valid)
        effects: list[Effect] = []
        if candidates.places:
            effects = self._add(candidates, results, submission.displacing)
        if columns.idle(slots):
            columns.release(everybody)
        return self._answer(submission, effects)

    def _add(
        self, candidates: Candidates, results: list[Result | None], displacing: bool
    ) -> list[Effect]:
        """Adds candidates whose signatures are valid."""
        places, entries = candidates.places, candidates.rows.entries
        accounts = self._accounts(candidates)
        if displacing:
            others = self._displace(entries, accounts)
        else:
            others = self._pool.add_rows(candidates.rows, accounts)
        ended: dict[str, list[bytes]] = {}
        success = int(Code.SUCCESS)
        if not others and len(places) == len(results):
            ids = [entry.id for entry in entries]
            results[:] = zip(repeat(success), ids, repeat(""), strict=False)
        else:
            for row, (place, entry) in enumerate(zip(places, entries, strict=True)):
                added = others.get(row)
                if added is None:
                    results[place] = (success, entry.id, "")
                    continue
                results[place] = (added.code, entry.id, added.detail)
                if added.replaced is not None:
                    ended.setdefault(Code.REPLACED.label, []).append(added.replaced.id)
                for evicted in added.evicted:
                    if not evicted.promised:
                        ended.setdefault(Code.EVICTED.label, []).append(evicted.id)
        for row, entry in enumerate(entries):
            if entry.brings_key and (row not in others or others[row].code == success):
                self.learn(entry)
        effects: list[Effect] = []
        for status, gone in ended.items():
            self._metrics.transactions_dropped[status] += len(gone)
            effects.append(ToRoom(Room.GATEWAY, StatusChanged(status, tuple(gone))))
        return effects

    def _displace(self, entries: Sequence[Entry], accounts: AccountRows) -> dict[int, Added]:
        """Adds entries one by one, each in the place of another; what that did, by row."""
        columns, done = self._pool.columns, dict[int, Added]()
        for row, entry in enumerate(entries):
            added = done[row] = self._displacement.add(entry, accounts.account(row))
            slot = columns.get(entry.sender)
            if added.code != Code.SUCCESS and slot is not None:
                # What is verified behind it does not follow it.
                columns.ends[slot] = 0
        return done

    def learn(self, entry: Entry) -> None:
        """Keeps the key that a transaction in the pool brought."""
        held = self._keys.get(entry.key_id)
        if held is None or held.public_key is not entry.public_key:
            key = PublicKey(entry.scheme, entry.public_key)
            if self._keys.add(key):
                self.learned.append(key)

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


def _better(candidates: Candidates, rank: int, results: list[Result | None]) -> Candidates:
    """Those that pay more than `rank`; `results` says so of the others."""
    pays = candidates.rows.prices > rank
    for row in np.flatnonzero(~pays).tolist():
        id_ = candidates.rows.entries[row].id
        results[candidates.places[row]] = (Code.BUSY, id_, pays_too_little(rank))
    return candidates.part(pays)


def _verify(verifier: Verifier, chain_id: bytes, candidates: Candidates) -> list[bool]:
    """One verdict a candidate, in their order; raises nothing for whatever clients sent."""
    verdicts = _verify_witnesses(verifier, candidates)
    if candidates.rows.plain.all():
        return verdicts
    for row, entry in enumerate(candidates.rows.entries):
        if entry.registers and verdicts[row]:
            verdicts[row] = _is_proved(verifier, chain_id, entry)
    return verdicts


def _is_proved(verifier: Verifier, chain_id: bytes, entry: Entry) -> bool:
    """Whether the validator key that a registration brings signed for the sender."""
    action = decode_payload(entry.payload).action
    if not isinstance(action, RegisterValidator):
        raise QnetError(Code.INTERNAL, "no registration where one was read")
    digest = registration_digest(chain_id, entry.sender, action.scheme, action.public_key)
    verdicts = verifier.verify_columns(
        ((action.public_key,), np.zeros(1, dtype=np.intp)),
        np.frombuffer(digest, dtype=np.uint8).reshape(1, 32),
        np.frombuffer(action.proof, dtype=np.uint8).reshape(1, -1),
        CONTEXT_REGISTRATION,
        Scheme(action.scheme),
    )
    return bool(verdicts[0])


def _verify_witnesses(verifier: Verifier, candidates: Candidates) -> list[bool]:
    entries = candidates.rows.entries
    schemes = {entry.scheme for entry in entries}
    if len(schemes) == 1:
        return _verify_scheme(verifier, candidates)
    verdicts = np.zeros(len(entries), dtype=np.bool_)
    for scheme in sorted(schemes):
        mask = np.array([entry.scheme == scheme for entry in entries], dtype=np.bool_)
        verdicts[mask] = _verify_scheme(verifier, candidates.part(mask))
    found: list[bool] = verdicts.tolist()
    return found


def _verify_scheme(verifier: Verifier, candidates: Candidates) -> list[bool]:
    """Verdicts on candidates of one scheme."""
    entries = candidates.rows.entries
    count, scheme = len(entries), entries[0].scheme
    named = [entry.key_id for entry in entries]
    keys = dict(zip(named, [entry.public_key for entry in entries], strict=True))
    place_of = dict(zip(keys, range(len(keys)), strict=True))
    index = np.fromiter(map(place_of.__getitem__, named), np.intp, count)
    verdicts: list[bool] = verifier.verify_columns(
        (tuple(keys.values()), index),
        np.frombuffer(b"".join([entry.id for entry in entries]), dtype=np.uint8).reshape(count, 32),
        signature_rows(candidates.data, candidates.ends, scheme),
        CONTEXT_TRANSACTION,
        Scheme(scheme),
    ).tolist()
    return verdicts
