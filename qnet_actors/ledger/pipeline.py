"""Commits on their way to blocks: bodies asked for, batches opened, blocks cut, in order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from qnet_actors.ledger.blocks import Cutter, Draft, OpenCommit, Tip, weight_of
from qnet_actors.ledger.execute import OpenBatch
from qnet_actors.rooms import BodiesWanted, CommitReady
from qnet_actors.wire.batches import Batch
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code
from qnet_actors.wire.genesis import Parameters
from qnet_actors.wire.limits import BATCH_SIZE_BYTES_MAX

PREFETCHED_MAX: Final = 8
"""Commits whose bodies are asked for, or being opened, at a time."""
HELD_BYTES_MAX: Final = 128 * 1024 * 1024
"""Of bodies here and asked for: at this, no more are asked for until blocks are executed."""


class OutOfOrder(Exception):
    """The validator or the mempool broke the order or the identity of what it hands over."""


@dataclass(slots=True)
class _Entry:
    ready: CommitReady
    digest: bytes
    asked: bool = False
    opening: bool = False
    size_bytes: int = 0
    """What its batches take in memory; estimated until they are here."""
    open_bytes: int = 0
    """What they take once they are opened, and the witnesses gone."""
    genuine: tuple[bool, ...] = ()
    """Which of the batches are what their naming says."""
    open: OpenCommit | None = None


class Pipeline:
    """The commits behind the tip, oldest first, and the blocks cut from them.

    A commit is kept until a block that holds it is executed, so that the cutting can start again
    from another tip: see `restart`.
    """

    def __init__(self, parameters: Parameters, tip: Tip) -> None:
        self._parameters: Final = parameters
        # Consensus holds back what is further ahead; the bound catches it where it does not.
        self._commits_max: Final = 2 * parameters.commit_lag + PREFETCHED_MAX
        self._entries: deque[_Entry] = deque()
        self._batch_bytes = BATCH_SIZE_BYTES_MAX
        """The largest batch of the commit that came last: what is expected of the next ones."""
        self._last_index = tip.commit_index
        self._last_digest = tip.commit_digest
        self._cutter = Cutter(parameters, tip)
        self._epoch_end = 0
        self._fed = 0
        self._drafts: deque[Draft] = deque()

    @property
    def next_index(self) -> int:
        """The index of the commit that is due."""
        return self._last_index + 1

    def end_epoch(self, index: int) -> None:
        """The epoch ends with a commit; 0: it is not known yet.

        Raises `OutOfOrder` where a later one is here: consensus may not be so far ahead.
        """
        self._epoch_end = self._cutter.epoch_end = index
        self._check_end(self._last_index)

    def add(self, ready: CommitReady) -> None:
        """Takes the commit that is due; raises `OutOfOrder`."""
        commit = ready.commit
        if commit.index != self.next_index or commit.previous != self._last_digest:
            raise OutOfOrder(f"commit {commit.index} does not follow {self._last_index}")
        self._check_end(commit.index)
        if len(self._entries) >= self._commits_max:
            raise OutOfOrder(f"more than {self._commits_max} commits wait for execution")
        entry = _Entry(ready, commit.digest())
        self._last_index, self._last_digest = commit.index, entry.digest
        self._entries.append(entry)
        if not ready.batches:
            self._open(entry, ())

    def known_digest(self, index: int) -> bytes | None:
        """The digest of a commit that waits here."""
        position = index - self.next_index + len(self._entries)
        return self._entries[position].digest if 0 <= position < len(self._entries) else None

    def wanted(self) -> list[BodiesWanted]:
        """What to ask the mempool for now, so that it is here when its turn comes."""
        wanted: list[BodiesWanted] = []
        under_way = sum(entry.asked and entry.open is None for entry in self._entries)
        held = sum(entry.size_bytes for entry in self._entries)
        for entry in self._entries:
            # What waits for the end of its block takes less than the bound, so this never waits for
            # itself.
            if under_way >= PREFETCHED_MAX or held >= HELD_BYTES_MAX:
                break
            if not entry.asked and entry.open is None:
                entry.asked = True
                entry.size_bytes = self._batch_bytes * len(entry.ready.batches)
                held += entry.size_bytes
                under_way += 1
                digests = tuple(ref.digest for _, ref in entry.ready.batches)
                wanted.append(BodiesWanted(entry.ready.commit.index, digests))
        return wanted

    def arrived(self, commit_index: int, batches: tuple[Batch, ...]) -> bool:
        """Bodies came; whether they are to be opened.  Raises `OutOfOrder` for other bodies."""
        entry = self._entry(commit_index)
        if entry is None or not entry.asked or entry.opening or entry.open is not None:
            return False
        named = entry.ready.batches
        if [batch.digest for batch in batches] != [ref.digest for _, ref in named]:
            raise OutOfOrder(f"the bodies of commit {commit_index} are not those asked for")
        # A validator may name a batch that is not its own, or under another sequence.  That is a
        # fact of the bytes, so all validators alike leave it out, and nobody stops for it.
        entry.genuine = tuple(
            (batch.header.author, batch.ref) == name
            for batch, name in zip(batches, named, strict=True)
        )
        sizes = [len(batch.bodies) + len(batch.witnesses) for batch in batches]
        self._batch_bytes = max(sizes)
        entry.size_bytes = sum(sizes)
        # The canonical bodies are expanded beside the columns.
        entry.open_bytes = 2 * sum(len(batch.bodies) for batch in batches)
        entry.opening = True
        return True

    def opened(self, commit_index: int, batches: tuple[OpenBatch, ...]) -> None:
        """The batches of a commit are opened; a commit executed meanwhile is passed over."""
        entry = self._entry(commit_index)
        if entry is not None and entry.open is None:
            entry.size_bytes = entry.open_bytes
            kept = zip(batches, entry.genuine, strict=True)
            self._open(entry, tuple(batch for batch, genuine in kept if genuine))

    def next_draft(self) -> Draft | None:
        """The next block to execute."""
        self._feed()
        return self._drafts.popleft() if self._drafts else None

    def executed(self, tip: Tip) -> None:
        """Forgets the commits that the tip holds; the drafts behind it stand."""
        while self._entries and self._entries[0].ready.commit.index <= tip.commit_index:
            self._entries.popleft()
            self._fed -= 1

    def restart(self, tip: Tip) -> None:
        """Goes on from a tip that came from elsewhere; raises `OutOfOrder` if it forked."""
        while self._entries and self._entries[0].ready.commit.index <= tip.commit_index:
            entry = self._entries.popleft()
            if entry.ready.commit.index == tip.commit_index and entry.digest != tip.commit_digest:
                raise OutOfOrder(f"commit {tip.commit_index} differs from the certified one")
        if not self._entries:
            self._last_index, self._last_digest = tip.commit_index, tip.commit_digest
        self._cutter = Cutter(self._parameters, tip)
        self._cutter.epoch_end = self._epoch_end
        self._drafts.clear()
        self._fed = 0

    def _check_end(self, index: int) -> None:
        """Consensus holds back what comes after the epoch; the next committee decides on that."""
        if self._epoch_end and index > self._epoch_end:
            raise OutOfOrder(
                f"{Code.WRONG_EPOCH.label}: commit {index} comes after {self._epoch_end}, the last"
                " one of the epoch"
            )

    def _feed(self) -> None:
        """Hands opened commits to the cutter, in order."""
        while self._fed < len(self._entries):
            opened = self._entries[self._fed].open
            if opened is None:
                return
            self._drafts.extend(self._cutter.add(opened))
            self._fed += 1

    def _open(self, entry: _Entry, batches: tuple[OpenBatch, ...]) -> None:
        entry.open = OpenCommit(
            commit=entry.ready.commit,
            digest=entry.digest,
            size_bytes=len(encode(entry.ready.commit)),
            batches=batches,
            weights=tuple(weight_of(batch) for batch in batches),
        )

    def _entry(self, commit_index: int) -> _Entry | None:
        position = commit_index - self.next_index + len(self._entries)
        return self._entries[position] if 0 <= position < len(self._entries) else None
