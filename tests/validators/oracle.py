"""The commit rule once more, as slowly and plainly as it can be said: the oracle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import DagBlock

SKIP = "skip"


def decide(blocks: Sequence[DagBlock], committee: Committee) -> list[str]:
    """For rounds 1, 2, ...: the digest of the committed leader or "skip", up to the first open."""
    top = max((block.ref.round for block in blocks), default=0)
    known = {block.digest: block for block in blocks}
    outcome: dict[int, str] = {}

    def heavy(authors: Iterable[int]) -> bool:
        return sum(committee.stakes[author] for author in set(authors)) >= committee.quorum

    def in_round(round_: int) -> list[DagBlock]:
        return [block for block in blocks if block.ref.round == round_]

    def vote(block: DagBlock) -> str | None:
        below = block.ref.round - 1
        for ref in block.header.ancestors:
            if (ref.round, ref.author) == (below, committee.leader(below)):
                return ref.digest.hex()
        return None

    def certifies(block: DagBlock, leader: str) -> bool:
        parents = [known[a.digest] for a in block.header.ancestors if a.digest in known]
        below = block.ref.round - 1
        return heavy(p.ref.author for p in parents if p.ref.round == below and vote(p) == leader)

    def history(block: DagBlock) -> set[bytes]:
        found = {block.digest}
        for ref in block.header.ancestors:
            if ref.digest in known and ref.digest not in found:
                found |= history(known[ref.digest])
        return found

    for round_ in range(top, 0, -1):
        voters, certifiers = in_round(round_ + 1), in_round(round_ + 2)
        leaders = [
            block.digest.hex()
            for block in in_round(round_)
            if block.ref.author == committee.leader(round_)
        ]
        if heavy(block.ref.author for block in voters if vote(block) is None):
            outcome[round_] = SKIP
            continue
        direct = [
            leader
            for leader in leaders
            if heavy(b.ref.author for b in certifiers if certifies(b, leader))
        ]
        if direct:
            outcome[round_] = direct[0]
            continue
        anchor = round_ + 3
        while outcome.get(anchor) == SKIP:
            anchor += 1
        if anchor not in outcome:
            continue
        reached = history(known[bytes.fromhex(outcome[anchor])])
        certified = [
            leader
            for leader in leaders
            if any(b.digest in reached and certifies(b, leader) for b in certifiers)
        ]
        outcome[round_] = certified[0] if certified else SKIP
    prefix: list[str] = []
    while len(prefix) + 1 in outcome:
        prefix.append(outcome[len(prefix) + 1])
    return prefix
