"""All the links of one validator: dials, accepts, replaces, and hands messages over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from qnet_actors.links.backoff import Backoff
from qnet_actors.links.counters import PeerCounters, Reason
from qnet_actors.links.handshake import Identity, prove_acceptor, prove_dialler
from qnet_actors.links.link import Link, OnMessage
from qnet_actors.links.roster import PeerKey, Roster
from qnet_actors.links.settings import LinkSettings
from qnet_actors.links.stream import Ended, Stream
from qnet_actors.links.transport import Listener, TcpTransport, Transport
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import FRAME_SIZE_BYTES_MAX
from qnet_actors.wire.messages import Message
from qnet_actors.wire.schemes import Signer, Verifier

logger = logging.getLogger(__name__)


class Links:
    """The links of a validator to the others of its roster, by their numbers in it.

    All methods belong to the event loop that `start` ran on.  `Roster.dials` says who dials; a
    newer connection replaces an older one of the same peer.  `on_up` is called when a link comes to
    stand, before its first message.  `on_message` gets messages in order, one at a time a peer; if
    it returns an awaitable, nothing more is read from that peer until it is done.

    An exception of `on_message` or `on_up` is a fault of this node: the link is closed, and the
    loop's exception handler is called with it.
    """

    def __init__(
        self,
        roster: Roster,
        chain_id: bytes,
        signer: Signer,
        verifier: Verifier,
        on_message: OnMessage,
        on_up: Callable[[int], None],
        *,
        settings: LinkSettings | None = None,
        transport: Transport | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`jitter` gives numbers in [0, 1), which spread the dials of many over time."""
        self._settings: Final = settings or LinkSettings()
        self._transport: Final = transport or TcpTransport(self._settings.read_ahead_bytes)
        # One thread: a flood of strangers takes one core's share and no more.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="links")
        self._roster: Final = roster
        self._identity: Final = Identity(roster, chain_id, signer, verifier, self._executor)
        self._on_message = on_message
        self._on_up = on_up
        self._jitter = jitter
        self._listener: Listener | None = None
        self._links: dict[int, Link] = {}
        self._addresses: dict[int, tuple[str, int]] = {}
        self._moved: dict[int, asyncio.Event] = {}
        self._diallers: dict[int, asyncio.Task[None]] = {}
        self._strangers: dict[Stream, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._up_at: dict[int, float] = {}
        self._closed = False
        self.counters: Final = {peer: PeerCounters() for peer in roster.keys if peer != roster.own}
        """Totals by peer, of those that may link."""
        self.strangers: Final = PeerCounters()
        """Totals of connections that did not prove who they are."""

    @property
    def up(self) -> tuple[int, ...]:
        """The peers to which a link stands, in order."""
        return tuple(sorted(self._links))

    async def start(self, host: str, port: int = 0) -> tuple[str, int]:
        """Listens and returns the address; port 0 takes a free one.

        Raises `QnetError(PORT_IN_USE)` where it cannot.
        """
        if self._listener is not None or self._closed:
            raise RuntimeError("links are started once")
        try:
            self._listener = await self._transport.listen(host, port, self._accept)
        except OSError as error:
            raise QnetError(
                Code.PORT_IN_USE, f"links cannot listen on {host}:{port} ({error.strerror})"
            ) from error
        return self._listener.address

    def set_peers(self, addresses: Mapping[int, tuple[str, int]]) -> None:
        """Says where the others listen: those that are this end's to dial are, from now on.

        A peer that no longer stands there is dialled no more, and its link ends.  A peer at a new
        address is dialled there at once, or as soon as its link ends.
        """
        if self._closed:
            return
        wanted = {
            peer: address
            for peer, address in addresses.items()
            if peer in self._roster and self._roster.dials(peer)
        }
        for peer in self._diallers.keys() - wanted.keys():
            self._diallers.pop(peer).cancel()
            del self._moved[peer]
        moved = [peer for peer, address in wanted.items() if self._addresses.get(peer) != address]
        self._addresses = wanted
        for peer in wanted.keys() - self._diallers.keys():
            self._moved[peer] = asyncio.Event()
            self._diallers[peer] = self._spawn(self._dial(peer), f"dial-{peer}")
        for peer in moved:
            self._moved[peer].set()

    def set_keys(self, keys: Iterable[PeerKey]) -> tuple[int, ...]:
        """From now on these may link, and nobody else; returns the numbers of new ones.

        Links to others end.  Where new ones listen is for `set_peers` to say.
        """
        added, gone = self._roster.set(keys)
        for peer in gone:
            self._addresses.pop(peer, None)
            self._up_at.pop(peer, None)
            self._moved.pop(peer, None)
            dialler = self._diallers.pop(peer, None)
            if dialler is not None:
                dialler.cancel()
            link = self._links.get(peer)
            if link is not None:
                link.close(Reason.CLOSED)
            del self.counters[peer]
        self.counters.update((peer, PeerCounters()) for peer in added)
        return added

    def send(self, peer: int, message: Message) -> bool:
        """Queues a message, best effort: a full queue drops its oldest.

        False where it was not queued: no link stands, or it is over FRAME_SIZE_BYTES_MAX.
        """
        link = self._links.get(peer)
        if link is None:
            self._refused(peer)
            return False
        return self._queue((link,), encode(message)) == 1

    def broadcast(self, message: Message, peers: Collection[int] | None = None) -> int:
        """Queues a message for these peers, or for all; returns for how many.

        It is encoded once.
        """
        wanted = self.counters.keys() if peers is None else self.counters.keys() & set(peers)
        for peer in wanted - self._links.keys():
            self._refused(peer)
        links = tuple(link for peer, link in self._links.items() if peer in wanted)
        return self._queue(links, encode(message)) if links else 0

    async def close(self) -> None:
        """Ends all links and dials, and waits for them."""
        self._closed = True
        if self._listener is not None:
            await self._listener.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._executor.shutdown, True, cancel_futures=True)

    def _spawn(self, life: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(life, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _refused(self, peer: int) -> None:
        if peer in self.counters:
            self.counters[peer].refused_frames += 1

    def _queue(self, links: tuple[Link, ...], payload: bytes) -> int:
        if len(payload) > FRAME_SIZE_BYTES_MAX:
            # What a room gathers into one message may depend on what a peer asked for, so this
            # must not stop the node.
            logger.error("a message of %d bytes is over the limit of a frame", len(payload))
            for link in links:
                self._refused(link.peer)
            return 0
        for link in links:
            link.send(payload)
        return len(links)

    async def _dial(self, peer: int) -> None:
        loop = asyncio.get_running_loop()
        backoff, moved = Backoff(self._settings, self._jitter), self._moved[peer]
        while True:
            moved.clear()
            started = loop.time()
            await self._dial_once(peer)
            pause_ms = backoff.pause_ms(stood_ms=(loop.time() - started) * 1_000)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_ms / 1_000):
                    await moved.wait()
                    backoff.reset()

    async def _dial_once(self, peer: int) -> None:
        """One attempt, and the life of the link that comes of it."""
        standing = self._links.get(peer)
        if standing is not None:
            # The other end was first; dialling now would only replace a link that stands.
            await standing.wait_ended()
            return
        stream: Stream | None = None

        async def connect() -> int:
            nonlocal stream
            stream = await self._transport.open(*self._addresses[peer])
            return await prove_dialler(stream, self._identity, peer)

        self.counters[peer].dials += 1
        try:
            proved = await self._proved(connect())
            if isinstance(proved, Reason):
                self.counters[peer].ended(proved)
            elif stream is not None:
                await self._serve(peer, stream)
        finally:
            if stream is not None:
                await stream.close()

    async def _proved(self, handshake: Coroutine[Any, Any, int]) -> int | Reason:
        """The peer that a handshake proves, or why it does not."""
        try:
            async with asyncio.timeout(self._settings.handshake_timeout_ms / 1_000):
                return await handshake
        except Ended as ended:
            return ended.reason
        except TimeoutError:
            return Reason.HANDSHAKE_TIMEOUT
        except OSError:
            return Reason.UNREACHABLE
        except Exception as error:  # noqa: BLE001 - handed on
            return self._fault("during a handshake", error)

    def _accept(self, stream: Stream) -> None:
        """Takes a connection of a stranger.

        Refusing newcomers would let idle connections shut validators out; so the oldest that has
        not proved itself goes, since an honest handshake is over in milliseconds.
        """
        if self._closed:
            self._spawn(stream.close(), "refuse")
            return
        if len(self._strangers) >= self._settings.handshakes_max:
            oldest = next(iter(self._strangers))
            self._strangers.pop(oldest).cancel()
            self.strangers.ended(Reason.CROWDED_OUT)
        self._strangers[stream] = self._spawn(self._welcome(stream), "accept")

    async def _welcome(self, stream: Stream) -> None:
        try:
            proved = await self._proved(prove_acceptor(stream, self._identity))
            self._strangers.pop(stream, None)
            if isinstance(proved, Reason):
                self.strangers.ended(proved)
            elif proved not in self._roster:
                self.strangers.ended(Reason.WRONG_PEER)
            elif self._too_soon(proved):
                self.counters[proved].ended(Reason.TOO_SOON)
            else:
                await self._serve(proved, stream)
        finally:
            self._strangers.pop(stream, None)
            await stream.close()

    def _too_soon(self, peer: int) -> bool:
        """Whether `peer` comes back faster than a dialler's shortest pause."""
        since_ms = (asyncio.get_running_loop().time() - self._up_at.get(peer, -math.inf)) * 1_000
        return since_ms < self._settings.backoff_ms / 2

    async def _serve(self, peer: int, stream: Stream) -> None:
        """Makes a proved connection the link to `peer`, and lives with it."""
        counters = self.counters[peer]
        link = Link(peer, stream, self._settings, counters, self._on_message)
        older = self._links.get(peer)
        if older is not None:
            older.close(Reason.REPLACED)
        self._links[peer] = link
        self._up_at[peer] = asyncio.get_running_loop().time()
        counters.ups += 1
        reason = Reason.CLOSED
        try:
            self._on_up(peer)
            reason = await link.run()
        except Exception as error:  # noqa: BLE001 - handed on
            reason = self._fault(f"of the consumer of validator {peer}", error)
        finally:
            if self._links.get(peer) is link:
                del self._links[peer]
            counters.ended(reason)
            logger.info("link to validator %d ended: %s", peer, reason)

    def _fault(self, where: str, error: Exception) -> Reason:
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"a fault in links {where}", "exception": error}
        )
        return Reason.FAULT
