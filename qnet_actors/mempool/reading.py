"""Submitted bytes become candidates for the pool: form, terms, expiry, duplicates, keys.

Plain transfers are read as columns, all of a submission at once.  A row that the kernel does not
take for a faultless plain transfer goes the long way, which says what is wrong with it if anything
is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qnet_actors.kernels.blake3_rows import hash_rows
from qnet_actors.kernels.submissions import read_transactions
from qnet_actors.mempool.entries import ROW_BYTES, Entry, entry_of, rows_of
from qnet_actors.mempool.keys import KeyStore
from qnet_actors.mempool.pool import Pool
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import TRANSACTION
from qnet_actors.wire.limits import GAS_LIMIT_MAX, GAS_PRICE_MAX, TRANSACTION_SIZE_BYTES_MAX
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme, key_id
from qnet_actors.wire.transactions import (
    GAS_TRANSFER,
    TRANSACTION_CODEC,
    TRANSACTION_VERSION,
    Payload,
    Transaction,
    check_terms,
    check_witness,
)

if TYPE_CHECKING:
    from qnet_actors.kernels.submissions import Read

Result = tuple[int, bytes, str]
"""A code, the id where the bytes have one, and a detail."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What of a submission keeps all rules that need no state, in order."""

    data: npt.NDArray[np.uint8]
    """The submission's bytes side by side."""
    starts: npt.NDArray[np.int64]
    """Where each of its transactions begins there."""
    places: list[int]
    """Which transaction of the submission each candidate is."""
    entries: list[Entry]


class Reading:
    """Reads the submissions of one shard."""

    def __init__(
        self, *, chain_id: bytes, schemes: frozenset[int], pool: Pool, keys: KeyStore
    ) -> None:
        self._chain_id = chain_id
        self._schemes = schemes
        self._pool = pool
        self._keys = keys
        self._sizes = {scheme: SCHEME_SIZES[Scheme(scheme)] for scheme in schemes}

    def read(
        self, transactions: Sequence[bytes], height: int, results: list[Result | None]
    ) -> Candidates:
        """The candidates among `transactions`; `results` says why the others are none.

        `height` is that of the newest executed block.
        """
        read = read_transactions(
            transactions,
            chain_id=self._chain_id,
            version=TRANSACTION_VERSION,
            height=height,
            size_bytes_max=TRANSACTION_SIZE_BYTES_MAX,
            gas=(GAS_TRANSFER, GAS_LIMIT_MAX, GAS_PRICE_MAX),
            sizes=self._sizes,
        )
        plain = read.plain.view(np.bool_)
        if plain.all():
            found: list[Entry | None] = list(self._plain(transactions, read))
            rows: Iterable[int] = range(len(found))
        else:
            rows = np.flatnonzero(plain).tolist()
            found = [None] * len(transactions)
            for row, entry in zip(rows, self._plain(transactions, read, plain), strict=True):
                found[row] = entry
            for row in np.flatnonzero(~plain).tolist():
                found[row] = self._decode(transactions[row], height, results, row)
        self._drop_duplicates(rows, found, results)
        self._check_keys(rows, found, transactions, height, results)
        places = [place for place, entry in enumerate(found) if entry is not None]
        entries = [entry for entry in found if entry is not None]
        return Candidates(read.data, read.starts, places, entries)

    def _plain(
        self, transactions: Sequence[bytes], read: Read, rows: npt.NDArray[np.bool_] | None = None
    ) -> list[Entry]:
        """Entries of the plain rows; keys that they bring are not compared with key ids yet."""
        ids = hash_rows(TRANSACTION, read.bodies, read.body_offsets)
        schemes, senders, key_ids = read.schemes, read.senders, read.key_ids
        terms, spans = read.terms, read.spans
        if rows is not None:
            transactions = [transactions[row] for row in np.flatnonzero(rows).tolist()]
            ids, schemes, senders, key_ids = ids[rows], schemes[rows], senders[rows], key_ids[rows]
            terms, spans = terms[:, rows], spans[:, rows]
        if not transactions:
            return []
        named = rows_of(key_ids)
        keys = self._held(schemes, named)
        # Sizes by scheme, for all of the rows at once.
        signatures, public_keys = self._size_columns()
        sizes = ROW_BYTES + spans[1] - spans[0] + signatures[schemes]
        brings = spans[2] > 0
        if brings.any():
            sizes = sizes + np.where(brings, public_keys[schemes], 0)
            for row in np.flatnonzero(brings).tolist():
                at = int(spans[2, row])
                keys[row] = transactions[row][at:]
        nonces, valid_until, gas_limits, gas_prices, costs = terms.tolist()
        return list(
            map(
                Entry,
                rows_of(ids),
                schemes.tolist(),
                rows_of(senders),
                named,
                nonces,
                valid_until,
                gas_limits,
                gas_prices,
                transactions,
                spans[0].tolist(),
                spans[1].tolist(),
                keys,
                brings.tolist(),
                costs,
                sizes.tolist(),
            )
        )

    def _size_columns(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Sizes in bytes of signatures and public keys, by scheme."""
        signatures, public_keys = np.zeros((2, 256), dtype=np.int64)
        for scheme, (public_key, signature) in self._sizes.items():
            signatures[scheme], public_keys[scheme] = signature, public_key
        return signatures, public_keys

    def _held(self, schemes: npt.NDArray[np.uint8], key_ids: list[bytes]) -> list[bytes]:
        """The public keys that the store has for rows; empty where it has none."""
        scheme = int(schemes[0])
        if schemes.min() != schemes.max():
            return [b""] * len(key_ids)
        distinct = {}
        for id_ in dict.fromkeys(key_ids):
            key = self._keys.get(id_)
            distinct[id_] = b"" if key is None or key.scheme != scheme else key.public_key
        return list(map(distinct.__getitem__, key_ids))

    def _drop_duplicates(
        self, rows: Iterable[int], found: list[Entry | None], results: list[Result | None]
    ) -> None:
        if self._pool.has_none_of([entry.id for entry in found if entry is not None]):
            return
        for row in rows:
            entry = found[row]
            if entry is not None and entry.id in self._pool:
                results[row] = (Code.DUPLICATE, entry.id, "")
                found[row] = None

    def _check_keys(
        self,
        rows: Iterable[int],
        found: list[Entry | None],
        transactions: Sequence[bytes],
        height: int,
        results: list[Result | None],
    ) -> None:
        """Compares keys that plain rows bring with their key ids."""
        for row in rows:
            entry = found[row]
            if entry is None or not entry.brings_key:
                continue
            held = self._keys.get(entry.key_id)
            # Comparing with a key that is known spares hashing this one.
            if held is not None and held.public_key == entry.public_key:
                entry.public_key = held.public_key
            elif key_id(entry.scheme, entry.public_key) != entry.key_id:
                found[row] = self._decode(transactions[row], height, results, row)

    def _decode(
        self, data: bytes, height: int, results: list[Result | None], place: int
    ) -> Entry | None:
        """The entry of one transaction of whatever kind; None: `results` says why not."""
        id_ = b""
        try:
            transaction: Transaction = TRANSACTION_CODEC.decode(data)
            body = transaction.body
            if body.version != TRANSACTION_VERSION:
                raise QnetError(Code.UNSUPPORTED_VERSION, f"transaction version {body.version}")
            if body.chain_id != self._chain_id:
                raise QnetError(Code.WRONG_CHAIN)
            entry = entry_of(transaction, data)
            id_ = entry.id
            if body.valid_until and body.valid_until <= height:
                raise QnetError(Code.EXPIRED, f"block {height} is executed already")
            if id_ in self._pool:
                raise QnetError(Code.DUPLICATE)
            check_terms(body.gas_limit, body.gas_price, Payload(body.access, body.action))
            check_witness(body, transaction.witness, self._schemes)
        except QnetError as error:
            results[place] = (error.code, id_, error.detail)
            return None
        return entry
