"""Equivocations: kept, passed on to the other validators, and checked where others report them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

from qnet_actors.rooms import Effect, Persist, Run, ToPeers
from qnet_actors.validators.checks import BlockRules
from qnet_actors.validators.journal_entries import EvidenceEntry
from qnet_actors.wire.dag import DagBlock
from qnet_actors.wire.evidence import Equivocation, equivocation_of
from qnet_actors.wire.limits import MESSAGE_EQUIVOCATIONS_MAX
from qnet_actors.wire.messages import Evidence

EVIDENCE_PER_AUTHOR_MAX: Final = 2
REPORTED_MAX: Final = 64
"""Equivocations that others report and that wait to be checked."""
TELLS_MAX: Final = 8
"""How often a peer that says nothing of an equivocation is told of it, while its link stands."""


class EvidenceBook:
    """Keeps the first equivocations of each author and counts all that were seen.

    A peer that holds one tells of it, so it is told until it does so itself, a few times at most.
    """

    def __init__(
        self, rules: BlockRules, peers: Sequence[int], kept: Iterable[Equivocation] = ()
    ) -> None:
        """`kept`: what the journal holds, checked."""
        self._rules: Final = rules
        self._peers: Final = tuple(peers)
        self._kept: dict[int, list[Equivocation]] = {}
        self._reported: dict[bytes, tuple[int, Equivocation]] = {}
        self._liars: set[int] = set()
        """Peers that reported what does not hold: they are not heard again in this life."""
        self._proving = False
        self._told: dict[tuple[int, bytes], int] = {}
        """(peer, key) -> how often it was told; more than often enough where it knows."""
        self.count = 0
        for equivocation in kept:
            self._kept.setdefault(equivocation.author, []).append(equivocation)

    def saw(self, first: DagBlock, second: DagBlock) -> list[Effect]:
        """Two valid blocks of one slot came: the proof is kept, and the others hear of it."""
        self.count += 1
        return self._keep([equivocation_of(first, second)])

    def is_wanted(self, equivocation: Equivocation) -> bool:
        """Whether the proof would be kept; one a slot is, whatever variants there are."""
        kept = self._kept.get(equivocation.author, ())
        return len(kept) < EVIDENCE_PER_AUTHOR_MAX and all(
            known.round != equivocation.round for known in kept
        )

    def check(self) -> list[Effect]:
        """Starts a job over what was reported, one at a time."""
        if self._proving or not self._reported:
            return []
        reported = [pair for pair in self._reported.values() if self.is_wanted(pair[1])]
        self._reported.clear()
        if not reported:
            return []
        self._proving = True
        prove = partial(self._rules.proven, [item for _, item in reported])
        return [Run(prove, partial(self._proven, reported))]

    def _proven(
        self, reported: list[tuple[int, Equivocation]], proofs: list[Equivocation], now_ms: int
    ) -> list[Effect]:
        self._proving = False
        sound = {_key(proof) for proof in proofs}
        self._liars.update(peer for peer, item in reported if _key(item) not in sound)
        return self._keep(proofs)

    def _keep(self, proofs: Iterable[Equivocation]) -> list[Effect]:
        """Makes checked proofs durable if they are wanted, then tells of them."""
        out: list[Effect] = []
        for proof in proofs:
            if self.is_wanted(proof):
                self._kept.setdefault(proof.author, []).append(proof)
                out.append(Persist((EvidenceEntry(proof),)))
        if out:
            out += [
                ToPeers(message, (peer,)) for peer in self._peers for message in self.tell(peer)
            ]
        return out

    def reported(self, peer: int, equivocations: Sequence[Equivocation]) -> None:
        """A peer's word, unchecked.  It holds what it tells of, so it is not told of that again."""
        if peer in self._liars:
            return
        for equivocation in equivocations:
            key = _key(equivocation)
            if self.is_wanted(equivocation):
                if len(self._reported) < REPORTED_MAX:
                    self._reported.setdefault(key, (peer, equivocation))
            elif equivocation.author in self._kept:
                known = [_key(kept) for kept in self._kept[equivocation.author]]
                if key in known or len(known) >= EVIDENCE_PER_AUTHOR_MAX:
                    self._told.update({(peer, name): TELLS_MAX for name in known})

    def up(self, peer: int) -> None:
        """A link stands again: what was told before may be lost."""
        for name in [name for name in self._told if name[0] == peer]:
            del self._told[name]

    def tell(self, peer: int) -> list[Evidence]:
        """What the peer is to be told now."""
        due: list[Equivocation] = []
        for equivocation in self.equivocations():
            name = (peer, _key(equivocation))
            told = self._told.get(name, 0)
            if peer != equivocation.author and told < TELLS_MAX:
                self._told[name] = told + 1
                due.append(equivocation)
        size = MESSAGE_EQUIVOCATIONS_MAX
        return [Evidence(tuple(due[at : at + size])) for at in range(0, len(due), size)]

    def equivocations(self) -> tuple[Equivocation, ...]:
        """What is kept, by author."""
        return tuple(item for author in sorted(self._kept) for item in self._kept[author])


def _key(equivocation: Equivocation) -> bytes:
    """A name for the slot and the two contents."""
    return equivocation.first.slot.digest() + equivocation.second.slot.digest()
