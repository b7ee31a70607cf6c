"""The batches of a commit lie in several shards: asked of each, and put together again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from qnet_actors.rooms import Bodies, BodiesWanted, CommitReady
from qnet_actors.wire.batches import Batch


@dataclass(slots=True)
class _Open:
    digests: tuple[bytes, ...]
    shards: set[int]
    """Those that have not answered."""
    batches: dict[bytes, Batch] = field(default_factory=dict)


class BodiesRouter:
    """Between a ledger and the shards; as many commits wait as the ledger prefetches."""

    def __init__(self, shards: int) -> None:
        self._shards: Final = shards
        self._named: dict[int, dict[bytes, int]] = {}
        self._open: dict[int, _Open] = {}

    def commit(self, ready: CommitReady) -> None:
        """Notes in which shard each batch of a commit is looked for."""
        if ready.batches:
            self._named[ready.commit.index] = {
                ref.digest: ref.shard % self._shards for _, ref in ready.batches
            }

    def wanted(self, wanted: BodiesWanted) -> list[tuple[int, BodiesWanted]]:
        """(shard, what to ask of it)."""
        named = self._named.pop(wanted.commit_index)
        parts: dict[int, list[bytes]] = {}
        for digest in dict.fromkeys(wanted.digests):
            parts.setdefault(named[digest], []).append(digest)
        self._open[wanted.commit_index] = _Open(wanted.digests, set(parts))
        return [
            (shard, BodiesWanted(wanted.commit_index, tuple(digests)))
            for shard, digests in sorted(parts.items())
        ]

    def arrived(self, shard: int, bodies: Bodies) -> Bodies | None:
        """Takes a shard's answer; the whole, in the order asked, once every shard has answered."""
        entry = self._open[bodies.commit_index]
        entry.shards.remove(shard)
        entry.batches.update((batch.digest, batch) for batch in bodies.batches)
        if entry.shards:
            return None
        del self._open[bodies.commit_index]
        return Bodies(bodies.commit_index, tuple(entry.batches[d] for d in entry.digests))

    def forget(self, commit_index: int) -> None:
        """Forgets commits that were executed without their bodies: they came from a peer."""
        for index in [index for index in self._named if index <= commit_index]:
            del self._named[index]
