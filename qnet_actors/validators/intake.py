"""Blocks that came from peers and wait to be checked."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Final

from blake3 import blake3

from qnet_actors.validators.checks import Received
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.dag import BlockRef, DagBlock, decode_dag_block

BLOCKS_PER_PEER_MAX: Final = 2_048
BYTES_PER_PEER_MAX: Final = 16 * 1024 * 1024
BLOCKS_PER_JOB_MAX: Final = 128
RECENT_MAX: Final = 8_192


class Intake:
    """A bounded queue a peer, emptied in turns, so that a flood delays nobody but its sender."""

    def __init__(
        self,
        peers: Sequence[int],
        knows: Callable[[bytes], bool],
        is_spare: Callable[[BlockRef], bool] = lambda ref: False,
    ) -> None:
        """`knows`: whether the block of a digest is admitted or waits; `is_spare`: whether a block
        would not be taken in however good it is."""
        self._queues: dict[int, deque[bytes]] = {peer: deque() for peer in peers}
        self._sizes = dict.fromkeys(peers, 0)
        self._knows: Final = knows
        self._is_spare: Final = is_spare
        self._recent: OrderedDict[bytes, bytes] = OrderedDict()
        """Hash of the bytes -> digest of the block, so that what is known is not checked again."""
        self.dropped = 0

    def add(self, peer: int, blocks: Sequence[bytes]) -> None:
        queue = self._queues[peer]
        for data in blocks:
            known = self._recent.get(blake3(data).digest())
            if known is not None and self._knows(known):
                continue
            size = self._sizes[peer] + len(data)
            if len(queue) >= BLOCKS_PER_PEER_MAX or size > BYTES_PER_PEER_MAX:
                self.dropped += 1
                continue
            queue.append(data)
            self._sizes[peer] = size

    def take(self) -> list[Received]:
        """The blocks of the next job.

        An author can sign one block in many ways, and many blocks for one slot.  None of it costs
        a verification where the block is known, or would be dropped after it.
        """
        taken: list[Received] = []
        named: set[tuple[int, bytes]] = set()
        busy = [peer for peer, queue in self._queues.items() if queue]
        while busy and len(taken) < BLOCKS_PER_JOB_MAX:
            for peer in busy:
                data = self._queues[peer].popleft()
                self._sizes[peer] -= len(data)
                block = _decoded(data)
                if block is not None:
                    name = (peer, block.digest)
                    if name in named or self._knows(block.digest) or self._is_spare(block.ref):
                        self.dropped += 1
                        continue
                    named.add(name)
                taken.append(Received(peer, data, block))
            busy = [peer for peer in busy if self._queues[peer]]
        return taken

    def note(self, data: bytes, digest: bytes) -> None:
        """These bytes are the valid block of this digest."""
        self._recent[blake3(data).digest()] = digest
        if len(self._recent) > RECENT_MAX:
            self._recent.popitem(last=False)


def _decoded(data: bytes) -> DagBlock | None:
    """The block in these bytes; None where there is none, for the check to say why."""
    try:
        return decode_dag_block(data)
    except QnetError:
        return None
