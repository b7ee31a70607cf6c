"""Votes for checkpoints, and the certificates that a quorum of them makes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from qnet_actors.wire.blocks import Certificate, CertificateVote, Checkpoint
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import CheckpointVote
from qnet_actors.wire.limits import DAG_BLOCK_VOTES_MAX

HEIGHTS_PER_AUTHOR_MAX: Final = 64
CHECKPOINTS_MAX: Final = 64
OWN_VOTES_MAX: Final = 64


class Diverged(Exception):
    """A quorum signed another checkpoint at a height that was executed here."""


class Checkpoints:
    """Collects good votes, each author's for its newest heights, and own checkpoints to match."""

    def __init__(self, committee: Committee) -> None:
        self._committee: Final = committee
        self._made: dict[int, Checkpoint] = {}
        self._votes: dict[int, dict[int, CheckpointVote]] = {}
        """Height -> author -> vote."""
        self._heights: list[deque[int]] = [deque() for _ in committee.members]
        self._own: deque[CheckpointVote] = deque()
        self.certified: Certificate | None = None
        """The newest certificate."""
        self.executed_height = 0
        """The height of the newest checkpoint executed here."""
        self.split_height = 0
        """The newest height at which no digest can reach a quorum any more; 0: none."""

    @property
    def certified_height(self) -> int:
        return 0 if self.certified is None else self.certified.checkpoint.height

    @property
    def certified_commit(self) -> int:
        """The index of the last commit that is final."""
        return 0 if self.certified is None else self.certified.checkpoint.commit_index

    def made(self, checkpoint: Checkpoint) -> bool:
        """A checkpoint was executed here; returns whether it is still to be voted for."""
        height = checkpoint.height
        self.executed_height = max(self.executed_height, height)
        if height <= self.certified_height:
            return False
        self._made[height] = checkpoint
        while len(self._made) > CHECKPOINTS_MAX:
            del self._made[min(self._made)]
        return True

    def signed(self, author: int, vote: CheckpointVote) -> None:
        """The own vote is signed: it waits for the next own block, and counts."""
        self._own.append(vote)
        while len(self._own) > OWN_VOTES_MAX:
            self._own.popleft()
        self.add(author, vote)

    @property
    def has_votes_to_carry(self) -> bool:
        return bool(self._own)

    def take_votes(self) -> tuple[CheckpointVote, ...]:
        """Own votes for the next block, oldest first, at most 8."""
        count = min(len(self._own), DAG_BLOCK_VOTES_MAX)
        return tuple(self._own.popleft() for _ in range(count))

    def return_votes(self, votes: Sequence[CheckpointVote]) -> None:
        """Votes whose block was not made after all."""
        self._own.extendleft(reversed(votes))

    def add(self, author: int, vote: CheckpointVote) -> None:
        """A vote whose signature is good.  The first vote of an author for a height counts."""
        if vote.height <= self.certified_height:
            return
        votes = self._votes.setdefault(vote.height, {})
        if author in votes:
            return
        votes[author] = vote
        heights = self._heights[author]
        heights.append(vote.height)
        if len(heights) > HEIGHTS_PER_AUTHOR_MAX:
            # A validator that is behind needs the newest; whoever floods hurts its own votes only.
            oldest = heights.popleft()
            self._votes[oldest].pop(author)
            if not self._votes[oldest]:
                del self._votes[oldest]

    def certify(self) -> Certificate | None:
        """The certificate of the highest own checkpoint that a quorum signed, if it is new.

        Raises `Diverged` where a quorum signed another digest at a height executed here.
        """
        for height in sorted(self._made, reverse=True):
            checkpoint = self._made[height]
            votes = self._votes.get(height, {})
            stakes = self._stakes(votes)
            digest = checkpoint.digest()
            for other, stake in stakes.items():
                if other != digest and stake >= self._committee.quorum:
                    raise Diverged(
                        f"a quorum signed checkpoint {other.hex()} at height {height}, executed "
                        f"here is {digest.hex()} of block {checkpoint.block_hash.hex()}"
                    )
            if stakes.get(digest, 0) >= self._committee.quorum:
                certificate = Certificate(
                    checkpoint,
                    tuple(
                        CertificateVote(author, votes[author].signature)
                        for author in sorted(votes)
                        if votes[author].digest == digest
                    ),
                )
                self.adopt(certificate)
                return certificate
            silent = self._committee.total - sum(stakes.values())
            if max(stakes.values(), default=0) + silent < self._committee.quorum:
                self.split_height = max(self.split_height, height)
        return None

    def adopt(self, certificate: Certificate) -> None:
        """Goes on from a certificate; what lies at or below it is forgotten."""
        height = certificate.checkpoint.height
        if height <= self.certified_height:
            return
        self.certified = certificate
        for old in [known for known in self._made if known <= height]:
            del self._made[old]
        for old in [known for known in self._votes if known <= height]:
            del self._votes[old]
        for heights in self._heights:
            kept = [known for known in heights if known > height]
            heights.clear()
            heights.extend(kept)

    def _stakes(self, votes: dict[int, CheckpointVote]) -> dict[bytes, int]:
        stakes: dict[bytes, int] = {}
        for author, vote in votes.items():
            stakes[vote.digest] = stakes.get(vote.digest, 0) + self._committee.stakes[author]
        return stakes
