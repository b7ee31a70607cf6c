"""Small cores and endpoints that the tests of the simulator's machinery drive."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qnet_actors.network.node import Node, RoomKey
from qnet_actors.rooms import Effect, Room, Storage
from qnet_actors.simulator.scheduler import Scheduler
from qnet_actors.wire.messages import Message

KEY = RoomKey(Room.VALIDATOR)


@dataclass
class Disk:
    """A storage that keeps what was written."""

    rows: list[Any] = field(default_factory=list)

    def write(self, writes: Sequence[Any]) -> None:
        self.rows.extend(writes)

    def close(self) -> None:
        pass


@dataclass
class Toy:
    """A core whose answers a test gives."""

    answer: Callable[[Any, int], Sequence[Effect]] = lambda event, now_ms: ()
    at_tick: Callable[[int], Sequence[Effect]] = lambda now_ms: ()
    wake: Callable[[], int | None] = lambda: None
    seen: list[tuple[int, Any]] = field(default_factory=list)

    def handle(self, event: Any, now_ms: int) -> Sequence[Effect]:
        self.seen.append((now_ms, event))
        return self.answer(event, now_ms)

    def tick(self, now_ms: int) -> Sequence[Effect]:
        return self.at_tick(now_ms)

    def wake_ms(self) -> int | None:
        return self.wake()


@dataclass
class Watcher:
    """An observer that notes everything."""

    told: list[tuple[int, Any]] = field(default_factory=list)
    failures: list[tuple[int, str, str]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def started(self, index: int, node: Node) -> None:
        self.starts.append(index)

    def sending(self, index: int, message: Message) -> None:
        pass

    def delivered(self, index: int, event: Any) -> None:
        self.told.append((index, event))

    def failed(self, index: int, invariant: str, reason: str) -> None:
        self.failures.append((index, invariant, reason))


@dataclass
class Opener:
    """Opens nodes of one toy room; disks outlive them."""

    make: Callable[[int, Disk], Toy]
    disks: dict[int, Disk] = field(default_factory=dict)
    toys: dict[int, Toy] = field(default_factory=dict)

    def __call__(self, index: int) -> tuple[Node, Mapping[RoomKey, Storage]]:
        disk = self.disks.setdefault(index, Disk())
        self.toys[index] = toy = self.make(index, disk)
        rooms = {
            RoomKey(Room.MEMPOOL): Toy(),
            KEY: toy,
            RoomKey(Room.LEDGER): Toy(),
        }
        return Node(rooms), {KEY: disk}


@dataclass
class Ear:
    """An end of a link."""

    scheduler: Scheduler
    alive: bool = True
    heard: list[tuple[int, int, Message]] = field(default_factory=list)
    ups: list[tuple[int, int]] = field(default_factory=list)

    def receive(self, peer: int, message: Message) -> None:
        self.heard.append((self.scheduler.now_ms, peer, message))

    def link_up(self, peer: int) -> None:
        self.ups.append((self.scheduler.now_ms, peer))
