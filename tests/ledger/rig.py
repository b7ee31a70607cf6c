"""A ledger under test with a mempool and a validator that do as they are told."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from qnet_actors.crypto import BatchVerifier, KeyPair, Signer, development_key, simulator_provider
from qnet_actors.ledger import LedgerCore, MemoryLog, committee_of, recover
from qnet_actors.ledger.blocks import Tip
from qnet_actors.rooms import (
    BlockExecuted,
    Bodies,
    BodiesWanted,
    CommitReady,
    Effect,
    FromPeer,
    Halt,
    Persist,
    Room,
    Run,
    ToPeers,
    ToRoom,
)
from qnet_actors.wire.batches import Batch
from qnet_actors.wire.blocks import Certificate, CertificateVote, Checkpoint
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.messages import Message
from qnet_actors.wire.schemes import CONTEXT_CHECKPOINT, Scheme
from tests.ledger.world import refs

PROVIDER = simulator_provider()
VERIFIER = BatchVerifier(PROVIDER)


def keys(count: int = 4) -> list[KeyPair]:
    return [development_key("validator", i, Scheme.KEYED_HASH, PROVIDER) for i in range(count)]


def certify(genesis: Genesis, checkpoint: Checkpoint, authors: Sequence[int]) -> Certificate:
    """A certificate with the signatures of `authors`, whose keys are `keys()`."""
    pairs = keys(len(genesis.members))
    votes = [
        CertificateVote(a, Signer(pairs[a], PROVIDER).sign(checkpoint.digest(), CONTEXT_CHECKPOINT))
        for a in authors
    ]
    return Certificate(checkpoint, tuple(votes))


class Rig:
    """Carries out effects at once, or piece by piece; keeps what went out."""

    def __init__(self, genesis: Genesis, log: MemoryLog | None = None, **options: Any) -> None:
        """The ledger of the epoch that the log is in."""
        self.genesis = genesis
        self.log = log or MemoryLog()
        recovered = recover(self.log, genesis)
        self.state = recovered.state
        self.committee = committee_of(self.state, genesis)
        self.core = LedgerCore(
            genesis=genesis,
            committee=self.committee,
            verifier=VERIFIER,
            recovered=recovered,
            log=self.log,
            **options,
        )
        self.now_ms = 0
        self.batches: dict[bytes, Batch] = {}
        self.executed: list[BlockExecuted] = []
        self.to_validator: list[Any] = []
        self.to_gateway: list[Any] = []
        self.sent: list[tuple[Any, tuple[int, ...] | None]] = []
        self.halted: str | None = None
        self.hold_runs = False
        self.held: deque[Run] = deque()
        self.hold_writes = False
        self.unwritten: deque[Any] = deque()
        self.asked: list[BodiesWanted] = []
        self.hold_bodies = False
        self.carry_out(self.core.tick(0))

    @property
    def tip(self) -> Tip:
        return self.core.tip

    def commit(self, commit: Commit, batches: Sequence[Batch] = ()) -> None:
        self.batches.update({batch.digest: batch for batch in batches})
        self.handle(CommitReady(commit, refs(batches)))

    def handle(self, event: Any) -> None:
        self.carry_out(self.core.handle(event, self.now_ms))
        self.carry_out(self.core.tick(self.now_ms))

    def receive(self, peer: int, message: Message) -> None:
        self.handle(FromPeer(peer, message))

    def at(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.carry_out(self.core.tick(now_ms))

    def run_next(self) -> None:
        run = self.held.popleft()
        self.carry_out(run.then(run.call(), self.now_ms))
        self.carry_out(self.core.tick(self.now_ms))

    def write_all(self) -> None:
        """Makes durable what waits, and lets out what stood behind it."""
        self.hold_writes = False
        waiting, self.unwritten = self.unwritten, deque()
        self.carry_out(waiting)

    def carry_out(self, effects: Sequence[Effect] | deque[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Run):
                if self.hold_runs:
                    self.held.append(effect)
                else:
                    self.carry_out(effect.then(effect.call(), self.now_ms))
            elif self.hold_writes and (self.unwritten or isinstance(effect, Persist)):
                self.unwritten.append(effect)
            else:
                self._carry_out_one(effect)

    def _carry_out_one(self, effect: Effect) -> None:
        match effect:
            case Persist(writes):
                self.log.write(writes)
            case ToPeers(message, peers):
                self.sent.append((message, peers))
            case ToRoom(Room.MEMPOOL, BodiesWanted() as wanted):
                self.asked.append(wanted)
                if not self.hold_bodies:
                    self.answer(wanted)
            case ToRoom(Room.MEMPOOL, BlockExecuted() as event):
                self.executed.append(event)
            case ToRoom(Room.LEDGER, event):
                self.handle(event)
            case ToRoom(Room.VALIDATOR, event):
                self.to_validator.append(event)
            case ToRoom(Room.GATEWAY, event):
                self.to_gateway.append(event)
            case Halt(reason):
                self.halted = reason
            case _:
                pass

    def answer(self, wanted: BodiesWanted) -> None:
        batches = tuple(self.batches[digest] for digest in wanted.digests)
        self.handle(Bodies(wanted.commit_index, batches))
