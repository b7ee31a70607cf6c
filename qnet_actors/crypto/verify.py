"""Batched verification, and the place where a compiled kernel slots in.

Columns are the form that batches travel in: a table of public keys with an index per row, messages
`uint8[n, m]` (32-byte digests on the wire) and signatures `uint8[n, size of the scheme]`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qnet_actors.crypto.providers.seam import CONTEXT_BYTES_MAX, Buffer, RowVerifier
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme

Bytes2d: TypeAlias = NDArray[np.uint8]
Verdicts: TypeAlias = NDArray[np.bool_]
KeyColumn: TypeAlias = Sequence[bytes] | tuple[Sequence[bytes], NDArray[np.integer]]

THREADS_MAX: Final = 64
# Rows that one task handles: large enough to hide the cost of a task, small enough that threads
# finish together.
ROWS_PER_TASK: Final = 64
# A provider that holds the GIL keeps every other thread of the process waiting.  At two
# microseconds a row, the keyed hash's, this gives an event loop a turn every half millisecond.
ROWS_PER_TURN: Final = 256
TURN_SECONDS: Final = 20e-6


class ColumnVerifier(Protocol):
    """A verifier over columns: what a compiled kernel offers.

    It is called with lengths already checked: every key of `table` that a row points to, every
    signature and the context have the sizes of the scheme, and every index is in range.
    """

    @property
    def schemes(self) -> frozenset[Scheme]:
        """The schemes that it verifies; others go to the provider."""
        ...

    def verify_columns(
        self,
        scheme: Scheme,
        table: Sequence[bytes],
        index: NDArray[np.intp],
        messages: Bytes2d,
        signatures: Bytes2d,
        context: bytes,
    ) -> Verdicts:
        """Row i: is `signatures[i]` valid over `messages[i]` with key `table[index[i]]`?"""
        ...


class BatchVerifier:
    """Verifies batches with a provider, over threads where the provider releases the GIL.

    A kernel, where given, takes the columns of its schemes; the provider takes all else.  Nothing a
    peer sends can raise: a wrong length or index is False for its row.
    """

    def __init__(
        self, provider: RowVerifier, threads: int = 1, kernel: ColumnVerifier | None = None
    ) -> None:
        """`threads` is 1 to 64 and counts the caller's; raises ValueError outside that."""
        if not 1 <= threads <= THREADS_MAX:
            raise ValueError(f"threads must be 1 to {THREADS_MAX}, not {threads}")
        self._provider = provider
        self._kernel = kernel
        self._pool = (
            ThreadPoolExecutor(threads, thread_name_prefix="verify")
            if threads > 1 and provider.releases_gil
            else None
        )

    def __enter__(self) -> BatchVerifier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; what is under way finishes first."""
        if self._pool is not None:
            self._pool.shutdown()

    def verify(
        self,
        public_keys: Sequence[bytes],
        messages: Sequence[Buffer],
        signatures: Sequence[Buffer],
        context: bytes,
        scheme: Scheme = Scheme.ML_DSA_65,
    ) -> Verdicts:
        """bool[n]: which rows carry a valid signature.  Messages may differ in length.

        Raises ValueError when the sequences differ in length, which is a fault of the caller, and
        `QnetError(UNKNOWN_SCHEME)` for a scheme that the provider does not offer.
        """
        count = len(messages)
        if len(public_keys) != count or len(signatures) != count:
            raise ValueError("keys, messages and signatures differ in number")
        sizes = SCHEME_SIZES[scheme]
        verdicts = np.zeros(count, np.bool_)
        if len(context) > CONTEXT_BYTES_MAX:
            return verdicts
        rows = [
            row
            for row in range(count)
            if len(public_keys[row]) == sizes.public_key and len(signatures[row]) == sizes.signature
        ]
        if self._takes(scheme) and rows and len({len(messages[row]) for row in rows}) == 1:
            verdicts[rows] = self._kernel_verdicts(
                scheme,
                [public_keys[row] for row in rows],
                np.arange(len(rows), dtype=np.intp),
                _column([messages[row] for row in rows]),
                _column([signatures[row] for row in rows]),
                context,
            )
            return verdicts

        def task(part: Sequence[int]) -> list[bool]:
            return self._provider.verify_many(
                scheme,
                [public_keys[row] for row in part],
                [messages[row] for row in part],
                [signatures[row] for row in part],
                context,
            )

        self._run(rows, task, verdicts)
        return verdicts

    def verify_columns(
        self,
        public_keys: KeyColumn,
        messages: Bytes2d,
        signatures: Bytes2d,
        context: bytes,
        scheme: Scheme = Scheme.ML_DSA_65,
    ) -> Verdicts:
        """bool[n] over columns: messages `uint8[n, m]`, signatures `uint8[n, s]`.

        `public_keys` holds a key per row, or a table and an index per row.  A width of signatures
        other than the scheme's, an index out of range or a key of another size is False.  Raises
        ValueError when the columns are not of uint8, not two-dimensional or differ in number of
        rows, which are faults of the caller.
        """
        if isinstance(public_keys, tuple):
            table, given = public_keys
            index = np.asarray(given)
        else:
            table = public_keys
            index = np.arange(len(table), dtype=np.intp)
        count = len(index)
        for column in (messages, signatures):
            if column.dtype != np.uint8 or column.ndim != 2 or len(column) != count:
                raise ValueError(f"a column must be uint8[{count}, width]")
        if index.ndim != 1 or index.dtype.kind not in "iu":
            raise ValueError("the index must be one-dimensional and of integers")
        sizes = SCHEME_SIZES[scheme]
        verdicts = np.zeros(count, np.bool_)
        if signatures.shape[1] != sizes.signature or len(context) > CONTEXT_BYTES_MAX:
            return verdicts
        in_range = (index >= 0) & (index < len(table))
        if set(map(len, table)) <= {sizes.public_key}:
            # As good as always; looking at each key would cost a tenth of the verification.
            rows = np.flatnonzero(in_range)
        else:
            # The table ends in an entry that is never usable, where rows out of range point to.
            usable = np.array([*(len(key) == sizes.public_key for key in table), False])
            rows = np.flatnonzero(usable[np.where(in_range, index, len(table)).astype(np.intp)])
        index = np.where(in_range, index, 0).astype(np.intp)
        if self._takes(scheme):
            if len(rows) == count:
                return self._kernel_verdicts(scheme, table, index, messages, signatures, context)
            verdicts[rows] = self._kernel_verdicts(
                scheme, table, index[rows], messages[rows], signatures[rows], context
            )
            return verdicts

        def task(part: Sequence[int]) -> list[bool]:
            return self._provider.verify_many(
                scheme,
                [table[index[row]] for row in part],
                [messages[row].tobytes() for row in part],
                [signatures[row].tobytes() for row in part],
                context,
            )

        self._run(rows.tolist(), task, verdicts)
        return verdicts

    def _takes(self, scheme: Scheme) -> bool:
        return self._kernel is not None and scheme in self._kernel.schemes

    def _kernel_verdicts(
        self,
        scheme: Scheme,
        table: Sequence[bytes],
        index: NDArray[np.intp],
        messages: Bytes2d,
        signatures: Bytes2d,
        context: bytes,
    ) -> Verdicts:
        if self._kernel is None or not len(index):
            return np.zeros(len(index), np.bool_)
        return self._kernel.verify_columns(scheme, table, index, messages, signatures, context)

    def _run(
        self, rows: list[int], task: Callable[[Sequence[int]], list[bool]], verdicts: Verdicts
    ) -> None:
        """Fill `verdicts` for `rows`, a part at a time."""
        if not self._provider.releases_gil:
            for start in range(0, len(rows), ROWS_PER_TURN):
                part = rows[start : start + ROWS_PER_TURN]
                verdicts[part] = task(part)
                # A sleep of zero hands the GIL to nobody in particular and takes it back before a
                # waiting thread has woken; a short one lets it run.
                time.sleep(TURN_SECONDS)
            return
        parts = [
            rows[start : start + ROWS_PER_TASK] for start in range(0, len(rows), ROWS_PER_TASK)
        ]
        outcomes = map(task, parts) if self._pool is None else self._pool.map(task, parts)
        for part, outcome in zip(parts, outcomes, strict=True):
            verdicts[part] = outcome


def _column(rows: Sequence[Buffer]) -> Bytes2d:
    """uint8[n, width] of rows of one width."""
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), len(rows[0]))
