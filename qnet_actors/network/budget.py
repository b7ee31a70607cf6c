"""How much of the node's time one peer may take: a token bucket of CPU seconds each.

Every message costs time on the event loop before it is known to be worth anything, and what it
carries may cost a signature check after that.  A peer that is over its budget is not read until it
is within it again, so what it sends on waits with itself, and the others are served meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from qnet_actors.wire.messages import DagBlocks, Message

SHARE_MAX: Final = 0.5
"""Of one core; all peers together may take two."""
BURST_SECONDS: Final = 1.0
"""Of its rate, that a quiet peer may use at once."""
WAIT_SECONDS_MAX: Final = 5.0
"""Below the time after which a link that carries nothing is given up."""
BLOCK_SECONDS: Final = 0.000_2
"""What checking the signature of a DAG block costs elsewhere.  Batches are bounded by bytes, and
their authors pay for bad ones, in the mempool."""


class PeerBudgets:
    """One bucket a peer.  `clock` gives seconds that pass, `spent` CPU seconds of this thread."""

    def __init__(
        self,
        peers: int,
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        """`peers`: how many others may link."""
        self._clock = clock
        self._spent = spent
        self._levels: dict[int, tuple[float, float]] = {}
        """Peer -> (CPU seconds left, when); those at rest go with each `resize`."""
        self.resize(peers)
        self.pauses = 0
        """How often a peer was over its budget."""

    def resize(self, peers: int) -> None:
        """So many others may link now, in the committee or not."""
        self._rate = min(SHARE_MAX, 2.0 / max(1, peers))
        self._burst = BURST_SECONDS * self._rate
        now = self._clock()
        self._levels = {
            peer: (level, at)
            for peer, (level, at) in self._levels.items()
            if level + (now - at) * self._rate < self._burst
        }

    def charge(self, peer: int, message: Message, handle: Callable[[], None]) -> float:
        """Calls `handle` at the peer's cost; returns for how many seconds not to read from it."""
        begun = self._spent()
        handle()
        cost = self._spent() - begun
        if isinstance(message, DagBlocks):
            cost += BLOCK_SECONDS * len(message.blocks)
        now = self._clock()
        level, at = self._levels.get(peer, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate) - cost
        # What a single message cost beyond the longest wait is forgiven.
        level = max(level, -WAIT_SECONDS_MAX * self._rate)
        self._levels[peer] = (level, now)
        if level >= 0:
            return 0.0
        self.pauses += 1
        return -level / self._rate

    def pause(self, seconds: float) -> Awaitable[None] | None:
        """What a link waits for before it reads on; None: nothing."""
        return asyncio.sleep(seconds) if seconds > 0 else None
