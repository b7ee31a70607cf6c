"""The next nonce of each sender, as far as this client knows."""

from __future__ import annotations

import threading


class Nonces:
    """Hands out nonces; the gateway is asked for the first, and again after a refusal."""

    def __init__(self) -> None:
        self._next: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def take(self, sender: bytes) -> int | None:
        """The sender's next nonce; None: ask the gateway, and `learn`."""
        with self._lock:
            nonce = self._next.get(sender)
            if nonce is not None:
                self._next[sender] = nonce + 1
            return nonce

    def learn(self, sender: bytes, next_nonce: int) -> int:
        """Takes what the gateway said into account; returns the nonce to use."""
        with self._lock:
            nonce = max(next_nonce, self._next.get(sender, 0))
            self._next[sender] = nonce + 1
            return nonce

    def forget(self, sender: bytes) -> None:
        """The last one was refused, or nobody knows what became of it: ask again."""
        with self._lock:
            self._next.pop(sender, None)
