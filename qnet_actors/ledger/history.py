"""What accounts held and did: derived from the block log, behind its back, and bounded.

Nothing waits for the history, and nothing depends on it: whatever is wrong with its files, they are
made anew.  Old files are removed whole once all their blocks are past the retention.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import BoundedSemaphore, Condition, RLock
from typing import Final, TypeVar

from qnet_actors.ledger.databases import Databases, LogOptions
from qnet_actors.ledger.history_part import (
    Activity,
    EventPlace,
    FoundEvent,
    HistoryPart,
    TransactionPlace,
)
from qnet_actors.ledger.queries import FoundAccount
from qnet_actors.ledger.writes import BlockQueries
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.hashing import BLOCK, ZERO_DIGEST, hash32

PART_ROWS_MAX: Final = 400_000
"""Rows stay in memory until a file is full: at about 150 bytes each."""
PARTS_READ_MAX: Final = 32
"""How many files the search for an account looks into: to open and ask one takes 5 ms."""
PAGE_PARTS_MAX: Final = 8
"""How many files one page looks into; the answer says where to go on."""
PAGE_MAX: Final = 100
QUESTIONS_MAX: Final = 8
"""How many questions may wait, with the one that is being answered."""
_OPEN_PARTS_MAX: Final = 3
_CHUNK_RECORDS: Final = 64
_CHUNK_BYTES: Final = 4 * 1024 * 1024
# A position behind every transaction of a block.
_LAST: Final = 2**32 - 1
# What says that a file is not one that this history can have made.
_DAMAGE: Final = frozenset({Code.DATA_CORRUPT, Code.DATA_VERSION, Code.WRONG_CHAIN})
_NAME: Final = re.compile(r"history-(\d{12})\.duckdb")
logger: Final = logging.getLogger(__name__)

T = TypeVar("T")


class History:
    """Accounts at past heights, their transactions, and events; reads from any thread."""

    def __init__(
        self,
        directory: Path,
        genesis: Genesis,
        log: BlockQueries,
        blocks_max: int,
        *,
        options: LogOptions | None = None,
        part_rows_max: int = PART_ROWS_MAX,
    ) -> None:
        """At least the last `blocks_max` blocks are kept.  Reads the log as far as it must."""
        self._directory = directory
        self._genesis = genesis
        self._chain_id = genesis.chain_id()
        self._log = log
        self._blocks_max = blocks_max
        self._part_rows_max = part_rows_max
        self._balances: dict[bytes, int] | None = None
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Derived: what a power failure takes is derived again.
        self._databases = Databases(directory, options or LogOptions(fsync=False))
        self._files = RLock()
        self._open: OrderedDict[int, HistoryPart] = OrderedDict()
        self._firsts: list[int] = []
        """The first heights of the files, rising."""
        self._height = 0
        self._begin = 1
        """Where an empty history begins at the earliest."""
        self._state = Condition()
        self._running = self._again = self._closed = False
        self._failed = False
        self._damaged = False
        """Whether a question met a file that fails; who fills the history then clears it."""
        self._background = ThreadPoolExecutor(1, thread_name_prefix="history")
        # A question may open many files, and all of them share one lock: a thread of their own
        # keeps them from those of everybody else, and a bound from each other.
        self._questions = ThreadPoolExecutor(1, thread_name_prefix="history-questions")
        self._places = BoundedSemaphore(QUESTIONS_MAX)
        self._open_all()

    @property
    def height(self) -> int:
        """The last block that is in the history; 0: none."""
        return self._height

    @property
    def first_height(self) -> int:
        """The first one; 0: none."""
        with self._files:
            return self._firsts[0] if self._firsts else 0

    def poke(self) -> None:
        """There may be new blocks: they are taken in the background."""
        with self._state:
            self._again = True
            if not self._running and not self._closed:
                self._running = True
                self._background.submit(self._run)

    def flush(self) -> None:
        """Waits until what is durable now was taken, or could not be."""
        self.poke()
        with self._state:
            self._state.wait_for(lambda: not self._running)

    def close(self) -> None:
        """Leaves off where it is; questions that wait are told NOT_READY."""
        with self._state:
            self._closed = True
        self._background.shutdown(wait=True, cancel_futures=True)
        self._questions.shutdown(wait=True)
        with self._files:
            for part in self._open.values():
                part.close()
            self._open.clear()
            self._databases.close()

    # Reading

    def ask(self, question: Callable[[], T]) -> Future[T]:
        """Has one of the reads below done after those that wait.

        The future is not to be cancelled: what waits keeps its place.  Raises `QnetError`: BUSY
        where too many wait, NOT_READY once the history is closed.
        """
        if not self._places.acquire(blocking=False):
            raise QnetError(Code.BUSY, "too many questions about the past wait; ask again later")
        with self._state:
            if self._closed:
                self._places.release()
                raise _closed()
            answer = self._questions.submit(question)
        answer.add_done_callback(lambda _: self._places.release())
        return answer

    def account(self, address: bytes, height: int) -> FoundAccount:
        """An account as of a block.

        Raises `QnetError`: NOT_FOUND where that is not known, PRUNED where it is not any more.
        """
        with self._reading():
            first = self.first_height
            if not first or height > self._height:
                raise QnetError(Code.NOT_FOUND, f"the history has come to height {self._height}")
            if height < first and first > 1:
                raise QnetError(Code.PRUNED, f"the history kept here begins at height {first}")
            for number, part in enumerate(self._parts_down(height)):
                if number == PARTS_READ_MAX:
                    raise QnetError(Code.NOT_FOUND, "it changed too long before to be found")
                found = part.account(address, height)
                if found is not None:
                    nonce, balance, key_id = found
                    return FoundAccount(height, nonce, balance, key_id)
        if first > 1:
            raise QnetError(
                Code.PRUNED, f"it last changed before height {first}, where the history begins"
            )
        return FoundAccount(height, 0, self._genesis_balance(address), ZERO_DIGEST)

    def transactions(
        self, address: bytes, before: TransactionPlace | None, count_max: int
    ) -> tuple[list[Activity], TransactionPlace | None]:
        """(transactions of an account, the newest first; where to go on, None: at the end)."""
        found: list[Activity] = []
        count = min(count_max, PAGE_MAX)
        with self._reading():
            for number, part in enumerate(self._parts_down(before[0] if before else None)):
                if number == PAGE_PARTS_MAX:
                    return found, (part.last_height, _LAST)
                found += part.activity(address, before, count + 1 - len(found))
                if len(found) > count:
                    last = found[count - 1]
                    return found[:count], (last.height, last.position)
        return found, None

    def events(
        self, topic: bytes, source: bytes | None, before: EventPlace | None, count_max: int
    ) -> tuple[list[FoundEvent], EventPlace | None]:
        """(events of a topic, and of a source if given, the newest first; where to go on)."""
        found: list[FoundEvent] = []
        count = min(count_max, PAGE_MAX)
        with self._reading():
            for number, part in enumerate(self._parts_down(before[0] if before else None)):
                if number == PAGE_PARTS_MAX:
                    return found, (part.last_height, _LAST, 0)
                found += part.events(topic, source, before, count + 1 - len(found))
                if len(found) > count:
                    last = found[count - 1]
                    return found[:count], (last.height, last.position, last.number)
        return found, None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Holds the files; where one of them fails, all are made anew, and who asked is told."""
        with self._files:
            if self._damaged:
                raise _made_anew()
            try:
                yield
            except QnetError as error:
                if error.code not in _DAMAGE:
                    raise
                logger.warning("a file of the history fails; it is made anew: %s", error)
                self._damaged = True
                self.poke()
                raise _made_anew() from error

    def _genesis_balance(self, address: bytes) -> int:
        if self._balances is None:
            self._balances = {a.address: a.balance for a in self._genesis.accounts}
        return self._balances.get(address, 0)

    # Filling

    def _run(self) -> None:
        while True:
            with self._state:
                if not self._again or self._closed:
                    self._running = False
                    self._state.notify_all()
                    return
                self._again = False
            try:
                while self._step():
                    pass
                self._failed = False
            except Exception:
                # Nothing depends on the history: the validator goes on, and the next block tries
                # again, without a word of its own.
                if not self._failed:
                    logger.exception("the history stands at height %d", self._height)
                self._failed = True

    def _step(self) -> bool:
        """Takes the next blocks; whether there were any."""
        if self._closed:
            return False
        with self._files:
            if self._damaged:
                self._clear()
                self._damaged = False
        last = self._log.last_height()
        first = self._height + 1
        if not self._firsts:
            first = self._there(max(self._begin, last - self._blocks_max + 1))
        if first > last:
            return False
        records = self._log.records(first, _CHUNK_RECORDS, _CHUNK_BYTES)
        with self._files:
            if not records:
                # The validator joined anew, and the log goes on above, or it was pruned: what was
                # before a gap says nothing about what is behind it.
                self._begin = self._there(first)
                if self._begin == first:
                    raise QnetError(Code.DATA_CORRUPT, f"the log lacks block {first}")
                self._clear()
                return True
            if not self._firsts:
                self._firsts.append(first)
            part = self._part(self._firsts[-1])
            if part.rows >= self._part_rows_max:
                part.seal()
                self._firsts.append(first)
                part = self._part(first)
            part.add(records)
            self._height = part.last_height
            self._forget()
        return True

    def _there(self, height: int) -> int:
        """A height from which on no block lacks in the log."""
        return max(height, self._log.first_height())

    def _forget(self) -> None:
        """Removes files whose blocks are all past the retention."""
        while len(self._firsts) > 1 and self._firsts[1] <= self._height - self._blocks_max + 1:
            first = self._firsts.pop(0)
            if first in self._open:
                self._open.pop(first).close()
            _remove(self._path(first))

    # Files

    def _open_all(self) -> None:
        names = (_NAME.fullmatch(path.name) for path in self._directory.iterdir())
        firsts = sorted(int(name[1]) for name in names if name)
        try:
            self._firsts = firsts
            if firsts:
                part = self._part(firsts[-1])
                self._height = part.last_height
                if part.last_hash and self._is_of_the_log(part):
                    return
        except QnetError:
            logger.exception("the history does not open; it is made anew")
        self._clear()

    def _clear(self) -> None:
        """Removes everything; the caller holds `_files`, or is alone."""
        for part in self._open.values():
            part.close()
        self._open.clear()
        for first in self._firsts:
            _remove(self._path(first))
        self._firsts, self._height = [], 0

    def _is_of_the_log(self, part: HistoryPart) -> bool:
        headers = self._log.headers(part.last_height, 1)
        return bool(headers) and hash32(BLOCK, headers[0]) == part.last_hash

    def _parts_down(self, height: int | None) -> Iterator[HistoryPart]:
        """The files from the one with a height on downwards; the caller holds `_files`."""
        for first in reversed(self._firsts):
            if self._closed:
                raise _closed()
            if height is None or first <= height:
                yield self._part(first)

    def _part(self, first: int) -> HistoryPart:
        part = self._open.get(first)
        if part is None:
            part = HistoryPart(self._databases, self._path(first), first, self._chain_id)
            at = self._firsts.index(first) + 1
            if at < len(self._firsts) and part.last_height + 1 != self._firsts[at]:
                part.close()
                raise QnetError(
                    Code.DATA_CORRUPT,
                    f"{part.path} ends at height {part.last_height}, "
                    f"and the next file begins at {self._firsts[at]}",
                )
            self._open[first] = part
            others = [at for at in self._open if at not in (first, self._firsts[-1])]
            for at in others[: len(self._open) - _OPEN_PARTS_MAX]:
                self._open.pop(at).close()
        self._open.move_to_end(first)
        return part

    def _path(self, first: int) -> Path:
        return self._directory / f"history-{first:012d}.duckdb"


def _closed() -> QnetError:
    return QnetError(Code.NOT_READY, "the history is closed; ask another validator")


def _made_anew() -> QnetError:
    return QnetError(Code.BUSY, "the history was damaged and is made anew; ask again later")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".wal").unlink(missing_ok=True)
