"""Batches that are named and not held: asked for, from peer to peer, until they are obtained."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import islice

from qnet_actors.mempool.settings import MempoolSettings
from qnet_actors.rooms import Effect, ToPeers
from qnet_actors.wire.limits import MESSAGE_BATCHES_MAX, MESSAGE_DIGESTS_MAX
from qnet_actors.wire.messages import BatchRequest


@dataclass(slots=True)
class _Fetch:
    peers: tuple[int, ...]
    """Whom to ask, in turn."""
    since_ms: int
    tries: int = 0
    due_ms: int = 0
    wait_ms: int = 0


class Fetching:
    """Bounded by count; a fetch ends when its batch is obtained, or after a lifetime."""

    def __init__(
        self, *, validators: int, own_index: int, wanted: set[bytes], settings: MempoolSettings
    ) -> None:
        self._peers = tuple(i for i in range(validators) if i != own_index)
        self._wanted = wanted
        self._settings = settings
        self._fetches: dict[bytes, _Fetch] = {}
        self._wake_ms: int | None = None

    def __len__(self) -> int:
        return len(self._fetches)

    def start(
        self,
        digests: Iterable[bytes],
        first: Iterable[int],
        coming: Container[bytes],
        now_ms: int,
    ) -> list[Effect]:
        """Asks the peers `first`, then the others in turn, for what is not asked for yet.

        What is `coming`, being verified already, is asked for only if that comes to nothing.
        """
        head = tuple(dict.fromkeys(peer for peer in first if peer in self._peers))
        tail = tuple(peer for peer in self._peers if peer not in head)
        asked: dict[int, list[bytes]] = {}
        for digest in digests:
            if digest in self._fetches or not self._peers:
                continue
            if len(self._fetches) >= self._settings.fetches_max:
                # The oldest has had the most time, and its block is the likeliest to be gone.
                self.obtained(next(iter(self._fetches)))
            # Turning the others by the digest spreads the load over them.
            turn = digest[0] % len(tail) if tail else 0
            fetch = _Fetch((*head, *tail[turn:], *tail[:turn]), now_ms)
            fetch.wait_ms = self._settings.fetch_ms_min
            self._fetches[digest] = fetch
            self._wanted.add(digest)
            if digest in coming:
                self.arriving(digest, now_ms)
            else:
                self._ask(digest, fetch, now_ms, asked)
        return _requests(asked)

    def _ask(
        self, digest: bytes, fetch: _Fetch, now_ms: int, asked: dict[int, list[bytes]]
    ) -> None:
        peer = fetch.peers[fetch.tries % len(fetch.peers)]
        fetch.tries += 1
        fetch.due_ms = now_ms + fetch.wait_ms
        if fetch.tries % len(fetch.peers) == 0:
            fetch.wait_ms = min(2 * fetch.wait_ms, self._settings.fetch_ms_max)
        self._wake_at(fetch.due_ms)
        asked.setdefault(peer, []).append(digest)

    def arriving(self, digest: bytes, now_ms: int) -> None:
        """A batch came and is being checked: ask for it no sooner than a while from now."""
        fetch = self._fetches.get(digest)
        if fetch is not None:
            fetch.due_ms = now_ms + self._settings.fetch_ms_max
            self._wake_at(fetch.due_ms)

    def failed(self, digest: bytes, now_ms: int) -> None:
        """What came was not valid, or not the batch: ask the next peer soon."""
        fetch = self._fetches.get(digest)
        if fetch is not None:
            fetch.due_ms = now_ms + self._settings.fetch_ms_min
            self._wake_at(fetch.due_ms)

    def obtained(self, digest: bytes) -> bool:
        """The batch is held; whether it was asked for."""
        self._wanted.discard(digest)
        return self._fetches.pop(digest, None) is not None

    def peer_up(self, peer: int, now_ms: int) -> list[Effect]:
        """Asks `peer` for what is missing; the turns of the others go on."""
        if peer not in self._peers:
            return []
        return _requests({peer: list(islice(self._fetches, MESSAGE_DIGESTS_MAX))})

    def tick(self, now_ms: int) -> list[Effect]:
        """Asks the next peer where the last one did not answer in time."""
        if self._wake_ms is None or now_ms < self._wake_ms:
            return []
        self._wake_ms = None
        asked: dict[int, list[bytes]] = {}
        for digest, fetch in list(self._fetches.items()):
            if now_ms - fetch.since_ms > self._settings.fetch_lifetime_ms:
                self.obtained(digest)
            elif now_ms >= fetch.due_ms:
                self._ask(digest, fetch, now_ms, asked)
            else:
                self._wake_at(fetch.due_ms)
        return _requests(asked)

    def _wake_at(self, due_ms: int) -> None:
        if self._wake_ms is None or due_ms < self._wake_ms:
            self._wake_ms = due_ms

    def wake_ms(self) -> int | None:
        return self._wake_ms


def _requests(asked: dict[int, list[bytes]]) -> list[Effect]:
    """One message for at most as many batches as an answer may hold."""
    return [
        ToPeers(BatchRequest(tuple(digests[at : at + MESSAGE_BATCHES_MAX])), (peer,))
        for peer, digests in asked.items()
        for at in range(0, len(digests), MESSAGE_BATCHES_MAX)
    ]
