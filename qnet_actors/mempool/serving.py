"""Answers to what peers ask for, each within an allowance of bytes a second."""

from __future__ import annotations

from collections.abc import Sequence

from qnet_actors.mempool.holdings import Holdings
from qnet_actors.mempool.metrics import MempoolMetrics
from qnet_actors.mempool.settings import MempoolSettings
from qnet_actors.rooms import Effect, ToPeers
from qnet_actors.wire.limits import FRAME_SIZE_BYTES_MAX, MESSAGE_BATCHES_MAX
from qnet_actors.wire.messages import Batches, Keys, PublicKey

_PERIOD_MS = 1_000
_MESSAGE_BYTES = FRAME_SIZE_BYTES_MAX // 2


class Serving:
    """Serves batches and public keys.  What is over the allowance is not answered: the peer asks
    another, or again."""

    def __init__(
        self, holdings: Holdings, settings: MempoolSettings, metrics: MempoolMetrics
    ) -> None:
        self._holdings = holdings
        self._settings = settings
        self._metrics = metrics
        # Peer -> (start of the period, bytes served in it); peers are as many as validators.
        self._served: dict[int, tuple[int, int]] = {}

    def _allows(self, peer: int, size_bytes: int, now_ms: int) -> bool:
        start_ms, served = self._served.get(peer, (now_ms, 0))
        if now_ms - start_ms >= _PERIOD_MS:
            start_ms, served = now_ms, 0
        if served and served + size_bytes > self._settings.served_size_bytes_max:
            return False
        self._served[peer] = (start_ms, served + size_bytes)
        return True

    def batches(self, peer: int, digests: Sequence[bytes], now_ms: int) -> list[Effect]:
        """Those that are held, in messages of a few megabytes."""
        effects: list[Effect] = []
        message: list[bytes] = []
        size_bytes = 0
        for digest in dict.fromkeys(digests[:MESSAGE_BATCHES_MAX]):
            data = self._holdings.store.encoded(digest)
            if data is None:
                continue
            if not self._allows(peer, len(data), now_ms):
                break
            if message and size_bytes + len(data) > _MESSAGE_BYTES:
                effects.append(ToPeers(Batches(tuple(message)), (peer,)))
                message, size_bytes = [], 0
            message.append(data)
            size_bytes += len(data)
            self._metrics.batches_served += 1
        if message:
            effects.append(ToPeers(Batches(tuple(message)), (peer,)))
        return effects

    def keys(self, peer: int, key_ids: Sequence[bytes], now_ms: int) -> list[Effect]:
        """Those that are known."""
        found: list[PublicKey] = []
        for id_ in dict.fromkeys(key_ids):
            key = self._holdings.keys.get(id_)
            if key is not None and self._allows(peer, len(key.public_key), now_ms):
                found.append(key)
        return [ToPeers(Keys(tuple(found)), (peer,))] if found else []
