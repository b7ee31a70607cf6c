"""One validator on the virtual clock: carries out what its node returns, dies, starts again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Protocol

from qnet_actors.mempool import Entry
from qnet_actors.network.node import (
    Action,
    Deliver,
    Node,
    Reopen,
    RoomKey,
    Send,
    Start,
    Stop,
    Write,
)
from qnet_actors.rooms import Room, Storage, Submit
from qnet_actors.simulator.links import Links
from qnet_actors.simulator.scheduler import Scheduler
from qnet_actors.simulator.trace import Trace
from qnet_actors.validators import SnapshotEntry
from qnet_actors.wire.limits import SUBMISSION_TRANSACTIONS_MAX
from qnet_actors.wire.messages import Message

DOWN_MS_MIN: Final = 20
REOPEN_MS: Final = 5
BUSY_TICKS_MAX: Final = 200
"""Ticks one after the other, none of them leaving the present, before a node counts as spinning."""


class Open(Protocol):
    """Makes the node of a validator from what its storages hold."""

    def __call__(self, index: int) -> tuple[Node, Mapping[RoomKey, Storage]]: ...


class Observer(Protocol):
    """Who checks what a validator does."""

    def started(self, index: int, node: Node) -> None: ...

    def sending(self, index: int, message: Message) -> None: ...

    def delivered(self, index: int, event: Any) -> None: ...

    def failed(self, index: int, invariant: str, reason: str) -> None: ...


@dataclass(slots=True)
class Timing:
    """How long work takes, in virtual milliseconds: [low, high) each."""

    run_ms: tuple[int, int] = (0, 3)
    write_ms: tuple[int, int] = (0, 4)
    extra_write_ms: int = 0


class Host:
    """Drives one `Node` in virtual time.

    A write becomes durable when its time comes, not before: a crash until then loses it, or all
    but its first part, as a power cut loses the tail of a file.
    """

    def __init__(
        self,
        index: int,
        scheduler: Scheduler,
        rng: Random,
        trace: Trace,
        links: Links,
        open_node: Open,
        observer: Observer,
        epoch_ms: int,
        names_of: Callable[[int], Sequence[int]] | None = None,
    ) -> None:
        """`names_of`: the hosts in the order of a node's committee, then all others; empty: the
        hosts as they are."""
        self.index: Final = index
        self.alive = False
        self.timing = Timing()
        self.skew_ms = 0
        self.crashes = 0
        self.node: Node | None = None
        self.outgoing: Callable[[Message, tuple[int, ...] | None], None] = self._send
        """Where messages leave; an adversary puts itself here."""
        self._scheduler = scheduler
        self._rng = rng
        self._trace = trace
        self._links = links
        self._open = open_node
        self._observer = observer
        self._epoch_ms = epoch_ms
        self.pass_on: Callable[[Submit, int], None] = lambda submit, shard: self.handle(
            Room.MEMPOOL, submit, shard
        )
        """Where leftovers go if it is not of the committee any more."""
        self._names_of = names_of or (lambda index: ())
        self._names: Sequence[int] = ()
        self._leftovers: list[list[Entry]] = []
        """What waited in the epoch before, until the next life begins."""
        self._clock_ms = 0
        self._storages: Mapping[RoomKey, Storage] = {}
        self._writes: dict[RoomKey, tuple[Any, ...]] = {}
        self._life = 0
        self._wake_ms: int | None = None
        self._busy = 0
        self._crash_after: int | None = None
        self._down_until_ms = 0
        self._away_until_ms = 0

    @property
    def takes_part(self) -> bool:
        """Whether it is alive and of the committee."""
        return self.alive and self.node is not None and self.node.shard_count > 0

    def now_ms(self) -> int:
        """The validator's own clock; it may be off, and never goes back."""
        self._clock_ms = max(self._clock_ms, self._epoch_ms + self._scheduler.now_ms + self.skew_ms)
        return self._clock_ms

    def start(self) -> None:
        """Opens the node from its storages and lets its links come up; later, if it is to be away
        for longer."""
        if self.alive:
            return
        if (away_ms := self._away_until_ms - self._scheduler.now_ms) > 0:
            self._scheduler.after(away_ms, self.start)
            return
        self.alive = True
        self._life += 1
        self._busy, self._wake_ms = 0, None
        self._trace.note(self.index, "start")
        try:
            self.node, self._storages = self._open(self.index)
            self._names = self._names_of(self.index)
            self._observer.started(self.index, self.node)
            leftovers, self._leftovers = self._leftovers, []
            if self.node.shard_count:
                self.node.take_over(leftovers)
                leftovers = []
            actions = self.node.start(self.now_ms())
        except Exception as error:  # noqa: BLE001 - whatever it is, it stops a real node too
            self._fail(error)
            return
        self._links.connect(self.index)
        self._carry_out(actions)
        for shard, entries in enumerate(leftovers):
            for at in range(0, len(entries), SUBMISSION_TRANSACTIONS_MAX):
                part = entries[at : at + SUBMISSION_TRANSACTIONS_MAX]
                self.pass_on(Submit(0, tuple(entry.data for entry in part)), shard)

    def crash_soon(self, effects: int, until_ms: int) -> None:
        """Dies before the `effects`-th effect from now, and starts again at `until_ms`.

        Where it is dead, or dies otherwise before that, effects of its next life count.
        """
        self._crash_after = effects
        self._down_until_ms = until_ms

    def spare(self) -> None:
        """Calls off a crash that has not come yet."""
        self._crash_after = None

    def crash(self, down_ms: int | None) -> None:
        """Dies at once; None: it is started by somebody else.

        Where it is dead already it stays so until the later of both ends.
        """
        end_ms = self._scheduler.now_ms + (down_ms or 0)
        self._away_until_ms = max(self._away_until_ms, end_ms)
        if not self.alive:
            return
        self.alive = False
        self._life += 1
        self.crashes += 1
        self.node = None
        self._trace.note(self.index, "crash")
        self._lose_writes()
        self._links.disconnect(self.index)
        if down_ms is not None:
            self._scheduler.after(down_ms, self.start)

    def receive(self, peer: int, message: Message) -> None:
        self._trace.note(self.index, f"receives {type(message).__name__} from {peer}")
        self._call(lambda node, now_ms: node.from_peer(self._name(peer), message, now_ms))

    def link_up(self, peer: int) -> None:
        self._call(lambda node, now_ms: node.peer_up(self._name(peer), now_ms))

    def handle(self, room: Room, event: Any, shard: int = 0) -> None:
        """An event from outside, such as a client's submission."""
        self._call(lambda node, now_ms: node.handle(room, event, now_ms, shard))

    def _call(self, call: Callable[[Node, int], Sequence[Action]]) -> None:
        node = self.node
        if node is None:
            return
        try:
            actions = call(node, self.now_ms())
        except Exception as error:  # noqa: BLE001 - whatever it is, it stops a real node too
            self._fail(error)
            return
        self._carry_out(actions)

    def _carry_out(self, actions: Sequence[Action]) -> None:
        """Carries out actions and what follows from them in the same moment, without recursion."""
        waiting = deque([actions])
        try:
            while waiting:
                for action in waiting.popleft():
                    if self._dies():
                        return
                    self._carry_out_one(action, waiting)
                    if not self.alive:
                        return
            self._schedule_tick()
        except Exception as error:  # noqa: BLE001 - whatever it is, it stops a real node too
            self._fail(error)

    def _carry_out_one(self, action: Action, waiting: deque[Sequence[Action]]) -> None:
        node = self.node
        if node is None:
            return
        match action:
            case Send(message=message, peers=peers):
                self.outgoing(message, self._hosts_of(peers))
            case Start():
                result = action.call()
                delay_ms = self._rng.randrange(*self.timing.run_ms)
                if delay_ms:
                    self._scheduler.after(delay_ms, self._ran, self._life, action, result)
                else:
                    waiting.append(node.ran(action, result, self.now_ms()))
            case Write(key=key, writes=writes):
                self._writes[key] = writes
                delay_ms = self._rng.randrange(*self.timing.write_ms)
                delay_ms += self.timing.extra_write_ms
                self._scheduler.after(delay_ms, self._written, self._life, key)
            case Deliver(event=event):
                self._observer.delivered(self.index, event)
            case Reopen(epoch=epoch):
                self._trace.note(self.index, f"epoch {epoch}")
                self._reopen()
            case Stop(reason=reason):
                self._stop("halt", reason)

    def _name(self, host: int) -> int:
        """What a host is called in the node's epoch: its place in the committee, then the rest."""
        return self._names.index(host) if self._names else host

    def _hosts_of(self, peers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if peers is None or not self._names:
            return peers
        return tuple(self._names[peer] for peer in peers)

    def _reopen(self) -> None:
        """The node's epoch is over: what it writes becomes durable, then a new node begins."""
        for key in sorted(self._writes):
            self._storages[key].write(self._writes[key])
        self._writes.clear()
        self._leftovers = [] if self.node is None else self.node.leftovers()
        self.alive = False
        self._life += 1
        self.node = None
        self._links.disconnect(self.index)
        self._scheduler.after(REOPEN_MS, self.start)

    def _send(self, message: Message, peers: tuple[int, ...] | None) -> None:
        self._observer.sending(self.index, message)
        self._links.send(self.index, message, peers)

    def _ran(self, life: int, start: Start, result: Any) -> None:
        if life == self._life:
            self._call(lambda node, now_ms: node.ran(start, result, now_ms))

    def _written(self, life: int, key: RoomKey) -> None:
        if life != self._life:
            return

        def durable(node: Node, now_ms: int) -> Sequence[Action]:
            self._storages[key].write(self._writes.pop(key))
            return node.persisted(key, now_ms)

        self._call(durable)

    def _lose_writes(self) -> None:
        """What was being written is lost, or kept in part, or kept whole but never reported."""
        for key in sorted(self._writes):
            writes = self._writes[key]
            kept = self._rng.randrange(len(writes) + 1)
            if any(isinstance(write, SnapshotEntry) for write in writes) and kept < len(writes):
                # It takes the place of all before it, under its name only once it is whole.
                kept = 0
            if kept:
                self._storages[key].write(writes[:kept])
        self._writes.clear()

    def _dies(self) -> bool:
        if self._crash_after is None:
            return False
        self._crash_after -= 1
        if self._crash_after > 0:
            return False
        self._crash_after = None
        self.crash(max(DOWN_MS_MIN, self._down_until_ms - self._scheduler.now_ms))
        return True

    def _schedule_tick(self) -> None:
        if self.node is None:
            return
        wake_ms = self.node.wake_ms()
        if wake_ms is None:
            return
        # In virtual time; a clock that was put back stands still until the others catch up.
        behind_ms = self.now_ms() - self._scheduler.now_ms
        at_ms = max(wake_ms - behind_ms, self._scheduler.now_ms)
        if self._wake_ms is None or at_ms < self._wake_ms:
            self._wake_ms = at_ms
            self._scheduler.at(at_ms, self._tick, self._life, at_ms)

    def _tick(self, life: int, at_ms: int) -> None:
        if life != self._life or self._wake_ms != at_ms:
            return
        self._wake_ms = None
        node = self.node
        if node is None:
            return
        wake_ms = node.wake_ms()
        if wake_ms is None or wake_ms > self.now_ms():
            self._schedule_tick()
            return
        self._call(lambda node, now_ms: node.tick(now_ms))
        after_ms = node.wake_ms()
        self._busy = self._busy + 1 if after_ms is not None and after_ms <= self.now_ms() else 0
        if self._busy > BUSY_TICKS_MAX and self.alive:
            late = {key.room.name for key, core in node.rooms.items() if core.wake_ms() == after_ms}
            self._stop("spinning", f"{sorted(late)} ask to be ticked for ever")

    def _fail(self, error: Exception) -> None:
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        where = f"{last.tb_frame.f_code.co_qualname}:{last.tb_lineno}" if last is not None else "?"
        self._stop("exception", f"{type(error).__name__}: {error} in {where}")

    def _stop(self, invariant: str, reason: str) -> None:
        """The node stops itself, for ever."""
        self._trace.note(self.index, f"{invariant}: {reason}")
        self.alive = False
        self._life += 1
        self.node = None
        self._writes.clear()
        self._links.disconnect(self.index)
        self._observer.failed(self.index, invariant, reason)
