"""A few cores on a virtual clock: enough of a driver, a mempool and a ledger to see them agree."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from qnet_actors.rooms import (
    BatchesDropped,
    BatchesHeld,
    BatchReady,
    CatchUp,
    CaughtUp,
    CheckpointCertified,
    CheckpointMade,
    CommitReady,
    CommitsExecuted,
    Effect,
    FetchBatches,
    FromPeer,
    Halt,
    PeerUp,
    Persist,
    Room,
    Run,
    ToPeers,
    ToRoom,
)
from qnet_actors.validators.core import ValidatorCore
from qnet_actors.validators.journal import MemoryJournal
from qnet_actors.validators.recovery import recover
from qnet_actors.wire.batches import BatchRef
from qnet_actors.wire.blocks import Certificate, Checkpoint
from qnet_actors.wire.codec import encode
from qnet_actors.wire.dag import Commit, decode_dag_block
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.hashing import BLOCK, STATE_NODE, hash32
from qnet_actors.wire.messages import MESSAGE_CODEC, DagBlocks, Message
from tests.validators.support import START_MS, VERIFIER, signer

COMMITS_PER_CHECKPOINT = 8


class Validator:
    """One core with its driver, a ledger that executes at once, and a mempool that has it all."""

    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.index = index
        self.journal = MemoryJournal()
        self.life = 0
        self.alive = False
        self.stopped_until_ms = 0
        """Until then the process stands still: what comes waits and is taken in order."""
        self.halted: str | None = None
        self.core: ValidatorCore
        self.commits: dict[int, Commit] = {}
        """What the ledger got, by index; durable."""
        self.batches: list[tuple[int, BatchRef]] = []
        """The batches of all commits in order."""
        self.loaded: list[int] = []
        """The commits with batches."""
        self.executed = 0
        self.certificates: list[Certificate] = []
        self.signed: dict[int, bytes] = {}
        """Round -> digest of the own block that was sent, over all lives."""
        self.dropped: list[BatchRef] = []
        self.caught_up = 0
        self.proposed_again: list[BatchRef] = []
        self.on_message: Callable[[Message, int], Message | None] = lambda message, _: message
        """An adversary's chance: sees each message and its receiver, returns what is sent."""

    def start(self) -> None:
        self.life += 1
        self.alive = True
        self._queue: deque[Effect] = deque()
        self._writing = False
        self._wake: int | None = None
        genesis = self.world.genesis
        committee = genesis.committee()
        recovered = recover(self.journal.journalled, genesis, committee, self.index, VERIFIER)
        self.core = ValidatorCore(
            genesis=genesis,
            committee=committee,
            own=self.index,
            signer=signer(self.index),
            verifier=VERIFIER,
            recovered=recovered,
            executed_index=self.executed,
        )
        self.act(list)
        for peer in self.world.validators:
            if peer is not self and peer.alive:
                self.world.later(self, 1, lambda p=peer: self.event(PeerUp(p.index)))
                self.world.later(peer, 1, lambda p=peer: p.event(PeerUp(self.index)))

    def crash(self, lost_writes: int = 0) -> None:
        self.alive = False
        self.life += 1
        self.journal = self.journal.crash(lost_writes)

    def event(self, event: Any) -> None:
        self.act(lambda: self.core.handle(event, self.world.now_ms))

    def act(self, call: Callable[[], Sequence[Effect]]) -> None:
        if not self.alive:
            return
        self.carry_out(call())
        self.carry_out(self.core.tick(self.world.now_ms))
        wake = self.core.wake_ms()
        if wake is not None and (self._wake is None or wake < self._wake):
            self._wake = wake
            self.world.later(self, max(wake - self.world.now_ms, 0), self._woken, wake)

    def _woken(self, wake: int) -> None:
        if wake == self._wake:
            self._wake = None
            self.act(list)

    def carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Run):
                self._run(effect)
            else:
                self._queue.append(effect)
        self._release()

    def _run(self, effect: Run) -> None:
        result = effect.call()
        self.world.later(
            self,
            self.world.rng.randrange(1, 4),
            lambda: self.act(lambda: effect.then(result, self.world.now_ms)),
        )

    def _release(self) -> None:
        while self._queue and not self._writing and self.alive:
            effect = self._queue.popleft()
            match effect:
                case Persist(writes=writes):
                    self._writing = True
                    self.world.later(self, self.world.rng.randrange(1, 6), self._written, writes)
                case ToPeers(message=message, peers=peers):
                    self._send(message, peers)
                case ToRoom(room=room, event=event):
                    self._to_room(room, event)
                case Halt(reason=reason):
                    self.halted = reason
                    self.alive = False

    def _written(self, writes: Sequence[Any]) -> None:
        self.journal.write(writes)
        self._writing = False
        self._release()

    def _send(self, message: Message, peers: tuple[int, ...] | None) -> None:
        MESSAGE_CODEC.decode(encode(message))
        if isinstance(message, DagBlocks):
            for data in message.blocks:
                block = decode_dag_block(data)
                if block.ref.author == self.index:
                    known = self.signed.setdefault(block.ref.round, block.digest)
                    assert known == block.digest, f"{self.index} signed twice in {block.ref.round}"
        for peer in self.world.validators:
            if peer is not self and (peers is None or peer.index in peers):
                changed = self.on_message(message, peer.index)
                if changed is not None:
                    self.world.transmit(self, peer, changed)

    def _to_room(self, room: Room, event: Any) -> None:
        match event:
            case CommitReady():
                self._execute(event)
            case FetchBatches(refs=refs):
                digests = tuple(ref.digest for _, ref in refs)
                self.world.later(self, 20, lambda: self.event(BatchesHeld(digests)))
            case BatchesDropped(refs=refs):
                self.dropped += refs
            case CheckpointCertified(certificate=certificate) if room == Room.GATEWAY:
                self.certificates.append(certificate)
            case CatchUp(peers=peers):
                self.world.later(self, 50, lambda: self._catch_up(peers))

    def _execute(self, ready: CommitReady) -> None:
        commit = ready.commit
        known = self.commits.setdefault(commit.index, commit)
        assert known == commit, f"another commit {commit.index}"
        if commit.index <= self.executed:
            return
        assert commit.index == self.executed + 1, f"{commit.index} after {self.executed}"
        self.executed = commit.index
        self.batches += ready.batches
        if ready.batches:
            self.loaded.append(commit.index)
        index = commit.index
        self.world.later(self, 2, lambda: self.event(CommitsExecuted(index)))
        if index % COMMITS_PER_CHECKPOINT == 0:
            self.world.acting = self
            made = CheckpointMade(self.world.checkpoint(commit))
            self.world.later(self, 2, lambda: self.event(made))

    def _catch_up(self, peers: Sequence[int]) -> None:
        """Takes the commits up to the newest certificate of a peer."""
        holders = [self.world.validators[p] for p in peers if self.world.validators[p].certificates]
        if not holders:
            return
        source = max(holders, key=lambda v: v.certificates[-1].checkpoint.height)
        certificate = source.certificates[-1]
        last = certificate.checkpoint.commit_index
        if last > self.executed:
            self.caught_up += 1
            for index in range(self.executed + 1, last + 1):
                self.commits[index] = source.commits[index]
            self.executed = last
        gc_round = self.commits[last].leader.round - self.world.genesis.parameters.gc_depth
        commits = [self.commits[last]]
        while commits[0].index > 1 and self.commits[commits[0].index - 1].leader.round > gc_round:
            commits.insert(0, self.commits[commits[0].index - 1])
        self.event(CaughtUp(certificate, tuple(commits)))


class World:
    """Validators and the network between them, from one seed."""

    def __init__(
        self, genesis: Genesis, seed: int = 0, delay_ms: tuple[int, int] = (2, 20)
    ) -> None:
        self.genesis = genesis
        self.rng = Random(seed)
        self.now_ms = START_MS
        self.delay_ms = delay_ms
        self.delay_of: Callable[[int, int], tuple[int, int]] = lambda sender, receiver: (
            self.delay_ms
        )
        self.loss = 0.0
        self.cut: Callable[[int, int], bool] = lambda sender, receiver: False
        self.acting: Validator | None = None
        """Who executes a checkpoint."""
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self.validators: list[Validator] = []
        self.validators = [Validator(self, i) for i in range(len(genesis.members))]

    def start(self, *indices: int) -> None:
        for index in indices or range(len(self.validators)):
            self.validators[index].start()

    def later(
        self, owner: Validator, delay_ms: int, call: Callable[..., object], *args: Any
    ) -> None:
        """Calls in `delay_ms`, unless `owner` has died or been restarted by then."""
        life = owner.life
        self._count += 1
        number = self._count

        def run() -> None:
            if owner.alive and owner.life == life:
                if owner.stopped_until_ms > self.now_ms:
                    heapq.heappush(self._events, (owner.stopped_until_ms, number, run))
                else:
                    call(*args)

        heapq.heappush(self._events, (self.now_ms + delay_ms, number, run))

    def transmit(self, sender: Validator, receiver: Validator, message: Message) -> None:
        if self.rng.random() < self.loss or self.cut(sender.index, receiver.index):
            return
        delay_ms = self.rng.randrange(*self.delay_of(sender.index, receiver.index))
        event = FromPeer(sender.index, message)
        self.later(receiver, delay_ms, lambda: receiver.event(event))

    def run(self, duration_ms: int) -> None:
        """Runs for virtual time."""
        end_ms = self.now_ms + duration_ms
        while self._events and self._events[0][0] <= end_ms:
            self.now_ms, _, call = heapq.heappop(self._events)
            call()
        self.now_ms = end_ms

    def load(self, every_ms: int, count: int) -> None:
        """Batches of all validators in turn become ready, one each `every_ms`."""
        for number in range(count):
            author = number % len(self.validators)
            at = self.now_ms + every_ms * (number + 1)
            self._count += 1

            def ready(author: int = author, number: int = number) -> None:
                self.ready(author, number)

            heapq.heappush(self._events, (at, self._count, ready))

    def ready(self, author: int, number: int) -> BatchRef:
        """A batch is held by all: its author may propose it."""
        ref = BatchRef(
            0, number, hash32(BLOCK, b"batch", bytes([author]), number.to_bytes(8, "big"))
        )
        for validator in self.validators:
            own = validator.index == author
            event = BatchReady(ref) if own else BatchesHeld((ref.digest,))
            if validator.stopped_until_ms > self.now_ms:
                self.later(validator, 0, validator.event, event)
            elif validator.alive:
                validator.event(event)
        return ref

    def checkpoint(self, commit: Commit) -> Checkpoint:
        digest = commit.digest()
        return Checkpoint(
            chain_id=self.genesis.chain_id(),
            height=commit.index,
            block_hash=hash32(BLOCK, digest),
            state_root=hash32(STATE_NODE, digest),
            commit_index=commit.index,
            commit_digest=digest,
            committee=self.genesis.committee().digest,
            epoch=0,
            version=1,
        )

    def assert_agreement(self) -> int:
        """All ledgers hold prefixes of one chain; returns the length of the shortest."""
        longest = max(self.validators, key=lambda v: max(v.commits, default=0)).commits
        for validator in self.validators:
            for index, commit in validator.commits.items():
                assert longest[index] == commit
        for index in range(2, len(longest) + 1):
            assert longest[index].previous == longest[index - 1].digest()
        return min(max(v.commits, default=0) for v in self.validators)
