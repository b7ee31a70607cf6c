"""Submitted bytes become candidates for the pool: form, terms, expiry, duplicates, keys.

Plain transfers are read as columns, all of a submission at once.  A row that the kernel does not
take for a faultless plain transfer goes the long way, which says what is wrong with it if anything
is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from qnet_actors.kernels.blake3_rows import hash_rows
from qnet_actors.kernels.submissions import read_transactions
from qnet_actors.mempool.entries import ROW_BYTES, Entry, Rows, entry_of, rows_of
from qnet_actors.mempool.keys import KeyStore
from qnet_actors.mempool.pool import Pool
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import TRANSACTION
from qnet_actors.wire.limits import (
    GAS_LIMIT_MAX,
    GAS_PRICE_MAX,
    TRANSACTION_SIZE_BYTES_MAX,
    U64_MAX,
)
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme, key_id
from qnet_actors.wire.transactions import (
    GAS_TRANSFER,
    TRANSACTION_CODEC,
    TRANSACTION_VERSION,
    Payload,
    RegisterValidator,
    RegistryAction,
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
    """All of the submission side by side."""
    places: list[int]
    """Which transaction of the submission each candidate is."""
    rows: Rows
    senders: npt.NDArray[np.uint8]
    """uint8[n, 32]."""
    key_ids: npt.NDArray[np.uint8]
    """uint8[n, 32]."""
    ends: npt.NDArray[np.int64]
    """Where in `data` each candidate's payload ends."""

    def part(self, mask: npt.NDArray[np.bool_]) -> Candidates:
        """The candidates of `mask`."""
        if mask.all():
            return self
        return Candidates(
            self.data,
            list(compress(self.places, mask.tolist())),
            self.rows.part(mask),
            self.senders[mask],
            self.key_ids[mask],
            self.ends[mask],
        )


class Reading:
    """Reads the submissions of one shard."""

    def __init__(
        self,
        *,
        chain_id: bytes,
        schemes: frozenset[int],
        pool: Pool,
        keys: KeyStore,
        epochs_end: bool,
    ) -> None:
        """Where no epoch ends, actions on the validators are refused."""
        self._epochs_end = epochs_end
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
        # What has the last nonce goes the long way, at whose end it is refused.
        plain = read.plain.view(np.bool_) & (read.terms[0] != U64_MAX)
        signatures, public_keys = self._size_columns()
        sizes = ROW_BYTES + read.spans[1] - read.spans[0] + signatures[read.schemes]
        brings = read.spans[2] > 0
        sizes += np.where(brings, public_keys[read.schemes], 0)
        found: list[Entry | None]
        if plain.all():
            found = list(self._plain(transactions, read, sizes, brings))
        else:
            found = [None] * len(transactions)
            rows = np.flatnonzero(plain).tolist()
            opened = self._plain(transactions, read, sizes, brings, plain)
            for row, faultless in zip(rows, opened, strict=True):
                found[row] = faultless
        self._drop_duplicates(found, results)
        if brings.any():
            self._check_keys(found, np.flatnonzero(brings & plain).tolist(), plain)
        for row in np.flatnonzero(~plain).tolist():
            if results[row] is None:
                found[row] = entry = self._decode(transactions[row], height, results, row)
                if entry is not None:
                    _fill_in(read, sizes, row, entry)
        candidates = Candidates(
            read.data,
            list(range(len(found))),
            Rows(
                cast("list[Entry]", found),
                read.terms[0],
                read.terms[4],
                read.terms[3],
                sizes,
                plain,
            ),
            read.senders,
            read.key_ids,
            read.starts[:-1] + read.spans[1],
        )
        if None not in found:
            return candidates
        return candidates.part(np.array([entry is not None for entry in found], dtype=np.bool_))

    def _plain(
        self,
        transactions: Sequence[bytes],
        read: Read,
        sizes: npt.NDArray[np.int64],
        brings: npt.NDArray[np.bool_],
        mask: npt.NDArray[np.bool_] | None = None,
    ) -> list[Entry]:
        """Entries of the plain rows; keys that they bring are not compared with key ids yet."""
        ids = hash_rows(TRANSACTION, read.bodies, read.body_offsets)
        schemes, senders, key_ids = read.schemes, read.senders, read.key_ids
        terms, spans = read.terms, read.spans
        if mask is not None:
            transactions = list(compress(transactions, mask.tolist()))
            ids, schemes, senders, key_ids = ids[mask], schemes[mask], senders[mask], key_ids[mask]
            terms, spans, sizes, brings = terms[:, mask], spans[:, mask], sizes[mask], brings[mask]
        if not transactions:
            return []
        named = rows_of(key_ids)
        keys = self._held(schemes, named)
        for row in np.flatnonzero(brings).tolist():
            keys[row] = transactions[row][int(spans[2, row]) :]
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
        return self._keys.public_keys(scheme, key_ids)

    def _drop_duplicates(self, found: list[Entry | None], results: list[Result | None]) -> None:
        if self._pool.has_none_of([entry.id for entry in found if entry is not None]):
            return
        for row, entry in enumerate(found):
            if entry is not None and entry.id in self._pool:
                results[row] = (Code.DUPLICATE, entry.id, Code.DUPLICATE.description)
                found[row] = None

    def _check_keys(
        self, found: list[Entry | None], rows: Sequence[int], plain: npt.NDArray[np.bool_]
    ) -> None:
        """Compares keys that plain rows bring with their key ids; what differs is not plain."""
        for row in rows:
            entry = found[row]
            if entry is None:
                continue
            held = self._keys.get(entry.key_id)
            # Comparing with a key that is known spares hashing this one.
            if held is not None and held.public_key == entry.public_key:
                entry.public_key = held.public_key
            elif key_id(entry.scheme, entry.public_key) != entry.key_id:
                found[row], plain[row] = None, False

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
            if isinstance(body.action, RegistryAction) and not self._epochs_end:
                raise QnetError(
                    Code.ACTION_DISABLED, "the genesis keeps the committee: epoch_commits_min is 0"
                )
            check_terms(body.gas_limit, body.gas_price, Payload(body.access, body.action))
            action = body.action
            if isinstance(action, RegisterValidator) and action.scheme not in self._schemes:
                raise QnetError(Code.SCHEME_REFUSED, f"a validator key of scheme {action.scheme}")
            check_witness(body, transaction.witness, self._schemes)
        except QnetError as error:
            results[place] = (error.code, id_, error.detail)
            return None
        return entry


def _fill_in(read: Read, sizes: npt.NDArray[np.int64], row: int, entry: Entry) -> None:
    """Gives a row that is not plain what its columns can say of it."""
    read.senders[row] = np.frombuffer(entry.sender, dtype=np.uint8)
    read.key_ids[row] = np.frombuffer(entry.key_id, dtype=np.uint8)
    terms = (entry.nonce, entry.valid_until, entry.gas_limit, entry.gas_price)
    read.terms[:, row] = (*terms, min(entry.cost, U64_MAX))
    read.spans[1, row] = entry.payload_end
    sizes[row] = entry.size_bytes
