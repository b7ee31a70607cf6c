"""The network between validators: delay, loss, reordering, duplication, partitions, resets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Final, Protocol

from qnet_actors.simulator.faults import DELAY_MS_MAX, Fault
from qnet_actors.simulator.scheduler import Scheduler
from qnet_actors.simulator.trace import Trace
from qnet_actors.wire.codec import encode
from qnet_actors.wire.messages import MESSAGE_CODEC, Message

RECONNECT_MS_MAX: Final = 60
DUPLICATE_MS_MAX: Final = 200
REORDER_MS_MAX: Final = 150


class Endpoint(Protocol):
    """A validator as the network sees it."""

    @property
    def alive(self) -> bool: ...

    def receive(self, peer: int, message: Message) -> None: ...

    def link_up(self, peer: int) -> None: ...


class Links:
    """Carries messages as bytes between endpoints.

    A link keeps order unless a fault says otherwise.  It stands where both ends are alive and no
    partition or reset parts them; when it stands again both ends are told, and what was under way
    is lost.  Every message is encoded and decoded, once for all its receivers: both yield frozen
    values, so sharing them hides nothing.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        rng: Random,
        trace: Trace,
        fired: Counter[Fault],
        delay_ms: tuple[int, int],
        matrix_ms: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """`delay_ms`: [low, high) of every message; `matrix_ms`: more, by source and receiver."""
        self._levels: dict[Fault, list[float]] = {}
        """Of LOSS, DUPLICATE, REORDER and DELAY where they are on, one for each episode."""
        self.sent = 0
        self.sent_bytes = 0
        self._scheduler = scheduler
        self._rng = rng
        self._trace = trace
        self._fired = fired
        self._delay_ms = delay_ms
        self._matrix_ms = matrix_ms
        self._ends: list[Endpoint] = []
        self._cuts: Counter[tuple[int, int]] = Counter()
        # Counts how often a link broke: what is under way bears the number and arrives only if
        # it is still the same.
        self._generation: Counter[tuple[int, int]] = Counter()
        self._last_ms: dict[tuple[int, int], int] = {}
        self._up: set[tuple[int, int]] = set()

    def worsen(self, fault: Fault, level: float) -> None:
        """Turns a fault of messages on, beside others of its kind.

        `level`: the probability a message; the largest counts where there are several.  The first
        message after the first one of a kind is hit for certain.
        """
        self._levels.setdefault(fault, []).append(level)

    def ease(self, fault: Fault, level: float) -> None:
        """Takes one such fault back; the others stay."""
        levels = self._levels.get(fault, [])
        if level in levels:
            levels.remove(level)
        if not levels:
            self._levels.pop(fault, None)

    def level(self, fault: Fault) -> float:
        """The probability that a message is hit; 0: the fault is not on."""
        return max(self._levels.get(fault, ()), default=0.0)

    def calm(self) -> None:
        """Takes all of them back."""
        self._levels.clear()

    def attach(self, ends: list[Endpoint]) -> None:
        self._ends = ends

    def stands(self, a: int, b: int) -> bool:
        return self._pair(a, b) in self._up

    def send(self, source: int, message: Message, peers: tuple[int, ...] | None) -> None:
        """Queues a message on the links that stand.  Raises `QnetError` where the codec refuses."""
        data = encode(message)
        decoded = MESSAGE_CODEC.decode(data)
        self._trace.note(source, type(message).__name__, data)
        for peer in range(len(self._ends)) if peers is None else peers:
            if peer != source and 0 <= peer < len(self._ends):
                self._send_one(source, peer, decoded, len(data))

    def connect(self, index: int) -> None:
        """An endpoint came alive: its links come up after a moment."""
        for peer in range(len(self._ends)):
            if peer != index:
                self._reconnect(index, peer)

    def disconnect(self, index: int) -> None:
        """An endpoint died: its links break.  What it had sent still arrives."""
        for peer in range(len(self._ends)):
            pair = self._pair(index, peer)
            if peer != index and pair in self._up:
                self._up.discard(pair)
                self._generation[peer, index] += 1

    def cut(self, a: int, b: int) -> None:
        """Breaks a link with what it carries; cuts of one link add up."""
        pair = self._pair(a, b)
        self._cuts[pair] += 1
        self._up.discard(pair)
        self._generation[a, b] += 1
        self._generation[b, a] += 1

    def heal(self, a: int, b: int) -> None:
        """Takes one cut back; without any left, the link comes up after a moment."""
        pair = self._pair(a, b)
        self._cuts[pair] -= 1
        if not self._cuts[pair]:
            self._reconnect(a, b)

    def _reconnect(self, a: int, b: int) -> None:
        self._scheduler.after(self._rng.randrange(1, RECONNECT_MS_MAX), self._come_up, a, b)

    def _come_up(self, a: int, b: int) -> None:
        pair = self._pair(a, b)
        both_alive = self._ends[a].alive and self._ends[b].alive
        if pair in self._up or self._cuts[pair] or not both_alive:
            return
        self._up.add(pair)
        for here, there in (pair, pair[::-1]):
            self._trace.note(here, f"link up {there}")
            self._ends[here].link_up(there)

    def _send_one(self, source: int, peer: int, message: Message, size_bytes: int) -> None:
        if self._pair(source, peer) not in self._up:
            return
        self.sent += 1
        self.sent_bytes += size_bytes
        rng = self._rng
        now_ms = self._scheduler.now_ms
        arrival_ms = now_ms + rng.randrange(*self._delay_ms)
        if self._matrix_ms is not None:
            arrival_ms += self._matrix_ms[source][peer]
        ordered = True
        if self._levels:
            if self._hits(Fault.LOSS):
                self._trace.note(source, f"lost to {peer}: {type(message).__name__}")
                return
            if self._hits(Fault.DELAY):
                arrival_ms += rng.randrange(DELAY_MS_MAX)
            if self._hits(Fault.REORDER):
                arrival_ms += rng.randrange(REORDER_MS_MAX)
                ordered = False
            if self._hits(Fault.DUPLICATE):
                again_ms = arrival_ms + rng.randrange(1, DUPLICATE_MS_MAX)
                self._schedule(again_ms, source, peer, message)
        if ordered:
            arrival_ms = max(arrival_ms, self._last_ms.get((source, peer), 0))
            self._last_ms[source, peer] = arrival_ms
        self._schedule(arrival_ms, source, peer, message)

    def _hits(self, fault: Fault) -> bool:
        if fault not in self._levels:
            return False
        if self._rng.random() >= self.level(fault) and self._fired[fault]:
            return False
        self._fired[fault] += 1
        return True

    def _schedule(self, time_ms: int, source: int, peer: int, message: Message) -> None:
        generation = self._generation[source, peer]
        self._scheduler.at(time_ms, self._arrive, source, peer, generation, message)

    def _arrive(self, source: int, peer: int, generation: int, message: Message) -> None:
        end = self._ends[peer]
        if generation == self._generation[source, peer] and end.alive:
            end.receive(source, message)

    def _pair(self, a: int, b: int) -> tuple[int, int]:
        return (a, b) if a < b else (b, a)
