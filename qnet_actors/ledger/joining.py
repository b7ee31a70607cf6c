"""Joining from a snapshot of peers, where there are too many blocks to take one after the other.

The manifest is proved by its certificate, and each section by the manifest, so it does not matter
who sends what; sections come from several peers at a time.  What was checked is kept on disk, and a
validator that dies meanwhile goes on with what it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from qnet_actors.ledger.blocks import Tip
from qnet_actors.ledger.catchup import Refused, Rules
from qnet_actors.ledger.outcome import LedgerState
from qnet_actors.ledger.recovery import is_chain
from qnet_actors.ledger.verify import check_certificate, check_contents
from qnet_actors.ledger.writes import BlockReader, BlockWrite, all_parts
from qnet_actors.state import check_section, section_prefixes, sections_root
from qnet_actors.wire.blocks import BLOCK_RECORD_CODEC, BlockRecord
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.messages import SnapshotPart, SnapshotRequest
from qnet_actors.wire.snapshots import (
    SECTION_ACCOUNTS_CODEC,
    SNAPSHOT_MANIFEST_CODEC,
    SnapshotManifest,
    SnapshotSection,
)

PART_TIMEOUT_MS: Final = 5_000
PART_TIMEOUT_MS_MAX: Final = 60_000
"""A section of 2.6 MB comes in this time at 45 kB a second."""
PARTS_AT_ONCE_MAX: Final = 4
"""Asked for, being checked or being written: each is some megabytes."""
RETRIES_MIN: Final = 4
"""After as many retries the patience is what it can be."""


@dataclass(frozen=True, slots=True)
class PartKept:
    """The ledger to itself: a section of the snapshot that is fetched is durable."""

    height: int
    part: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that proved right."""

    wire: SnapshotManifest
    record: BlockRecord
    full: tuple[tuple[SnapshotSection, int], ...]
    """The sections with accounts and the first bits of their keys; part n is the n-th."""

    @property
    def height(self) -> int:
        return self.record.header.height

    @property
    def tip(self) -> Tip:
        """A checkpoint never holds only a part of a commit."""
        header = self.record.header
        return Tip(
            header.height,
            header.hash(),
            header.timestamp_ms,
            header.commit_index,
            header.commit_digest,
        )

    @property
    def block(self) -> BlockWrite:
        return BlockWrite(self.record, self.tip.block_hash, self.wire.record)


def check_manifest(rules: Rules, data: bytes, gc_depth: int, height_min: int) -> Manifest | Refused:
    """Checks what a peer sent for a manifest; CPU work."""
    try:
        return open_manifest(rules, SNAPSHOT_MANIFEST_CODEC.decode(data), gc_depth, height_min)
    except QnetError as error:
        return Refused(error.detail)


def open_manifest(
    rules: Rules, manifest: SnapshotManifest, gc_depth: int, height_min: int
) -> Manifest:
    """Raises `QnetError` unless a certificate proves all of the manifest."""
    checkpoint = manifest.certificate.checkpoint
    _require(checkpoint.height >= height_min, "too low to be of use")
    check_certificate(rules.identity, rules.committee, manifest.certificate, rules.verifier)
    record = BLOCK_RECORD_CODEC.decode(manifest.record)
    header = record.header
    _require(header.hash() == checkpoint.block_hash, "another block")
    _require(record.checkpoint == checkpoint, "another checkpoint")
    check_contents(record)
    commits = manifest.commits
    _require(is_chain(commits, checkpoint), "commits that do not follow")
    last = min(len(commits), len(record.commits))
    _require(last > 0 and commits[-last:] == record.commits[-last:], "commits of another block")
    _require(commits[-1].timestamp_ms == header.timestamp_ms, "another time")
    gc_round = commits[-1].leader.round - gc_depth
    # Of the epoch before, one commit is enough: rounds begin anew.
    is_whole = commits[0].index == 1 or commits[0].epoch < commits[-1].epoch
    reaches_back = is_whole or commits[0].leader.round <= gc_round + 1
    _require(reaches_back, "too few commits")
    _require(sections_root(manifest.sections) == checkpoint.state_root, "another state root")
    prefixes = section_prefixes(manifest.sections)
    pairs = zip(manifest.sections, prefixes, strict=True)
    return Manifest(manifest, record, tuple(pair for pair in pairs if pair[0].kind))


def reopen(
    rules: Rules, log: BlockReader, gc_depth: int, height_min: int
) -> tuple[Manifest, frozenset[int]] | None:
    """What is on disk of a snapshot, if it is still of use.  Reads the log."""
    joining = log.joining()
    if joining is None:
        return None
    try:
        manifest = open_manifest(rules, joining.manifest, gc_depth, height_min)
    except QnetError:
        return None
    return manifest, joining.parts


def check_part(manifest: Manifest, part: int, data: bytes) -> Refused | None:
    """Checks what a peer sent for a section; CPU work."""
    try:
        section, prefix = manifest.full[part - 1]
        check_section(section, prefix, SECTION_ACCOUNTS_CODEC.decode(data))
    except QnetError as error:
        return Refused(error.detail)
    return None


def install(state: LedgerState, log: BlockReader, manifest: Manifest) -> None:
    """Puts a snapshot that is fetched whole in the place of the state; reads the log.

    Raises `QnetError(DATA_CORRUPT)` where the disk does not give back what it was given.
    """
    joining = log.joining()
    if joining is None or joining.manifest != manifest.wire:
        raise QnetError(Code.DATA_CORRUPT, "the snapshot that was fetched is gone")
    state.replace(manifest.height, all_parts(joining.part, manifest.wire.sections))
    root, certified = state.root(), manifest.wire.certificate.checkpoint.state_root
    if root != certified:
        raise QnetError(
            Code.DATA_CORRUPT,
            f"the snapshot at {manifest.height} has the state root {root.hex()} on disk, certified "
            f"is {certified.hex()}; resync this validator",
        )


class JoinRun:
    """Which peer is asked for which part, and what is here.

    A peer is asked for one part at a time.  One that is silent, or sends what does not hold, is
    asked no more; so a liar costs a section's check.  Where nobody is left the run has failed, or
    only whoever gave the manifest, and others do not have its parts: a liar may have chosen it.
    """

    def __init__(
        self,
        peers: Sequence[int],
        height_min: int,
        *,
        blamed: tuple[int, ...] = (),
        timeout_ms: int = PART_TIMEOUT_MS,
        parts_at_once: int = PARTS_AT_ONCE_MAX,
    ) -> None:
        """`blamed`: the peers whose manifests came to nothing; they are asked last."""
        self.height_min: Final = height_min
        self.manifest: Manifest | None = None
        self._blamed: Final = blamed
        self._timeout_ms: Final = timeout_ms
        self._parts_at_once: Final = parts_at_once
        self._retries = 0
        self._giver: int | None = None
        """Who gave the manifest; None: the disk."""
        self._earlier: tuple[Manifest, frozenset[int]] | None = None
        """What the disk holds of the run before this one."""
        self._timed_out = False
        self.is_checking_manifest = True
        """At first it is looked what is on disk."""
        unblamed = (peer for peer in peers if peer not in blamed)
        self._peers = list(dict.fromkeys((*unblamed, *(p for p in blamed if p in peers))))
        self._asked: dict[int, tuple[int, int]] = {}
        """Peer -> (part, until when it may take)."""
        self._busy: set[int] = set()
        """Parts that came and are being checked or written."""
        self._kept: set[int] = set()
        self._refuted = False
        """Whether a peer did not have a part, or another one."""

    @property
    def failed(self) -> bool:
        if self._busy or self.is_checking_manifest:
            return False
        alone = self._peers == [self._giver] and self._giver not in self._blamed
        return not self._peers or (alone and self._refuted and not self.complete)

    def again(self, peers: Sequence[int]) -> JoinRun | None:
        """A run after this one failed, with what it has; None: it was tried often enough.

        Another peer gives the manifest.  If the same comes, all that is here is kept.  Where peers
        were too slow, they have twice the time and half as much is under way.
        """
        if self.manifest is None or self._retries >= max(2 * len(peers), RETRIES_MIN):
            return None
        blamed = tuple(peer for peer in self._blamed if peer != self._giver)
        slower = 2 if self._timed_out else 1
        run = JoinRun(
            peers,
            self.height_min,
            blamed=blamed if self._giver is None else (*blamed, self._giver),
            timeout_ms=min(slower * self._timeout_ms, PART_TIMEOUT_MS_MAX),
            parts_at_once=max(1, self._parts_at_once // slower),
        )
        run.is_checking_manifest = False
        run._retries = self._retries + 1
        run._earlier = self.manifest, frozenset(self._kept)
        return run

    def resumes(self, manifest: Manifest) -> bool:
        """Whether a checked manifest is of what the disk holds; then the run goes on with that."""
        if self._earlier is None:
            return False
        earlier, kept = self._earlier
        if earlier.height != manifest.height or earlier.wire.sections != manifest.wire.sections:
            return False
        self.found(earlier, kept)
        return True

    @property
    def parts_total(self) -> int:
        return 0 if self.manifest is None else len(self.manifest.full)

    @property
    def parts_kept(self) -> int:
        return len(self._kept)

    @property
    def complete(self) -> bool:
        return self.manifest is not None and len(self._kept) == len(self.manifest.full)

    def wake_ms(self) -> int | None:
        return min((until for _, until in self._asked.values()), default=None)

    def expire(self, now_ms: int) -> None:
        """Gives up the peers that did not answer in time."""
        for peer in [peer for peer, (_, until) in self._asked.items() if now_ms >= until]:
            self._timed_out = True
            self.refuse(peer)

    def ask(self, now_ms: int) -> list[tuple[int, SnapshotRequest]]:
        """Whom to ask now, and for what."""
        asks: list[tuple[int, SnapshotRequest]] = []
        idle = [peer for peer in self._peers if peer not in self._asked]
        if self.manifest is None:
            if idle and not self._asked and not self.is_checking_manifest:
                self._asked[idle[0]] = (0, now_ms + self._timeout_ms)
                asks.append((idle[0], SnapshotRequest(0, 0)))
            return asks
        under_way = {part for part, _ in self._asked.values()} | self._busy
        missing = iter(
            part
            for part in range(1, self.parts_total + 1)
            if part not in under_way and part not in self._kept
        )
        for peer in idle[: max(0, self._parts_at_once - len(under_way))]:
            part = next(missing, None)
            if part is None:
                break
            self._asked[peer] = (part, now_ms + self._timeout_ms)
            asks.append((peer, SnapshotRequest(self.manifest.height, part)))
        return asks

    def take(self, peer: int, message: SnapshotPart) -> bool:
        """Whether `peer` was asked for just this; then it is being dealt with."""
        asked = self._asked.get(peer)
        height = 0 if self.manifest is None else self.manifest.height
        if asked is None or asked[0] != message.part or height not in (0, message.height):
            return False
        del self._asked[peer]
        if not message.data:
            self._refuted |= message.part > 0
            self.refuse(peer)
            return False
        if message.part:
            self._busy.add(message.part)
        else:
            self.is_checking_manifest = True
            self._giver = peer
        # Whoever was asked last is asked last.
        self._peers.remove(peer)
        self._peers.append(peer)
        return True

    def refuse(self, peer: int) -> None:
        """A peer lied, was silent, or does not have it."""
        self._asked.pop(peer, None)
        if peer in self._peers:
            self._peers.remove(peer)

    def found(self, manifest: Manifest | None, parts: Iterable[int] = ()) -> None:
        """A manifest was checked; None: it is not used.  `parts` are on disk already."""
        self.is_checking_manifest = False
        self.manifest = manifest
        self._kept = set(parts)

    def checked(self, part: int) -> None:
        """A part did not hold: it is asked for again."""
        self._refuted = True
        self._busy.discard(part)

    def kept(self, part: int) -> None:
        """A part is on disk."""
        self._busy.discard(part)
        self._kept.add(part)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise QnetError(Code.DATA_CORRUPT, f"a snapshot's manifest does not hold: {what}")
