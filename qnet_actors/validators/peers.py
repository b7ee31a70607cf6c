"""What other validators have, as far as their blocks and words tell, and what to send them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from qnet_actors.validators.dag import Dag
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import BlockRef, DagBlock
from qnet_actors.wire.limits import MESSAGE_DAG_BLOCKS_MAX
from qnet_actors.wire.messages import DagBlocks, PeerStatus

MESSAGE_SIZE_BYTES_MAX: Final = 4 * 1024 * 1024
SENT_MAX: Final = 4_096
RESEND_MS: Final = 300
SERVED_BYTES_PER_SECOND: Final = 32 * 1024 * 1024
BEHIND_COMMITS_MAX: Final = 32
PUSH_ROUNDS: Final = 2
"""A block counts as lacking where its peer has made a block this many rounds above without it."""


@dataclass(slots=True)
class _Peer:
    has: list[int]
    """Author -> the highest round that the peer's own blocks reference."""
    status: PeerStatus | None = None
    sent: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    """Digest -> when the block was last sent on this link."""
    served_bytes: int = 0
    served_second: int = 0


class Archive:
    """Encoded blocks at or below gc_round, for those who are a little behind."""

    def __init__(self, rounds: int) -> None:
        self._rounds: Final = rounds
        self._blocks: dict[bytes, bytes] = {}
        self._by_round: dict[int, list[bytes]] = {}

    def add(self, blocks: Iterable[DagBlock], gc_round: int) -> None:
        for block in blocks:
            self._blocks[block.digest] = block.encoded
            self._by_round.setdefault(block.ref.round, []).append(block.digest)
        for old in [r for r in self._by_round if r <= gc_round - self._rounds]:
            for digest in self._by_round.pop(old):
                self._blocks.pop(digest, None)

    def get(self, digest: bytes) -> bytes | None:
        return self._blocks.get(digest)


class Peers:
    """One entry a validator other than this one."""

    def __init__(
        self, dag: Dag, archive: Archive, committee: Committee, own: int, gc_depth: int
    ) -> None:
        self._dag: Final = dag
        self._archive: Final = archive
        self._committee: Final = committee
        self._behind_max: Final = min(BEHIND_COMMITS_MAX, gc_depth // 2)
        self._own: Final = own
        count = len(committee)
        self._peers = {peer: _Peer([0] * count) for peer in range(count) if peer != own}

    @property
    def indices(self) -> tuple[int, ...]:
        return tuple(self._peers)

    def __contains__(self, peer: int) -> bool:
        return peer in self._peers

    def hold_honest(self, peers: Iterable[int]) -> bool:
        """Whether there is an honest validator among them."""
        return self._committee.stake_of(peers) >= self._committee.validity

    def up(self, peer: int) -> None:
        """A link stands again: what was sent before may be lost."""
        self._peers[peer].sent.clear()

    def saw(self, block: DagBlock) -> None:
        """An admitted block shows what its author had when it was made."""
        peer = self._peers.get(block.ref.author)
        if peer is None:
            return
        has = peer.has
        for ref in block.header.ancestors:
            if ref.round > has[ref.author]:
                has[ref.author] = ref.round
        has[block.ref.author] = max(has[block.ref.author], block.ref.round)

    def said(self, peer: int, status: PeerStatus) -> None:
        self._peers[peer].status = status

    def behind(self, commit_index: int) -> tuple[int, ...]:
        """The peers to catch up from: empty unless this validator is far behind.

        That is more than 32 commits, or half of gc_depth where that is less: a batch is let go
        `gc_depth` commits after its execution, so whoever is further behind never admits the block
        that names it.  Believed only of stake that holds an honest validator.
        """
        return self.ahead(commit_index + self._behind_max)

    def ahead(self, commit_index: int) -> tuple[int, ...]:
        """The peers that have made commits above an index, if one of them is surely honest."""
        return self._sure(lambda status: status.commit_index > commit_index)

    def certified_above(self, height: int) -> tuple[int, ...]:
        """The peers with a certificate above a height, if one of them is surely honest."""
        return self._sure(lambda status: status.final_height > height)

    def _sure(self, holds: Callable[[PeerStatus], bool]) -> tuple[int, ...]:
        found = [
            peer
            for peer, known in self._peers.items()
            if known.status is not None and holds(known.status)
        ]
        if self._committee.stake_of(found) < self._committee.validity:
            return ()
        return tuple(found)

    def certified_height(self, peers: Sequence[int]) -> int:
        """A height that is certified by the word of peers of whom one is surely honest."""
        heights = sorted(
            (known.status.final_height, peer)
            for peer in peers
            if (known := self._peers[peer]).status is not None
        )
        sure = 0
        while heights and self._committee.stake_of(p for _, p in heights) >= (
            self._committee.validity
        ):
            sure, _ = heights.pop(0)
        return sure

    def lacking(self, peer: int, now_ms: int) -> list[DagBlocks]:
        """Blocks of others that `peer` has gone on without, and those it never had."""
        known = self._peers[peer]
        newest = known.has[peer] - PUSH_ROUNDS
        blocks = [
            block
            for author in range(len(self._committee))
            if author not in (peer, self._own)
            for round_ in range(max(known.has[author], self._dag.gc_round) + 1, newest + 1)
            for block in self._dag.blocks_at(round_, author)[:1]
        ]
        blocks.sort(key=lambda block: block.ref)
        return self._unsent(peer, blocks, now_ms)

    def own_blocks(self, peer: int, above: int, now_ms: int) -> list[DagBlocks]:
        """Own blocks above a round, the lowest first."""
        latest = self._dag.latest(self._own)
        if latest is None:
            return []
        first = max(above, self._dag.gc_round, latest.ref.round - MESSAGE_DAG_BLOCKS_MAX) + 1
        blocks = [
            block
            for round_ in range(first, latest.ref.round + 1)
            for block in self._dag.blocks_at(round_, self._own)[:1]
        ]
        return self._unsent(peer, blocks, now_ms)

    def blocks_of(self, peer: int, now_ms: int) -> list[DagBlocks]:
        """The peer's own newest block, for one that has lost its memory."""
        latest = self._dag.latest(peer)
        return [] if latest is None else self._unsent(peer, [latest], now_ms)

    def note_sent(self, block: DagBlock, now_ms: int) -> None:
        """A block went to all peers."""
        for known in self._peers.values():
            _note(known, block.digest, now_ms)

    def serve(self, peer: int, refs: Sequence[BlockRef], now_ms: int) -> list[DagBlocks]:
        """The answer to a request: the blocks, and of their history what the peer may lack.

        The history goes down to the round where the peer said it stands, so that a validator that
        was away needs one request and not one a round.  Bytes a second are bounded.
        """
        known = self._peers[peer]
        now_second = now_ms // 1_000
        if known.served_second != now_second:
            known.served_second, known.served_bytes = now_second, 0
        asked: list[bytes] = []
        found: dict[bytes, DagBlock] = {}
        for digest in dict.fromkeys(ref.digest for ref in refs):
            block = self._dag.block(digest)
            if block is not None:
                found[block.digest] = block
            elif (data := self._archive.get(digest)) is not None:
                asked.append(data)
        for block in found.values():
            _note(known, block.digest, now_ms)
        history = [] if known.status is None else self._history(known, found, now_ms)
        blocks = sorted((*found.values(), *history), key=lambda block: block.ref)
        answer = _messages([*asked, *(block.encoded for block in blocks)])
        served: list[DagBlocks] = []
        for message in answer:
            if known.served_bytes > SERVED_BYTES_PER_SECOND:
                break
            known.served_bytes += sum(map(len, message.blocks))
            served.append(message)
        return served

    def _history(self, known: _Peer, found: dict[bytes, DagBlock], now_ms: int) -> list[DagBlock]:
        """Ancestors of `found` above where the peer stands, not sent lately; bounded."""
        status = known.status
        floor = max(self._dag.gc_round, status.round - 1 if status is not None else 0)
        history: list[DagBlock] = []
        seen = set(found)
        level: list[DagBlock] = list(found.values())
        for block in level:
            for ref in block.header.ancestors:
                if len(seen) >= MESSAGE_DAG_BLOCKS_MAX:
                    return history
                if ref.round <= floor or ref.digest in seen:
                    continue
                seen.add(ref.digest)
                ancestor = self._dag.block(ref.digest)
                if ancestor is None or ref.round <= known.has[ref.author]:
                    continue
                level.append(ancestor)
                if now_ms - known.sent.get(ref.digest, -RESEND_MS) >= RESEND_MS:
                    _note(known, ref.digest, now_ms)
                    history.append(ancestor)
        return history

    def _unsent(self, peer: int, blocks: Sequence[DagBlock], now_ms: int) -> list[DagBlocks]:
        """Messages with those of `blocks` that were not sent to the peer lately."""
        known = self._peers[peer]
        fresh = [
            block
            for block in blocks
            if now_ms - known.sent.get(block.digest, -RESEND_MS) >= RESEND_MS
        ][:MESSAGE_DAG_BLOCKS_MAX]
        for block in fresh:
            _note(known, block.digest, now_ms)
        return _messages([block.encoded for block in fresh])


def _note(known: _Peer, digest: bytes, now_ms: int) -> None:
    known.sent[digest] = now_ms
    known.sent.move_to_end(digest)
    if len(known.sent) > SENT_MAX:
        known.sent.popitem(last=False)


def _messages(blocks: Sequence[bytes]) -> list[DagBlocks]:
    """Blocks in messages of bounded count and size, in order."""
    messages: list[DagBlocks] = []
    part: list[bytes] = []
    size = 0
    for data in blocks:
        if part and (
            len(part) >= MESSAGE_DAG_BLOCKS_MAX or size + len(data) > MESSAGE_SIZE_BYTES_MAX
        ):
            messages.append(DagBlocks(tuple(part)))
            part, size = [], 0
        part.append(data)
        size += len(data)
    if part:
        messages.append(DagBlocks(tuple(part)))
    return messages
