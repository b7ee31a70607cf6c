"""Which batches are held, for how long, and how many an author may have here unexecuted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass

from qnet_actors.mempool.settings import MempoolSettings
from qnet_actors.wire.batches import BatchHeader
from qnet_actors.wire.codes import Code, QnetError


@dataclass(slots=True)
class _Held:
    author: int
    shard: int
    sequence: int
    size_bytes: int
    since_ms: int
    """When it was taken in; once executed, when that was."""
    height: int = 0
    commit_index: int = 0
    taken: bool = False
    """Its transactions were pooled here, though it is another author's."""


class Retention:
    """Batches stay until their block is certified and no DAG above gc_round can name them.

    The latter holds once a certified commit is `gc_depth` commits above the one that executed the
    batch, since the round of the leader rises with every commit.
    """

    def __init__(self, gc_depth: int, settings: MempoolSettings) -> None:
        self._gc_depth = gc_depth
        self._settings = settings
        self._unexecuted: dict[bytes, _Held] = {}
        self._executed: dict[bytes, _Held] = {}
        # The digest first held for a sequence, by (author, shard).
        self._sequences: dict[tuple[int, int], dict[int, bytes]] = {}
        self._author_bytes: Counter[int] = Counter()
        # All that is held unexecuted of an author's shard, whatever the sequences.
        self._held: Counter[tuple[int, int]] = Counter()
        # Batches held unexecuted, not taken over, by author.
        self._untaken: Counter[int] = Counter()
        # When the batch came that was the last to come of all that are executed.
        self._reached_ms = 0
        # When batches were executed last.
        self._executed_ms = 0
        self._final_height = 0
        self._final_commit_index = 0

    def __len__(self) -> int:
        return len(self._unexecuted) + len(self._executed)

    def check_quota(self, header: BatchHeader, digest: bytes, size_bytes: int) -> None:
        """Whether a pushed batch may be held besides those that its author has here.

        Raises `QnetError`: BAD_SEQUENCE where another batch has its sequence, BUSY where the
        author has too much here that is not executed.
        """
        settings = self._settings
        sequences = self._sequences.get((header.author, header.shard), {})
        if sequences.get(header.sequence, digest) != digest:
            raise QnetError(Code.BAD_SEQUENCE, f"sequence {header.sequence} is another batch's")
        if (
            len(sequences) >= settings.author_batches_max
            or self._author_bytes[header.author] + size_bytes > settings.author_size_bytes_max
        ):
            raise QnetError(Code.BUSY, "the author has too many batches that are not executed")

    def check_named(self, header: BatchHeader, size_bytes: int) -> None:
        """Whether a batch that a block names, and no commit yet, may be held besides the others.

        Its author may name what it never pushed, and several batches of one sequence.  The bound
        is wider than that of `check_quota`, since others may be further with execution.  Raises
        `QnetError(BUSY)`.
        """
        settings = self._settings
        factor = settings.author_named_factor
        held = self._held[header.author, header.shard]
        size = self._author_bytes[header.author] + size_bytes
        if (
            held >= factor * settings.author_batches_max
            or size > factor * settings.author_size_bytes_max
        ):
            raise QnetError(Code.BUSY, "blocks name too many of the author's batches")

    def is_first(self, header: BatchHeader, digest: bytes) -> bool:
        """Whether `digest`, which is held, may be acknowledged: no other has its sequence."""
        sequences = self._sequences.get((header.author, header.shard), {})
        return sequences.get(header.sequence, digest) == digest

    def started(self, now_ms: int) -> None:
        """What a restart brought back counts from now."""
        for held in (*self._unexecuted.values(), *self._executed.values()):
            held.since_ms = now_ms

    def add(self, header: BatchHeader, digest: bytes, size_bytes: int, now_ms: int) -> None:
        """A batch that the store holds, not executed as far as is known."""
        held = _Held(header.author, header.shard, header.sequence, size_bytes, now_ms)
        self._unexecuted[digest] = held
        self._sequences.setdefault((held.author, held.shard), {}).setdefault(held.sequence, digest)
        self._author_bytes[held.author] += size_bytes
        self._held[held.author, held.shard] += 1
        self._untaken[held.author] += 1

    def executed(
        self, digests: Iterable[bytes], height: int, commit_index: int, now_ms: int
    ) -> tuple[bytes, ...]:
        """Notes that batches are executed; those among them that were held unexecuted."""
        known = []
        for digest in digests:
            held = self._unexecuted.get(digest)
            if held is not None:
                self._release(digest, held)
                self._reached_ms = max(self._reached_ms, held.since_ms)
                held.height, held.commit_index, held.since_ms = height, commit_index, now_ms
                self._executed[digest] = held
                known.append(digest)
        if known:
            self._executed_ms = now_ms
        return tuple(known)

    def _release(self, digest: bytes, held: _Held) -> None:
        del self._unexecuted[digest]
        self._untaken[held.author] -= not held.taken
        slot = (held.author, held.shard)
        sequences = self._sequences[slot]
        if sequences.get(held.sequence) == digest:
            del sequences[held.sequence]
            if not sequences:
                del self._sequences[slot]
        self._author_bytes[held.author] -= held.size_bytes
        self._held[slot] -= 1
        if not self._held[slot]:
            del self._held[slot]

    def certified(self, height: int, commit_index: int) -> None:
        """All up to `height`, and the commits up to `commit_index`, is final."""
        self._final_height = max(self._final_height, height)
        self._final_commit_index = max(self._final_commit_index, commit_index)

    def passed_over(self, now_ms: int, wait_ms: Callable[[int], int | None]) -> Iterator[bytes]:
        """The batches to take over, oldest first; `wait_ms` says how long an author's wait.

        One is passed over for as long as it came before the newest that is executed.  Where
        nothing was executed for the least time, one is that has waited for so much longer.  Where
        execution is late but goes on, age alone says nothing: what all sealed twice under an
        overload would make it worse.
        """
        idle_ms = self._settings.takeover_wait_ms
        idle = self._executed_ms + idle_ms <= now_ms
        for digest, held in list(self._unexecuted.items()):
            if held.since_ms + idle_ms > now_ms:
                return
            wait = wait_ms(held.author)
            if held.taken or wait is None:
                continue
            due_ms = held.since_ms + wait
            if due_ms <= now_ms and (
                due_ms <= self._reached_ms or (idle and due_ms + idle_ms <= now_ms)
            ):
                yield digest

    def taken(self, digest: bytes) -> None:
        """The transactions of an unexecuted batch are pooled here; it is not taken over again."""
        held = self._unexecuted[digest]
        self._untaken[held.author] -= not held.taken
        held.taken = True

    def untaken(self, own_index: int) -> bool:
        """Whether any batch of another author is unexecuted and not taken over."""
        return any(count for author, count in self._untaken.items() if author != own_index)

    def aged(self, now_ms: int, age_ms: int) -> list[bytes]:
        """The batches held unexecuted for `age_ms`, oldest first."""
        aged = []
        for digest, held in self._unexecuted.items():
            if held.since_ms + age_ms > now_ms:
                break
            aged.append(digest)
        return aged

    def due(self, now_ms: int, kept: Container[bytes]) -> tuple[bytes, ...]:
        """The batches that need not be held any longer; `kept` are, as long as not executed.

        A block may name one of them again, so the validator is asked before it is let go.
        """
        due: list[bytes] = []
        keep_ms = self._settings.witness_retention_ms
        if keep_ms is not None:
            for digest, held in self._executed.items():
                if (
                    held.height > self._final_height
                    or held.commit_index + self._gc_depth > self._final_commit_index
                    or held.since_ms + keep_ms > now_ms
                ):
                    break
                due.append(digest)
        lifetime_ms = self._settings.unexecuted_lifetime_ms
        for digest, held in self._unexecuted.items():
            if held.since_ms + lifetime_ms > now_ms:
                break
            if digest not in kept:
                due.append(digest)
        return tuple(due)

    def drop(
        self, digests: Iterable[bytes], now_ms: int, kept: Container[bytes]
    ) -> tuple[bytes, ...]:
        """Lets batches go that are still due; returns those."""
        due = frozenset(self.due(now_ms, kept))
        dropped = tuple(digest for digest in digests if digest in due)
        for digest in dropped:
            held = self._unexecuted.get(digest)
            if held is None:
                del self._executed[digest]
            else:
                self._release(digest, held)
        return dropped
