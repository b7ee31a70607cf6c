"""When to have the ledger take blocks from peers, instead of chasing the DAG."""

from __future__ import annotations

from typing import Final

from qnet_actors.validators.peers import Peers

CATCH_UP_MS: Final = 10_000
"""After this long without an answer the ledger is asked again."""
CATCH_UP_PAUSE_MS: Final = 3_000
"""After an answer that brought nothing: commits go on meanwhile."""
STALLED_MS: Final = 5_000
"""Without a commit for this long, while others have gone on, blocks are taken from the ledgers: the
DAG blocks that lack may be held by nobody any more."""


class CatchingUp:
    """What was asked of the ledger, and when it may be asked again."""

    def __init__(self, peers: Peers) -> None:
        self._peers: Final = peers
        self.until_ms: int | None = None
        """Until when the ledger's answer is waited for; None: it is not."""
        self._from_ms = 0
        self._index = -1
        self._since_ms = 0
        """Since when `_index` is the last commit."""

    @property
    def waits(self) -> bool:
        """Whether commits wait for the ledger's answer."""
        return self.until_ms is not None

    def expire(self, now_ms: int) -> None:
        """Waits no longer for an answer that takes too long."""
        if self.until_ms is not None and now_ms >= self.until_ms:
            self.until_ms = None

    def ask(self, commit_index: int, has_gap: bool, now_ms: int) -> tuple[int, ...]:
        """The peers whose blocks the ledger is to take now; empty: it is not asked."""
        if self._index != commit_index:
            self._index, self._since_ms = commit_index, now_ms
        if self.waits or now_ms < self._from_ms:
            return ()
        if has_gap:
            ahead = self._peers.indices
        elif now_ms - self._since_ms >= STALLED_MS:
            ahead = self._peers.ahead(commit_index)
        else:
            ahead = self._peers.behind(commit_index)
        if ahead:
            self.until_ms = now_ms + CATCH_UP_MS
        return ahead

    def answered(self, is_fruitful: bool, now_ms: int) -> None:
        """The ledger has taken what there is."""
        self.until_ms = None
        if not is_fruitful:
            self._from_ms = now_ms + CATCH_UP_PAUSE_MS
