"""When to have the ledger take blocks from peers, instead of chasing the DAG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qnet_actors.rooms import CatchUp
from qnet_actors.validators.peers import Peers

CATCH_UP_MS: Final = 10_000
"""After this long without an answer the ledger is asked again."""
CATCH_UP_PAUSE_MS: Final = 3_000
"""After an answer that brought nothing: commits go on meanwhile."""
STALLED_MS: Final = 5_000
"""Without a commit, or a block, for this long, while others have gone on, blocks are taken from
their ledgers: the DAG blocks or batches that lack may be held by nobody any more."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where consensus and the ledger of this validator are."""

    commit_index: int
    executed_index: int
    executed_height: int
    """Of the newest checkpoint executed."""
    has_gap: bool
    """The ledger lacks commits that consensus does not know any more."""
    is_over: bool = False
    """The commits of the epoch are all made, so that asking holds nothing up."""


class _Stall:
    """Since when something stands still."""

    def __init__(self) -> None:
        self._at = -1
        self._since_ms = 0

    def is_long(self, at: int, now_ms: int) -> bool:
        if self._at != at:
            self._at, self._since_ms = at, now_ms
        return now_ms - self._since_ms >= STALLED_MS


class CatchingUp:
    """What was asked of the ledger, and when it may be asked again."""

    def __init__(self, peers: Peers) -> None:
        self._peers: Final = peers
        self.until_ms: int | None = None
        """Until when the ledger's answer is waited for; None: it is not."""
        self._from_ms = 0
        self._commits: Final = _Stall()
        self._blocks: Final = _Stall()
        self._gone: set[int] = set()
        """Peers that say that they are in a later epoch."""

    @property
    def waits(self) -> bool:
        """Whether commits wait for the ledger's answer."""
        return self.until_ms is not None

    def expire(self, now_ms: int) -> None:
        """Waits no longer for an answer that takes too long."""
        if self.until_ms is not None and now_ms >= self.until_ms:
            self.until_ms = None

    def ask(self, standing: Standing, now_ms: int) -> CatchUp | None:
        """What the ledger is to be asked for now; None: nothing."""
        stands = self._commits.is_long(standing.commit_index, now_ms)
        idles = standing.executed_index >= standing.commit_index
        # A ledger that has nothing to do does not stand still.
        waits = self._blocks.is_long(-1 - now_ms if idles else standing.executed_index, now_ms)
        if self.waits or now_ms < self._from_ms:
            return None
        peers = self._peers
        if self._gone and (standing.is_over or stands or peers.hold_honest(self._gone)):
            # The epoch is over for them; what it left to execute, and its end, is in their logs.
            ahead = tuple(sorted(self._gone))
        elif standing.has_gap:
            ahead = peers.indices
        else:
            ahead = peers.behind(standing.commit_index)
            if not ahead and stands:
                ahead = peers.ahead(standing.commit_index)
            if not ahead and waits:
                ahead = peers.certified_above(standing.executed_height)
        if not ahead:
            return None
        self.until_ms = now_ms + CATCH_UP_MS
        return CatchUp(ahead, peers.certified_height(ahead))

    def left(self, peer: int) -> None:
        """A peer is in a later epoch; believed of stake that holds an honest validator."""
        self._gone.add(peer)

    def answered(self, is_fruitful: bool, now_ms: int) -> None:
        """The ledger has taken what there is."""
        self.until_ms = None
        if not is_fruitful:
            self._from_ms = now_ms + CATCH_UP_PAUSE_MS
