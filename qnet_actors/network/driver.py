"""Carries out what a node returns, on asyncio: threads for CPU work and writes, links for peers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from qnet_actors.network.node import (
    Action,
    Deliver,
    Forward,
    Node,
    Reopen,
    RoomKey,
    Send,
    Start,
    Stop,
    Write,
)
from qnet_actors.network.worker import Completions, Done, Worker
from qnet_actors.rooms import Room, Storage
from qnet_actors.wire.messages import Message

T = TypeVar("T")
logger = logging.getLogger(__name__)

VERIFY_NICENESS: Final = 10
"""Verification takes all the time there is; consensus needs little of it, but at once."""


class Peers(Protocol):
    """The links to other validators, as the driver uses them."""

    def send(self, peer: int, message: Message) -> object:
        """Queues a message, best effort."""

    def broadcast(self, message: Message) -> object:
        """Queues a message for every other validator."""


class Clock:
    """Milliseconds since 1970 that never go back while the process lives."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now_ms(self) -> int:
        return int((time.monotonic() + self._offset) * 1000)


class Driver:
    """Drives one `Node`.  All methods belong to one event loop.

    Every room has a thread for its CPU work and one for its writes, so that a long verification
    never stands before a signature, nor an fsync before either.  `on_event` gets what is for the
    gateway; `on_stop` the reason, once, when the node stops itself; `on_forward` what is for a
    room that lives elsewhere.  `on_reopen` is called, once, when the node's epoch is over: `close`
    it then, and drive another one.
    """

    def __init__(
        self,
        node: Node,
        storages: Mapping[RoomKey, Storage],
        on_event: Callable[[Any], None],
        on_stop: Callable[[str], None],
        on_forward: Callable[[RoomKey, Any], None] | None = None,
        on_reopen: Callable[[], None] | None = None,
    ) -> None:
        self.node: Final = node
        self.clock: Final = Clock()
        self._storages = dict(storages)
        self._on_event = on_event
        self._on_stop = on_stop
        self._on_forward = on_forward
        self._on_reopen = on_reopen
        self._peers: Peers | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0
        self._done = Completions(self._loop, self._on_done)
        self._workers = {
            key: self._thread(key, "run", VERIFY_NICENESS if key.room == Room.MEMPOOL else 0)
            for key in node.rooms
        }
        self._writers = {key: self._thread(key, "write") for key in storages}
        self._closed = False
        self.unwritten: str | None = None
        """Why something was not written after all, found out while closing."""

    def start(self, peers: Peers) -> None:
        self._peers = peers
        self._drive(self.node.start)

    def handle(self, room: Room, event: Any, shard: int = 0) -> None:
        """Hands an event from outside to a room."""
        self._drive(lambda now_ms: self.node.handle(room, event, now_ms, shard))

    def on_message(self, peer: int, message: Message) -> None:
        self._drive(lambda now_ms: self.node.from_peer(peer, message, now_ms))

    def on_up(self, peer: int) -> None:
        self._drive(lambda now_ms: self.node.peer_up(peer, now_ms))

    def halt(self, reason: str) -> None:
        """Stops the node for a reason from outside."""
        self._stop(reason)

    def ask(self, key: RoomKey, call: Callable[[], T], then: Callable[[T], None]) -> None:
        """Has `call` made where the room's CPU work is done, so that it meets none of it."""

        def answered(result: T, _: int) -> Sequence[Action]:
            then(result)
            return ()

        self._workers[key].put(call, answered)

    async def close(self, keep: Collection[RoomKey] = ()) -> None:
        """Stops; waits for writes and work under way, and closes the storages but those to keep.

        A write that fails meanwhile is a reason to stop the validator: nothing may build on it.
        """
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for worker in (*self._workers.values(), *self._writers.values()):
            await asyncio.to_thread(worker.close)
        for key, storage in self._storages.items():
            if key not in keep:
                await asyncio.to_thread(storage.close)
        if self.unwritten is not None:
            self._on_stop(self.unwritten)

    def _thread(self, key: RoomKey, kind: str, niceness: int = 0) -> Worker:
        name = f"{key.room.name.lower()}-{key.shard}-{kind}"
        return Worker(name, self._done, niceness)

    def _tick(self) -> None:
        self._timer = None
        self._drive(self.node.tick)

    def _drive(self, *steps: Callable[[int], Sequence[Action]]) -> None:
        """Takes steps of the node and carries out what comes of them; a fault stops the node."""
        try:
            for step in steps:
                if self._closed:
                    return
                self._carry_out(step(self.clock.now_ms()))
            self._schedule()
        except Exception as error:
            logger.exception("the node failed")
            self._stop(f"{type(error).__name__}: {error}")

    def _carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Send(message=message, peers=peers):
                    self._send(message, peers)
                case Deliver(event=event):
                    self._on_event(event)
                case Forward(key=key, event=event):
                    if self._on_forward is None:
                        raise RuntimeError(f"no room {key} in this process")
                    self._on_forward(key, event)
                case Start(key=key, call=call):
                    self._workers[key].put(call, partial(self.node.ran, action))
                case Write(key=key, writes=writes):
                    write = partial(self._storages[key].write, writes)
                    self._writers[key].put(write, partial(self._persisted, key))
                case Stop(reason=reason):
                    self._stop(reason)
                case Reopen(epoch=epoch):
                    self._reopen(epoch)

    def _send(self, message: Message, peers: tuple[int, ...] | None) -> None:
        if self._peers is None:
            return
        if peers is None:
            self._peers.broadcast(message)
            return
        for peer in peers:
            self._peers.send(peer, message)

    def _persisted(self, key: RoomKey, _: None, now_ms: int) -> Sequence[Action]:
        return self.node.persisted(key, now_ms)

    def _on_done(self, done: Sequence[Done]) -> None:
        """What threads have done since the last time; a failure stops the node, never hides."""
        for one in done:
            if one.error is None:
                continue
            logger.error("a job of the node failed", exc_info=one.error)
            reason = f"{type(one.error).__name__}: {one.error}"
            if not self._closed:
                self._stop(reason)
            elif getattr(one.then, "func", None) == self._persisted:
                # Whoever closes counts on what was written; see `close`.
                self.unwritten = self.unwritten or reason
        self._drive(*(partial(one.then, one.result) for one in done))

    def _stop(self, reason: str) -> None:
        if not self._closed:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._on_stop(reason)

    def _reopen(self, epoch: int) -> None:
        if self._on_reopen is None:
            self._stop(f"epoch {epoch} begins: start the validator again")
        elif not self._closed:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._on_reopen()

    def _schedule(self) -> None:
        """A timer that is set too early is left: it costs less than setting one at each event."""
        wake_ms = None if self._closed else self.node.wake_ms()
        if wake_ms is None or (self._timer is not None and self._timer_ms <= wake_ms):
            return
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0, wake_ms - self.clock.now_ms()) / 1000
        self._timer, self._timer_ms = self._loop.call_later(delay, self._tick), wake_ms
