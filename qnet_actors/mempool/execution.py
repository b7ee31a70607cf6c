"""What an executed block does to the pool and to the batches held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from msgspec.structs import replace

from qnet_actors.mempool.dissemination import Dissemination
from qnet_actors.mempool.entries import BATCHED, PENDING, Entry
from qnet_actors.mempool.metrics import MempoolMetrics
from qnet_actors.mempool.pool import Pool
from qnet_actors.mempool.retention import Retention
from qnet_actors.mempool.senders import Account
from qnet_actors.mempool.settings import MempoolSettings
from qnet_actors.mempool.store import BatchStore, Executed
from qnet_actors.rooms import (
    AccountReader,
    BlockExecuted,
    Effect,
    Joined,
    Persist,
    Room,
    StatusChanged,
    ToRoom,
)
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.codes import Code
from qnet_actors.wire.transactions import transaction_id

_SWEEP_BATCHES: Final = 32


class Execution:
    """Follows executed blocks, in order of height."""

    def __init__(
        self,
        *,
        pool: Pool,
        dissemination: Dissemination,
        retention: Retention,
        reader: AccountReader,
        store: BatchStore,
        settings: MempoolSettings,
        metrics: MempoolMetrics,
    ) -> None:
        self._pool = pool
        self._store = store
        # (height, commit index) of the newest block heard of.
        self._at = (0, 0)
        self._swept = 0
        self._dissemination = dissemination
        self._retention = retention
        self._reader = reader
        self._settings = settings
        self._metrics = metrics

    def executed(self, event: BlockExecuted, now_ms: int) -> list[Effect]:
        """Takes out what was executed or never will be, and pools again what met a nonce gap.

        The statuses told are those of transactions that ended without execution: whoever serves
        them hears of the block itself too.
        """
        header = event.record.header
        self._at = (header.height, header.commit_index)
        ended: dict[Code, list[Entry]] = {}
        finished = dict.fromkeys(event.batches)
        spent = self._advance(event.record.write_set, ended)
        included = _Included(event)
        for entry in spent:
            if entry not in included:
                ended.setdefault(Code.NONCE_TOO_LOW, []).append(entry)
            empty = entry.state == BATCHED and self._dissemination.left(entry.batch, entry.id)
            if empty and not event.batches:
                # A block of a peer does not say which batches it took: one of which nothing is
                # left has no need of execution any more.
                finished[entry.batch] = None
        self._excluded(event, header.height, ended)
        for entry in self._pool.expired(header.height):
            ended.setdefault(Code.EXPIRED, []).append(entry)
        effects = self._finish(finished, now_ms)
        for code, entries in ended.items():
            self._metrics.transactions_dropped[code.label] += len(entries)
            ids = tuple(entry.id for entry in entries)
            effects.append(ToRoom(Room.GATEWAY, StatusChanged(code.label, ids)))
        return effects

    def joined(self, event: Joined, now_ms: int) -> list[Effect]:
        """The state jumped: every sender here is brought up to it, as if one block had done so.

        What happened to transactions whose nonces are spent is not known here.
        """
        senders = sorted(self._pool.senders())
        accounts = self._accounts(senders)
        writes = WriteSet(
            addresses=b"".join(senders),
            nonces=np.array([a.nonce for a in accounts], dtype="<u8").tobytes(),
            balances=np.array([a.balance for a in accounts], dtype="<u8").tobytes(),
            key_ids=b"".join(account.key_id for account in accounts),
        )
        record = replace(event.record, write_set=writes, bodies=())
        return self.executed(BlockExecuted(record, event.block_hash, (), ()), now_ms)

    def _finish(self, digests: Iterable[bytes], now_ms: int) -> list[Effect]:
        """Batches that are executed as of the newest block."""
        digests = tuple(digests)
        effects: list[Effect] = []
        known = self._retention.executed(digests, *self._at, now_ms)
        if known:
            effects.append(Persist((Executed(known, *self._at),)))
        for digest in digests:
            effects += self._dissemination.finished(digest, now_ms)
        return effects

    def sweep(self, now_ms: int) -> list[Effect]:
        """Ends old batches of which nothing can be executed any more, some at each call.

        Blocks that came from a peer do not say which batches they took; without this, those would
        fill their authors' quotas.
        """
        aged = self._retention.aged(now_ms, self._settings.sweep_age_ms)
        if not aged or self._at == (0, 0):
            return []
        start = self._swept % len(aged)
        turn = (*aged[start:], *aged[:start])[:_SWEEP_BATCHES]
        self._swept = start + len(turn)
        return self._finish([digest for digest in turn if self._is_spent(digest)], now_ms)

    def _is_spent(self, digest: bytes) -> bool:
        """Whether the nonces of all its transactions are used."""
        batch = self._store.get(digest)
        if batch is None:
            return False
        nonces = self._reader.read(batch.columns.senders).nonces
        return bool(np.all(batch.columns.nonces < nonces))

    def _advance(self, writes: WriteSet, ended: dict[Code, list[Entry]]) -> list[Entry]:
        """Brings the accounts that the block changed up to date; the entries with spent nonces."""
        spent: list[Entry] = []
        poor: list[bytes] = []
        addresses, key_ids = writes.addresses, writes.key_ids
        nonces = np.frombuffer(writes.nonces, dtype="<u8").tolist()
        balances = np.frombuffer(writes.balances, dtype="<u8").tolist()
        for row, nonce in enumerate(nonces):
            address = addresses[32 * row : 32 * row + 32]
            if not self._pool.has_sender(address):
                continue
            account = Account(nonce, balances[row], key_ids[32 * row : 32 * row + 32])
            passed, stale = self._pool.advance(address, account)
            spent += passed
            if stale:
                ended.setdefault(Code.KEY_NOT_CURRENT, []).extend(stale)
            if self._pool.cost_of(address) > account.balance:
                poor.append(address)
        for address, account in zip(poor, self._accounts(poor), strict=True):
            # A later block may have paid the sender; only the newest state condemns.
            unpayable = self._pool.unpayable(address, account)
            if unpayable:
                ended.setdefault(Code.UNPAYABLE, []).extend(unpayable)
        return spent

    def _accounts(self, addresses: Sequence[bytes]) -> list[Account]:
        if not addresses:
            return []
        column = np.frombuffer(b"".join(addresses), dtype=np.uint8).reshape(len(addresses), 32)
        accounts = self._reader.read(column)
        return [
            Account(int(nonce), int(balance), key_id.tobytes())
            for nonce, balance, key_id in zip(
                accounts.nonces, accounts.balances, accounts.key_ids, strict=True
            )
        ]

    def _excluded(self, event: BlockExecuted, height: int, ended: dict[Code, list[Entry]]) -> None:
        """Own transactions, or pooled ones left to another's batch, that were not included."""
        batches = set(event.batches)
        concerned = [
            entry
            for id_ in event.excluded
            if (entry := self._pool.get(id_)) is not None
            and entry.state != PENDING
            # Excluded where another batch carried it too, it may yet be executed in its own.
            and entry.batch in batches
        ]
        again: list[Entry] = []
        accounts = self._accounts([entry.sender for entry in concerned])
        for entry, account in zip(concerned, accounts, strict=True):
            if entry.state == BATCHED:
                self._dissemination.left(entry.batch, entry.id)
            code = self._verdict(entry, account, height)
            if code is None:
                entry.restores += 1
                again.append(entry)
            else:
                self._pool.remove(entry)
                ended.setdefault(code, []).append(entry)
        self._metrics.transactions_restored += len(again)
        self._pool.restore(again)

    def _verdict(self, entry: Entry, account: Account, height: int) -> Code | None:
        """Why an excluded transaction will never be included; None: it may yet be."""
        queue = self._pool.queue(entry.sender)
        if entry.valid_until and entry.valid_until <= height:
            return Code.EXPIRED
        if queue is not None and entry.key_id != queue.key_at(entry.nonce, account.key_id):
            return Code.KEY_NOT_CURRENT
        if entry.nonce == account.nonce and entry.cost > account.balance:
            return Code.UNPAYABLE
        if entry.restores >= self._settings.restores_max:
            return Code.EVICTED
        return None


class _Included:
    """Which transactions a block included."""

    def __init__(self, event: BlockExecuted) -> None:
        self._event = event
        self._batches = frozenset(event.batches)
        self._excluded = frozenset(event.excluded)
        self._ids: frozenset[bytes] | None = None

    def __contains__(self, entry: object) -> bool:
        if not isinstance(entry, Entry):
            return False
        if entry.batch in self._batches and entry.id not in self._excluded:
            return True
        if self._ids is None:
            # Hashing all bodies costs a microsecond each; few blocks need it.
            self._ids = frozenset(transaction_id(body) for body in self._event.record.bodies)
        return entry.id in self._ids
