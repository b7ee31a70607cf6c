"""The ledger of a validator: commits in, executed and durable blocks out."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from qnet_actors.ledger.blocks import BuiltBlock, Draft, Tip, identity_of, make_block
from qnet_actors.ledger.catchup import (
    CatchUpRun,
    Fetched,
    Refused,
    Rules,
    check_answer,
)
from qnet_actors.ledger.epochs import apply_and_look, install_and_look, prove_last, unknown_rules
from qnet_actors.ledger.execute import Execute, OpenBatch, execute, open_batches
from qnet_actors.ledger.joiner import Joiner
from qnet_actors.ledger.joining import (
    Manifest,
    PartKept,
)
from qnet_actors.ledger.outcome import LedgerState
from qnet_actors.ledger.pipeline import OutOfOrder, Pipeline
from qnet_actors.ledger.plan import SnapshotPlan, SnapshotSettings
from qnet_actors.ledger.recovery import Recovered, trim_commits
from qnet_actors.ledger.reference import Terms
from qnet_actors.ledger.registry import Epoch, read_epoch, rules_of
from qnet_actors.ledger.serving import Serving
from qnet_actors.ledger.verify import CheckedRecord
from qnet_actors.ledger.writes import (
    BlockReader,
    BlockWrite,
    CertificateWrite,
    JoinedWrite,
    SnapshotWrite,
)
from qnet_actors.rooms import (
    BlockExecuted,
    Bodies,
    CatchUp,
    CaughtUp,
    CheckpointCertified,
    CheckpointMade,
    CommitReady,
    CommitsExecuted,
    Effect,
    EpochEnds,
    FromPeer,
    Halt,
    Joined,
    NextEpoch,
    PeerUp,
    Persist,
    Room,
    Run,
    ToPeers,
    ToRoom,
)
from qnet_actors.wire.batches import Batch
from qnet_actors.wire.blocks import Certificate, Checkpoint
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.messages import LedgerBlocks, LedgerRequest, SnapshotPart, SnapshotRequest
from qnet_actors.wire.schemes import Verifier

_CHECKPOINTS_KEPT: Final = 128
S = TypeVar("S", bound=LedgerState)


@dataclass(frozen=True, slots=True)
class _Made:
    """What executing a draft came to."""

    block: BuiltBlock
    tip: Tip
    snapshot: SnapshotWrite | None
    epoch: Epoch


class LedgerCore:
    """Executes commits in order, one block at a time, while the bodies of the next are fetched.

    `state` stands at `recovered.tip` and belongs to the ledger: it is changed inside `Run`, of
    which one that changes it is under way at a time.  `log` is read only; writes are effects.
    `run` executes the transactions of a block.
    """

    def __init__(
        self,
        *,
        genesis: Genesis,
        committee: Committee,
        verifier: Verifier,
        recovered: Recovered[LedgerState],
        log: BlockReader,
        snapshots: SnapshotSettings | None = None,
        run: Execute = execute,
    ) -> None:
        self._rules: Final = Rules(identity_of(genesis, committee), committee, verifier)
        self._committee: Final = committee
        self._genesis: Final = genesis
        self._parameters: Final = rules_of(recovered.state, genesis, committee.epoch).parameters
        self._state: Final[LedgerState] = recovered.state
        self._run: Final = run
        self._terms: Final = Terms(genesis, verifier)
        self._tip = recovered.tip
        self._certificate = recovered.certificate
        self._checkpoint = recovered.checkpoint
        self._commits: deque[Commit] = deque(recovered.commits)
        self._made_digests: dict[int, bytes] = {}
        self._pipeline = Pipeline(self._parameters, recovered.tip)
        self._epoch = read_epoch(recovered.state)
        self._pipeline.end_epoch(self._epoch_end)
        self._handed_over = False
        self._serving = Serving(log)
        self._catch_up: CatchUpRun | None = None
        self._executing = False
        self._started = False
        self._log: Final = log
        self._snapshots: Final = snapshots or SnapshotSettings()
        gc_depth = self._parameters.gc_depth
        self._joiner: Final = Joiner(self._rules, log, gc_depth, self.tick)
        self._plan: Final = SnapshotPlan(
            self._snapshots.every_bytes, gc_depth, recovered.bytes_since_snapshot, recovered.commits
        )

    @property
    def tip(self) -> Tip:
        """The last executed block; what follows from it is durable only once effects say so."""
        return self._tip

    @property
    def final_height(self) -> int:
        """The height of the newest certified checkpoint; 0: none."""
        return 0 if self._certificate is None else self._certificate.checkpoint.height

    @property
    def epoch_ended(self) -> bool:
        """Whether the last block of the committee's epoch is executed."""
        return self._epoch.number > self._committee.epoch

    @property
    def _epoch_end(self) -> int:
        """The last commit of the committee's epoch; 0: not known yet."""
        return self._epoch.end_of(self._committee.epoch)

    def handed_over(self, state: S) -> Recovered[S] | None:
        """What the ledger of the next epoch starts from, once all writes are durable: the same as
        from the log, without reading it.  None: the log is to be read.

        `state` is the one that this ledger was given.
        """
        if state is not self._state or self._executing or not self._handed_over:
            return None
        return Recovered(
            state,
            self._tip,
            tuple(self._commits),
            self._checkpoint,
            self._certificate,
            self._plan.bytes_since,
        )

    @property
    def catching_up(self) -> bool:
        return self._catch_up is not None

    def handle(self, event: Any, now_ms: int) -> Sequence[Effect]:
        try:
            match event:
                case CommitReady():
                    return self._commit_ready(event)
                case Bodies(commit_index=index, batches=batches):
                    return self._bodies(index, batches)
                case CheckpointCertified(certificate=certificate):
                    return self._certified(certificate)
                case CatchUp(peers=peers, height=height):
                    return self._start_catch_up(peers, height, now_ms)
                case FromPeer(peer=peer, message=(LedgerRequest() | SnapshotRequest()) as request):
                    return self._serving.asked(peer, request, now_ms)
                case FromPeer(peer=peer, message=SnapshotPart() as part):
                    return self._joiner.part_came(peer, part, now_ms)
                case PartKept(height=height, part=number):
                    return self._joiner.part_kept(height, number, now_ms)
                case FromPeer(peer=peer, message=LedgerBlocks() as answer):
                    return self._answered(peer, answer, now_ms)
                case PeerUp() | FromPeer():
                    return ()
                case _:
                    raise TypeError(f"the ledger does not take {type(event).__name__}")
        except OutOfOrder as error:
            return (Halt(str(error)),)

    def tick(self, now_ms: int) -> Sequence[Effect]:
        effects: list[Effect] = []
        if not self._started:
            self._started = True
            effects.extend(self._announce())
        effects.extend(self._serving.tick(now_ms))
        effects.extend(self._go_on_joining(now_ms))
        run = self._catch_up
        if run is not None and not self._joiner.active and not self._executing:
            if run.is_late(now_ms):
                effects.extend(self._fruitless(run, now_ms))
            first = self._tip.height + (not self.epoch_ended)
            if self._catch_up is not None and (asked := run.ask(first, now_ms)) is not None:
                peer, request = asked
                effects.append(ToPeers(request, (peer,)))
        effects.extend(self._advance())
        return effects

    def wake_ms(self) -> int | None:
        if not self._started:
            return 0
        times = [self._serving.wake_ms()]
        if not self._executing:
            if self._joiner.active:
                times.append(self._joiner.wake_ms())
            elif self._catch_up is not None:
                times.append(self._catch_up.wake_ms())
        return min((time for time in times if time is not None), default=None)

    def _announce(self) -> list[Effect]:
        """Where this validator stands after a start; the vote for the last checkpoint may lack."""
        effects: list[Effect] = []
        if self._epoch_end:
            effects.append(ToRoom(Room.VALIDATOR, EpochEnds(self._epoch_end)))
        if self._tip.commit_index:
            effects.append(ToRoom(Room.VALIDATOR, CommitsExecuted(self._tip.commit_index)))
        if self._checkpoint is not None and self._checkpoint.height > self.final_height:
            self._made_digests[self._checkpoint.height] = self._checkpoint.digest()
            effects.append(ToRoom(Room.VALIDATOR, CheckpointMade(self._checkpoint)))
        return effects

    # Commits

    def _commit_ready(self, ready: CommitReady) -> Sequence[Effect]:
        index = ready.commit.index
        if index >= self._pipeline.next_index:
            self._pipeline.add(ready)
            return self._advance()
        known = self._pipeline.known_digest(index) or self._executed_digest(index)
        if known is not None and known != ready.commit.digest():
            raise OutOfOrder(f"commit {index} differs from the one that is known here")
        return ()

    def _executed_digest(self, index: int) -> bytes | None:
        """The digest of a commit that was executed not long ago."""
        if self._commits and 0 <= (at := index - self._commits[0].index) < len(self._commits):
            return self._commits[at].digest()
        return None

    def _bodies(self, index: int, batches: tuple[Batch, ...]) -> Sequence[Effect]:
        if not self._pipeline.arrived(index, batches):
            return ()
        return (Run(partial(open_batches, batches), partial(self._opened, index)),)

    def _opened(self, index: int, batches: tuple[OpenBatch, ...], now_ms: int) -> Sequence[Effect]:
        self._pipeline.opened(index, batches)
        return self._advance()

    def _advance(self) -> list[Effect]:
        """Asks for bodies, and executes what is cut unless something is being executed."""
        effects: list[Effect] = [ToRoom(Room.MEMPOOL, w) for w in self._pipeline.wanted()]
        blocked = self._catch_up is not None and self._catch_up.blocking
        if not self._executing and not blocked:
            draft = self._pipeline.next_draft()
            if draft is not None:
                self._executing = True
                effects.append(Run(partial(self._make, draft, self._tip), self._made))
        return effects

    def _make(self, draft: Draft, tip: Tip) -> _Made:
        """Executes a draft on the state; runs off the event loop."""
        block, tip = make_block(
            self._rules.identity, self._committee, tip, draft, self._state, self._run, self._terms
        )
        record, size = block.write.record, len(block.write.encoded)
        snapshot = self._plan.executed(record, size, self._state)
        return _Made(block, tip, snapshot, read_epoch(self._state))

    def _made(self, made: _Made, now_ms: int) -> Sequence[Effect]:
        self._executing = False
        self._pipeline.executed(made.tip)
        write = made.block.write
        effects: list[Effect] = [Persist((write,))]
        effects.extend(self._tell_executed(write, made.block.batches, made.block.excluded))
        effects.extend(self._move_epoch(made.epoch))
        if made.tip.commit_index > self._tip.commit_index:
            effects.append(ToRoom(Room.VALIDATOR, CommitsExecuted(made.tip.commit_index)))
        self._move_to(made.tip)
        checkpoint = write.record.checkpoint
        if checkpoint is not None:
            self._remember_checkpoint(checkpoint)
            effects.append(ToRoom(Room.VALIDATOR, CheckpointMade(checkpoint)))
        if made.snapshot is not None:
            effects.append(Persist((made.snapshot,)))
        effects.extend(self._advance())
        return effects

    def _move_epoch(self, epoch: Epoch) -> list[Effect]:
        """What a block did to the epoch; the validator hears of an end before it could pass it."""
        before, self._epoch = self._epoch_end, epoch
        if (end := self._epoch_end) == before:
            return []
        try:
            self._pipeline.end_epoch(end)
        except OutOfOrder as error:
            return [Halt(str(error))]
        return [ToRoom(Room.VALIDATOR, EpochEnds(end))]

    def _hand_over(self) -> list[Effect]:
        """Once the last block of the epoch is certified, the next one begins, if it is known."""
        certificate = self._certificate
        if (
            self._handed_over
            or not self.epoch_ended
            or certificate is None
            or certificate.checkpoint.height < self._tip.height
        ):
            return []
        if (unknown := unknown_rules(self._state, self._genesis)) is not None:
            return [Halt(unknown)]
        self._handed_over = True
        return [NextEpoch(self._epoch.number)]

    def _tell_executed(
        self, write: BlockWrite, batches: tuple[bytes, ...], excluded: tuple[bytes, ...]
    ) -> list[Effect]:
        self._commits.extend(write.record.commits)
        event = BlockExecuted(write.record, write.block_hash, batches, excluded)
        return [ToRoom(Room.MEMPOOL, event), ToRoom(Room.GATEWAY, event)]

    def _move_to(self, tip: Tip) -> None:
        self._tip = tip
        trim_commits(self._commits, self._parameters.gc_depth)

    # Checkpoints

    def _remember_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._made_digests[checkpoint.height] = checkpoint.digest()
        while len(self._made_digests) > _CHECKPOINTS_KEPT:
            del self._made_digests[min(self._made_digests)]

    def _certified(self, certificate: Certificate) -> Sequence[Effect]:
        checkpoint = certificate.checkpoint
        made = self._made_digests.get(checkpoint.height)
        if made is not None and made != checkpoint.digest():
            return (
                Halt(
                    f"diverged: certified at height {checkpoint.height} is "
                    f"{checkpoint.digest().hex()}, executed here is {made.hex()}"
                ),
            )
        if checkpoint.height <= self.final_height:
            return ()
        self._certificate = certificate
        self._plan.certified(checkpoint.height)
        return (Persist((CertificateWrite(certificate),)), *self._hand_over())

    # Catching up

    def _start_catch_up(self, peers: tuple[int, ...], height: int, now_ms: int) -> Sequence[Effect]:
        if not peers:
            return ()
        if self._catch_up is None:
            self._catch_up = CatchUpRun(peers, now_ms)
        else:
            self._catch_up.offer(peers)
        run, height_min = self._catch_up, self._tip.height + self._snapshots.ahead_blocks_min
        effects: list[Effect] = []
        if height >= height_min and not run.blocking:
            effects.extend(self._start_join(run, height_min))
        return [*effects, *self.tick(now_ms)]

    def _answered(self, peer: int, answer: LedgerBlocks, now_ms: int) -> Sequence[Effect]:
        run = self._catch_up
        if run is None or not run.take(peer):
            return ()
        if self.epoch_ended:
            # All of the epoch is executed here, and only its last certificate is wanting.
            prove = partial(prove_last, self._rules, self._checkpoint, answer.certificate)
            return (Run(prove, partial(self._last_proved, run)),)
        if not answer.records:
            effects = self._fruitless(run, now_ms)
            newest = answer.certificate
            if newest is not None and newest.checkpoint.height > self._tip.height:
                # The peer has no blocks so old: it may have joined itself.
                effects += self._start_join(run, self._tip.height + 1)
                effects += self.tick(now_ms)
            return effects
        check = partial(check_answer, self._rules, self._tip, run.held, answer)
        return (Run(check, partial(self._checked, run)),)

    def _last_proved(
        self, run: CatchUpRun, certificate: Certificate | None, now_ms: int
    ) -> Sequence[Effect]:
        if certificate is None:
            return self._fruitless(run, now_ms)
        return self._certified(certificate)

    def _checked(self, run: CatchUpRun, result: Fetched | Refused, now_ms: int) -> Sequence[Effect]:
        if isinstance(result, Refused):
            return self._fruitless(run, now_ms)
        if result.certificate is None:
            if not run.keep(result.records, now_ms):
                return self._fruitless(run, now_ms)
            return self.tick(now_ms)
        proved, rest = result.records[: result.certified], result.records[result.certified :]
        call = partial(apply_and_look, self._state, proved, result.certificate, self._plan)
        return (Run(call, partial(self._applied, run, proved, rest, result.certificate)),)

    def _applied(
        self,
        run: CatchUpRun,
        proved: tuple[CheckedRecord, ...],
        rest: tuple[CheckedRecord, ...],
        certificate: Certificate,
        applied: tuple[list[BlockWrite | SnapshotWrite], Epoch],
        now_ms: int,
    ) -> Sequence[Effect]:
        writes, epoch = applied
        try:
            self._pipeline.restart(proved[-1].tip)
        except OutOfOrder as error:
            return (Halt(str(error)),)
        self._certificate = certificate
        effects: list[Effect] = [Persist((*writes, CertificateWrite(certificate)))]
        for write in writes:
            if isinstance(write, BlockWrite):
                effects.extend(self._tell_executed(write, (), ()))
        self._remember_checkpoint(certificate.checkpoint)
        effects.extend(self._move_epoch(epoch))
        if proved[-1].tip.commit_index > self._tip.commit_index:
            effects.append(ToRoom(Room.VALIDATOR, CommitsExecuted(proved[-1].tip.commit_index)))
        self._move_to(proved[-1].tip)
        run.took(rest, len(proved), now_ms)
        if handed_over := self._hand_over():
            return [*effects, *handed_over]
        effects.extend(self.tick(now_ms))
        return effects

    def _fruitless(self, run: CatchUpRun, now_ms: int) -> list[Effect]:
        """A peer had nothing more, lied or was silent: enough, or the next one's turn."""
        done = run.applied > 0
        run.failed(now_ms)
        if not done and not run.exhausted:
            return []
        certificate = self._certificate
        if certificate is None:
            # Nobody has a certified checkpoint: there is none yet, and the run goes on.  Or nobody
            # has blocks so old, and a snapshot may be tried again.
            run.may_join = True
            return [ToRoom(Room.VALIDATOR, CaughtUp(None, ()))]
        self._catch_up = None
        commits = tuple(c for c in self._commits if c.index <= certificate.checkpoint.commit_index)
        return [ToRoom(Room.VALIDATOR, CaughtUp(certificate, commits))]

    # Joining from a snapshot

    def _start_join(self, run: CatchUpRun, height_min: int) -> Sequence[Effect]:
        """Once in a run."""
        if self._catch_up is not run or self._joiner.active or not run.may_join:
            return ()
        run.may_join = False
        return self._joiner.start(run.peers, height_min)

    def _go_on_joining(self, now_ms: int) -> Sequence[Effect]:
        peers = None if self._catch_up is None else self._catch_up.peers
        effects = self._joiner.go_on(self._tip.height, peers, now_ms)
        manifest = self._joiner.complete
        if manifest is None or self._executing:
            return effects
        self._executing = True
        call = partial(install_and_look, self._state, self._log, manifest)
        return [*effects, Run(call, partial(self._installed, manifest))]

    def _installed(self, manifest: Manifest, epoch: Epoch, now_ms: int) -> Sequence[Effect]:
        """The state is that of the snapshot, and the log goes on from its block."""
        self._executing = False
        self._joiner.installed()
        tip, certificate = manifest.tip, manifest.wire.certificate
        try:
            self._pipeline.restart(tip)
        except OutOfOrder as error:
            return (Halt(str(error)),)
        self._certificate = certificate
        self._commits = deque(manifest.wire.commits)
        self._plan.joined(manifest.wire.commits)
        self._remember_checkpoint(certificate.checkpoint)
        self._move_to(tip)
        if self._catch_up is not None:
            self._catch_up.took((), 1, now_ms)
        joined = Joined(manifest.record, tip.block_hash)
        return [
            Persist((JoinedWrite(manifest.block, certificate),)),
            ToRoom(Room.MEMPOOL, joined),
            ToRoom(Room.GATEWAY, joined),
            *self._move_epoch(epoch),
            ToRoom(Room.VALIDATOR, CommitsExecuted(tip.commit_index)),
            *self._hand_over(),
            *self.tick(now_ms),
        ]
