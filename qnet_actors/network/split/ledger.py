"""The ledger of a validator in a process and a thread of its own.  Knows no Ray."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, assert_never

from qnet_actors.ledger import (
    BlockLog,
    GroupExecution,
    LedgerCore,
    Recovered,
    SnapshotSettings,
    recover,
    validator_keys,
)
from qnet_actors.network.driver import Clock
from qnet_actors.network.node import (
    GATEWAY,
    LEDGER,
    VALIDATOR,
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
from qnet_actors.network.present import present_of
from qnet_actors.network.split.bodies import BodiesRouter
from qnet_actors.network.split.channel import PortFault
from qnet_actors.network.split.events import EpochOver, Registered, SendToPeers, Stopped
from qnet_actors.rooms import BlockExecuted, Bodies, BodiesWanted, CommitReady, Joined, Room
from qnet_actors.state import PartitionedState, Port
from qnet_actors.wire.genesis import Genesis

logger = logging.getLogger(__name__)


class LedgerRoom:
    """Does what it is given to the end before it takes more: belongs to one thread.

    `forward` gets what is for other rooms.  A write is made before the next block is executed, so
    that nothing durable waits for what is not.
    """

    def __init__(
        self,
        genesis: Genesis,
        verifier: Any,
        log: BlockLog,
        shards: int,
        partitions: Sequence[Port],
        executors: Sequence[Port],
        forward: Callable[[RoomKey, Any], None],
        *,
        rows_min: int,
        snapshots: SnapshotSettings | None = None,
        carried: Recovered[PartitionedState] | None = None,
        public_key: bytes | None = None,
    ) -> None:
        """Recovers, unless `carried` is what the room of the epoch before handed over.

        `public_key`: the validator's; who is not of the committee has no shards.

        Raises `QnetError` where the log does not hold up.
        """
        recovered = carried or recover(log, genesis, lambda: PartitionedState(partitions))
        self.state: Final = recovered.state
        self.present: Final = present_of(recovered, genesis)
        """The epoch, and where it stood when it was opened."""
        self.keys = validator_keys(self.state, genesis)
        """(scheme, public key) of all who may link."""
        self._genesis: Final = genesis
        if public_key is not None and self.present.place_of(public_key) is None:
            shards = 0
        self._core: Final = LedgerCore(
            genesis=genesis,
            committee=self.present.committee,
            verifier=verifier,
            recovered=recovered,
            log=log,
            snapshots=snapshots,
            run=GroupExecution(executors, rows_min),
        )
        remote = [VALIDATOR, *(RoomKey(Room.MEMPOOL, shard) for shard in range(shards))]
        self._node = Node({LEDGER: self._core}, remote)
        self._log = log
        self._forward = forward
        self._bodies = BodiesRouter(shards)
        self._clock = Clock()

    def handed_over(self) -> Recovered[PartitionedState] | None:
        """See `LedgerCore.handed_over`."""
        return self._core.handed_over(self.state)

    def start(self) -> None:
        self._carry_out(lambda: self._node.start(self._clock.now_ms()))

    def handle(self, events: Iterable[tuple[RoomKey, Any]]) -> int | None:
        """Takes events in order; returns in how many milliseconds it wants to be called again.

        `Bodies` name the shard that they are from.
        """
        for key, event in events:
            whole: Any = event
            if isinstance(event, CommitReady):
                self._bodies.commit(event)
            elif isinstance(event, Bodies):
                whole = self._bodies.arrived(key.shard, event)
            if whole is not None:
                self._carry_out(partial(self._handled, whole))
        self._carry_out(lambda: self._node.tick(self._clock.now_ms()))
        wake_ms = self._node.wake_ms()
        return None if wake_ms is None else max(1, wake_ms - self._clock.now_ms())

    def _handled(self, event: Any) -> list[Action]:
        return self._node.handle(Room.LEDGER, event, self._clock.now_ms())

    def _carry_out(self, step: Callable[[], list[Action]]) -> None:
        """Carries out a step and all that comes of it; a fault stops the validator."""
        if self._node.stopped is not None:
            return
        try:
            self._drain(step())
        except PortFault:
            raise
        except Exception as error:
            logger.exception("the ledger failed")
            self._node.stopped = f"{type(error).__name__}: {error}"
            self._forward(VALIDATOR, Stopped(self._node.stopped))

    def _drain(self, actions: Sequence[Action]) -> None:
        ready, jobs = deque(actions), deque[Start]()
        while ready or jobs:
            if not ready:
                job = jobs.popleft()
                ready.extend(self._node.ran(job, job.call(), self._clock.now_ms()))
                continue
            action = ready.popleft()
            match action:
                case Start():
                    jobs.append(action)
                case Write(key=key, writes=writes):
                    self._log.write(writes)
                    ready.extend(self._node.persisted(key, self._clock.now_ms()))
                case Send(message=message, peers=peers):
                    self._forward(VALIDATOR, SendToPeers(message, peers))
                case Deliver(event=event):
                    self._forward(GATEWAY, event)
                    if isinstance(event, BlockExecuted) and event.record.checkpoint is not None:
                        self._look_for_keys()
                case Forward(key=key, event=event):
                    self._pass_on(key, event)
                case Stop(reason=reason):
                    self._forward(VALIDATOR, Stopped(reason))
                    return
                case Reopen(epoch=epoch):
                    self._forward(VALIDATOR, EpochOver(epoch))
                    return
                case _:
                    assert_never(action)

    def _look_for_keys(self) -> None:
        """Who is registered now, once a checkpoint."""
        if not self._genesis.parameters.epoch_commits_min:
            return
        keys = validator_keys(self.state, self._genesis)
        if keys != self.keys:
            self.keys = keys
            self._forward(VALIDATOR, Registered(keys))

    def _pass_on(self, key: RoomKey, event: Any) -> None:
        if isinstance(event, BodiesWanted):
            for shard, part in self._bodies.wanted(event):
                self._forward(RoomKey(Room.MEMPOOL, shard), part)
            return
        if isinstance(event, Joined):
            # The shards' copies of the accounts follow blocks, and these are not here.
            raise PortFault("the state was taken over from a snapshot: all rooms start from it")
        if isinstance(event, BlockExecuted):
            self._bodies.forget(event.record.header.commit_index)
        self._forward(key, event)
