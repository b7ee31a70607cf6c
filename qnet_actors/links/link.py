"""One link that stands: reads, writes and watches a proved connection until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from qnet_actors.links.counters import PeerCounters, Reason
from qnet_actors.links.queue import FrameQueue
from qnet_actors.links.settings import LinkSettings
from qnet_actors.links.stream import LENGTH_BYTES, Ended, Stream
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.limits import FRAME_SIZE_BYTES_MAX
from qnet_actors.wire.messages import MESSAGE_CODEC, Message

OnMessage = Callable[[int, Message], Awaitable[None] | None]

_FRAMES_PER_TURN: Final = 64
"""Frames handled before other tasks of the loop get a turn, however many are buffered."""
_KEEPALIVE: Final = (b"",)


class Link:
    """A connection to a peer whose identity is proved; `run` is its life."""

    def __init__(
        self,
        peer: int,
        stream: Stream,
        settings: LinkSettings,
        counters: PeerCounters,
        on_message: OnMessage,
    ) -> None:
        self.peer: Final = peer
        self._stream = stream
        self._settings = settings
        self._counters = counters
        self._on_message = on_message
        self._queue = FrameQueue(settings.queue_frames_max, settings.queue_bytes_max)
        self._loop = asyncio.get_running_loop()
        self._queued = asyncio.Event()
        self._end: asyncio.Future[Reason] = self._loop.create_future()
        self._received_at = self._sent_at = self._loop.time()
        self._consuming = False
        self._written = 0
        stream.on_bytes = self._heard

    def send(self, payload: bytes) -> None:
        """Queues a payload; a full queue drops its oldest."""
        self._counters.dropped_frames += self._queue.push(payload)
        self._queued.set()

    def close(self, reason: Reason) -> None:
        """Ends the link; nothing is handed over from it any more."""
        if not self._end.done():
            self._end.set_result(reason)

    async def wait_ended(self) -> None:
        """Until the link ends."""
        await asyncio.wait({self._end})

    async def run(self) -> Reason:
        """Lives until the link ends, and says why; the stream is the caller's to close.

        An exception of the consumer ends the link and is raised here.
        """
        tasks = [
            self._loop.create_task(part(), name=f"link-{self.peer}-{part.__name__}")
            for part in (self._read, self._write, self._watch)
        ]
        try:
            await asyncio.wait({*tasks, self._end}, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    self.close(task.result())
        finally:
            self.close(Reason.CLOSED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._counters.dropped_frames += len(self._queue.take())
        return self._end.result()

    def _heard(self) -> None:
        self._received_at = self._loop.time()

    async def _read(self) -> Reason:
        handled = 0
        try:
            while True:
                payload = await self._stream.read_frame(FRAME_SIZE_BYTES_MAX)
                self._counters.frames_in += 1
                self._counters.bytes_in += LENGTH_BYTES + len(payload)
                if self._end.done():
                    return Reason.CLOSED
                if payload:
                    await self._hand_over(MESSAGE_CODEC.decode(payload))
                handled += 1
                if handled % _FRAMES_PER_TURN == 0:
                    await asyncio.sleep(0)
        except Ended as ended:
            return ended.reason
        except QnetError:
            return Reason.BAD_MESSAGE

    async def _hand_over(self, message: Message) -> None:
        """Waits for the consumer: meanwhile nothing is read, and the sender's queue fills."""
        try:
            waiting = self._on_message(self.peer, message)
            if waiting is not None:
                self._consuming = True
                await waiting
        except (Ended, QnetError) as error:
            # Raised by the node's own code, so it must not pass for a fault of the peer.
            raise RuntimeError("the consumer of a link raised") from error
        finally:
            self._consuming = False
            self._received_at = self._loop.time()

    async def _write(self) -> Reason:
        try:
            while True:
                await self._queued.wait()
                self._queued.clear()
                payloads = self._queue.take() or _KEEPALIVE
                size = self._stream.write(payloads)
                self._sent_at = self._loop.time()
                self._written += size
                self._counters.frames_out += len(payloads)
                self._counters.bytes_out += size
                await self._stream.drain()
        except Ended as ended:
            return ended.reason

    async def _watch(self) -> Reason:
        """Sends keep-alives, and notices a peer that is silent or takes nothing."""
        settings = self._settings
        times_ms = (settings.keepalive_ms, settings.idle_timeout_ms, settings.write_timeout_ms)
        interval = min(times_ms) / 2_000
        taken = 0
        progress_at = self._loop.time()
        while True:
            await asyncio.sleep(interval)
            now = self._loop.time()
            if not self._consuming and now - self._received_at > settings.idle_timeout_ms / 1_000:
                return Reason.IDLE
            waiting = self._stream.waiting_bytes
            if waiting == 0 or self._written - waiting > taken:
                progress_at = now
            taken = self._written - waiting
            if now - progress_at > settings.write_timeout_ms / 1_000:
                return Reason.WRITE_TIMEOUT
            if not waiting and now - self._sent_at >= settings.keepalive_ms / 1_000:
                self._queued.set()
