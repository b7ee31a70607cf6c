"""The core of a validator: joins DAG, commit rule, pacemaker, synchronizer and journal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from qnet_actors.rooms import (
    BatchesDropped,
    BatchesExpiring,
    BatchesHeld,
    BatchesReleased,
    BatchReady,
    CaughtUp,
    CheckpointCertified,
    CheckpointMade,
    CommitsExecuted,
    Effect,
    EpochEnds,
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
from qnet_actors.validators.catching_up import CatchingUp
from qnet_actors.validators.checkpoints import Checkpoints, Diverged
from qnet_actors.validators.checks import BlockRules, Checked, Scope
from qnet_actors.validators.committer import BrokenAssumption
from qnet_actors.validators.custody import Custody
from qnet_actors.validators.dag import Dag
from qnet_actors.validators.evidence import EvidenceBook
from qnet_actors.validators.intake import Intake
from qnet_actors.validators.journal_entries import (
    RoundMinEntry,
    SnapshotEntry,
)
from qnet_actors.validators.journal_writer import JournalWriter, snapshot_of
from qnet_actors.validators.memory import MemoryGuard
from qnet_actors.validators.ordering import Ordering
from qnet_actors.validators.pacemaker import Pacemaker, Surroundings
from qnet_actors.validators.peers import Archive, Peers
from qnet_actors.validators.proposer import Proposer
from qnet_actors.validators.recovery import Recovered, first_snapshot
from qnet_actors.validators.status import ValidatorStatus
from qnet_actors.validators.synchronizer import Synchronizer
from qnet_actors.wire.blocks import Certificate, Checkpoint
from qnet_actors.wire.codes import Code
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import CheckpointVote, Commit, DagBlock, DagHeader
from qnet_actors.wire.genesis import Genesis, Parameters
from qnet_actors.wire.limits import DAG_BLOCK_BATCHES_MAX, MESSAGE_DAG_BLOCKS_MAX
from qnet_actors.wire.messages import DagBlocks, DagRequest, Evidence, PeerStatus
from qnet_actors.wire.schemes import CONTEXT_CHECKPOINT, Signer, Verifier, dag_context

ROUNDS_AHEAD_MAX: Final = 256
STATUS_MS: Final = 1_000


class ValidatorCore:
    """Consensus of one validator.  Pure: see `rooms` for what its driver owes it.

    `handle` takes in, `tick` acts on what was taken in; a driver ticks after every event.
    """

    def __init__(
        self,
        *,
        genesis: Genesis,
        committee: Committee,
        own: int,
        signer: Signer,
        verifier: Verifier,
        recovered: Recovered,
        executed_index: int | None = None,
        epoch_end: int = 0,
        parameters: Parameters | None = None,
    ) -> None:
        """`executed_index`: the last commit that the ledger has executed durably; None: unknown,
        which hands it again what the journal does not know to be executed.  `epoch_end`: the last
        commit of the epoch; 0: not known yet.  `parameters`: of the epoch; None: the genesis'.

        Raises `QnetError(DATA_CORRUPT)` where what was recovered does not fit together.
        """
        if executed_index is not None:
            # The ledger's word, also where it is less than the journal's: its log may be lost.
            recovered = replace(recovered, executed_index=executed_index)
        self._genesis: Final = genesis
        self._committee: Final = committee
        self._own: Final = own
        self._signer: Final = signer
        self._rules: Final = BlockRules(committee, verifier, genesis.chain_id())
        self._dag: Final = Dag(committee)
        self._ordering: Final = Ordering(genesis, committee, self._dag, recovered)
        self._linearizer: Final = self._ordering.linearizer
        self._queue: Final = self._ordering.queue
        self._queue.epoch_end = epoch_end or None
        self._dag.collect(self._linearizer.gc_round)
        self._synchronizer: Final = Synchronizer(self._dag, own, len(committee))
        self._archive: Final = Archive(2 * genesis.parameters.gc_depth)
        gc_depth = genesis.parameters.gc_depth
        self._peers: Final = Peers(self._dag, self._archive, committee, own, gc_depth)
        self._intake: Final = Intake(
            self._peers.indices, self._synchronizer.knows, self._synchronizer.is_spare
        )
        self._checkpoints: Final = Checkpoints(committee)
        self._custody: Final = Custody(self._dag, self._ordering, self._synchronizer, own)
        self._own_batches: Final = self._custody.own
        self._proposer: Final = Proposer(self._dag, committee, own, recovered.own)
        self._pacemaker: Final = Pacemaker(parameters or genesis.parameters, recovered.own.round)
        self._guard: Final = MemoryGuard(committee, own, recovered.own.round, recovered.round_min)
        self._journal: Final = JournalWriter(
            self._snapshot, self._dag.blocks, is_new=recovered.is_new
        )
        self._evidence: Final = EvidenceBook(self._rules, self._peers.indices, recovered.evidence)
        self._seen_rounds = [0] * len(committee)
        """Author -> the highest round of a valid block seen."""
        self._checking = False
        self._signing = False
        self._jump = False
        """Just synced, or memory was lost: rounds may be skipped once."""
        self._catching_up: Final = CatchingUp(self._peers)
        self._status_ms: int | None = None
        self._around = Surroundings()
        self._invalid_blocks = 0
        self._halted = False
        self._now_ms = 0
        self._wake_ms: int | None = 0
        self._stirred = True
        """More came since the last tick than blocks to check."""
        self._due: int | None = None
        self._first: list[Effect] = []
        """Effects of the recovery, for the first tick."""
        self._recover(recovered, executed_index)

    @property
    def status(self) -> ValidatorStatus:
        return ValidatorStatus(
            round=self._pacemaker.round,
            commit_index=self._linearizer.index,
            gc_round=self._linearizer.gc_round,
            commits_emitted=self._queue.emitted_count,
            certified_height=self._checkpoints.certified_height,
            dag_blocks=len(self._dag),
            waiting_blocks=self._synchronizer.waiting_count,
            invalid_blocks=self._invalid_blocks,
            dropped_blocks=self._intake.dropped + self._synchronizer.dropped,
            equivocations=self._evidence.count,
            timeouts=self._pacemaker.timeouts,
            split_height=self._checkpoints.split_height,
            memory_lost=self._guard.lost,
            catching_up=self._catching_up.waits,
        )

    @property
    def evidence(self) -> EvidenceBook:
        """Proof against equivocators."""
        return self._evidence

    def handle(self, event: Any, now_ms: int) -> Sequence[Effect]:
        """Takes in an event; `tick` acts on it."""
        if self._halted:
            return []
        self._now_ms = self._wake_ms = now_ms
        out: list[Effect] = []
        match event:
            case FromPeer(peer=peer, message=DagBlocks(blocks=blocks)) if peer in self._peers:
                self._intake.add(peer, blocks)
                return out
        self._stirred = True
        match event:
            case FromPeer(peer=peer, message=message) if peer in self._peers:
                match message:
                    case DagRequest(refs=refs):
                        answer = self._peers.serve(peer, refs, now_ms)
                        out += [ToPeers(part, (peer,)) for part in answer]
                    case PeerStatus():
                        self._on_status(peer, message, out)
                    case Evidence(equivocations=equivocations):
                        self._evidence.reported(peer, equivocations)
            case FromPeer(peer=peer, message=PeerStatus(epoch=e)) if e <= self._committee.epoch:
                # Who was left behind by its committee learns from this that there is a next, and
                # who only follows, how far it has to go.
                out.append(ToPeers(self._status_for(peer), (peer,)))
            case PeerUp(peer=peer) if peer in self._peers:
                self._peers.up(peer)
                self._evidence.up(peer)
                self._greet(peer, out)
            case BatchReady(ref=ref, quorum_ms=quorum_ms):
                self._pacemaker.quorum_took(quorum_ms)
                self._admitted(self._synchronizer.held((ref.digest,)))
                self._custody.ready(ref)
            case BatchesHeld(digests=digests):
                self._admitted(self._synchronizer.held(digests))
            case BatchesExpiring(digests=digests, shard=shard):
                # What is being signed is in no queue; then these are asked about again.
                released = () if self._signing else self._custody.release(digests)
                if released:
                    out.append(ToRoom(Room.MEMPOOL, BatchesReleased(released), shard))
            case CommitsExecuted(index=index):
                self._queue.executed(index)
            case EpochEnds(index=index):
                self._queue.epoch_end = index
            case CheckpointMade(checkpoint=checkpoint):
                self._on_checkpoint(checkpoint, out)
            case CaughtUp(certificate=certificate, commits=commits):
                self._on_caught_up(certificate, commits, out)
        return out

    def tick(self, now_ms: int) -> Sequence[Effect]:
        """Checks, commits, proposes and fetches what is due."""
        if self._halted:
            return []
        self._now_ms = now_ms
        out, self._first = self._first, []
        self._check(out)
        out += self._evidence.check()
        is_due = self._journal.is_due or (self._due is not None and now_ms >= self._due)
        if not (self._stirred or is_due):
            self._wake_ms = self._due
            return out
        self._stirred = False
        try:
            self._order(out)
            self._certify(out)
        except (BrokenAssumption, Diverged) as broken:
            self._halted = True
            out.append(Halt(f"{Code.DIVERGED.label}: {broken}"))
            return out
        self._emit(out)
        self._pace(out)
        self._fetch(out)
        self._report(out)
        if self._journal.is_due:
            out += self._journal.flush()
        self._wake_ms = self._due = self._due_ms()
        return out

    def wake_ms(self) -> int | None:
        """When the next `tick` is wanted."""
        return None if self._halted else self._wake_ms

    def _due_ms(self) -> int | None:
        """When something is due by time alone."""
        times = [self._synchronizer.wake_ms(), self._status_due_ms(), self._catching_up.until_ms]
        if not self._guard.may_sign(self._now_ms):
            times.append(self._guard.wake_ms(self._now_ms))
        elif not self._signing and self._dag.has_quorum(self._pacemaker.round - 1):
            times.append(self._pacemaker.wake_ms(self._around))
        return min((time for time in times if time is not None), default=None)

    # Blocks of others

    def _check(self, out: list[Effect]) -> None:
        """Starts a job over what came, one at a time; what comes meanwhile makes the next."""
        if self._checking:
            return
        received = self._intake.take()
        if not received:
            return
        self._checking = True
        round_max = max(self._dag.quorum_round, self._ordering.decided_round) + ROUNDS_AHEAD_MAX
        if self._is_paused():
            # While nothing is committed nothing is collected, so the DAG must not go on for ever.
            round_max = min(round_max, self._dag.gc_round + 2 * ROUNDS_AHEAD_MAX)
        scope = Scope(self._own, self._dag.gc_round, round_max, self._checkpoints.certified_height)
        out.append(Run(partial(self._rules.check, received, scope), self._checked))

    def _checked(self, verdicts: list[Checked], now_ms: int) -> Sequence[Effect]:
        self._checking, self._stirred = False, True
        self._now_ms = self._wake_ms = now_ms
        out: list[Effect] = []
        for verdict in verdicts:
            block = verdict.block
            if block is None:
                self._invalid_blocks += verdict.code != Code.NOT_READY
                continue
            out += self._take_in(block, verdict.received.peer)
            self._intake.note(verdict.received.data, block.digest)
            for vote in verdict.votes:
                self._checkpoints.add(block.ref.author, vote)
        return out

    def _take_in(self, block: DagBlock, peer: int) -> list[Effect]:
        """A valid block by anyone, from a peer."""
        ref = block.ref
        self._seen_rounds[ref.author] = max(self._seen_rounds[ref.author], ref.round)
        if ref.author == self._own and ref.round > self._pacemaker.last_round:
            # It carries this validator's signature, and the journal does not know of it.
            self._guard.forgot()
            self._guard.signed(ref.round)
            self._pacemaker.last_round = self._pacemaker.round = ref.round
            self._jump = True
        if self._synchronizer.knows(ref.digest):
            return []
        slot = (
            *self._dag.blocks_at(ref.round, ref.author),
            *self._synchronizer.waiting_at(ref.round, ref.author),
        )
        out = self._evidence.saw(slot[0], block) if slot else []
        self._admitted(self._synchronizer.offer(block, peer, self._now_ms))
        return out

    def _admitted(self, blocks: Iterable[DagBlock]) -> None:
        """Blocks that are in the DAG since now, ancestors first."""
        for block in blocks:
            self._journal.add((block,))
            self._account(block)

    def _account(self, block: DagBlock) -> None:
        """What an admitted block tells of its author, and of what is on its way."""
        self._peers.saw(block)
        if block.ref.author == self._own:
            self._proposer.made(block)
        self._custody.admitted(block)

    def _fetch(self, out: list[Effect]) -> None:
        for peer, refs in self._synchronizer.requests(self._now_ms):
            for start in range(0, len(refs), MESSAGE_DAG_BLOCKS_MAX):
                part = tuple(refs[start : start + MESSAGE_DAG_BLOCKS_MAX])
                out.append(ToPeers(DagRequest(part), (peer,)))
        for peer, named in self._synchronizer.fetches(self._now_ms):
            out.append(ToRoom(Room.MEMPOOL, FetchBatches(tuple(named), peer)))

    # Commits

    def _is_paused(self) -> bool:
        """Whether commits wait: for the ledger, or for blocks that name committed batches."""
        return self._catching_up.waits or not self._ordering.is_ready

    def _order(self, out: list[Effect]) -> None:
        """Commits what is decided."""
        self._catching_up.expire(self._now_ms)
        if not self._ordering.is_naming and not self._synchronizer.exempt_count:
            self._want_committed()
        while not self._is_paused():
            leaders = self._ordering.next_leaders()
            for leader in leaders:
                blocks = self._ordering.commit(leader)
                self._custody.committed(blocks)
                self._pacemaker.committed()
                self._collect(out)
            if not leaders:
                break

    def _collect(self, out: list[Effect]) -> None:
        """Drops what is at or below gc_round; own batches that were lost go back."""
        gc_round = self._linearizer.gc_round
        dropped = self._dag.collect(gc_round)
        self._archive.add(dropped, gc_round)
        lost = self._custody.collected(dropped, gc_round)
        if lost:
            out.append(ToRoom(Room.MEMPOOL, BatchesDropped(lost)))
        self._admitted(self._synchronizer.collected())

    def _emit(self, out: list[Effect]) -> None:
        """Hands over what the lag bound lets pass, after the journal."""
        ready = self._queue.take()
        if ready:
            out += self._journal.flush()
            out += [ToRoom(Room.LEDGER, item) for item in ready]

    # Checkpoints

    def _on_checkpoint(self, checkpoint: Checkpoint, out: list[Effect]) -> None:
        if not self._checkpoints.made(checkpoint):
            return
        digest = checkpoint.digest()

        def signed(signature: bytes, now_ms: int) -> Sequence[Effect]:
            vote = CheckpointVote(checkpoint.height, digest, signature)
            self._checkpoints.signed(self._own, vote)
            self._wake_ms, self._stirred = now_ms, True
            return []

        out.append(Run(partial(self._signer.sign, digest, CONTEXT_CHECKPOINT), signed))

    def _certify(self, out: list[Effect]) -> None:
        certificate = self._checkpoints.certify()
        if certificate is not None:
            event = CheckpointCertified(certificate)
            out += [ToRoom(room, event) for room in (Room.LEDGER, Room.MEMPOOL, Room.GATEWAY)]

    # Rounds and own blocks

    def _pace(self, out: list[Effect]) -> None:
        if self._guard.admitted(self._dag.highest_round):
            self._jump = True
            out.append(Persist((RoundMinEntry(self._guard.round_min),)))
        if self._signing:
            return
        pacemaker, quorum_round = self._pacemaker, self._dag.quorum_round
        jump = self._jump or pacemaker.last_round <= self._dag.gc_round
        if self._dag.has_quorum(quorum_round) and pacemaker.enter(
            quorum_round, jump, self._guard.round_min, self._now_ms
        ):
            self._push(out)
        if pacemaker.waits_for_quorum or not self._dag.has_quorum(pacemaker.round - 1):
            return
        self._around = self._surroundings()
        if self._guard.may_sign(self._now_ms) and pacemaker.due(self._around, self._now_ms):
            self._propose(out)

    def _surroundings(self) -> Surroundings:
        round_, committer = self._pacemaker.round, self._ordering.committer
        leader = committer.leader(round_ - 1)
        return Surroundings(
            leader=leader,
            leader_here=round_ == 1 or bool(self._dag.blocks_at(round_ - 1, leader)),
            leader_before=committer.leader(max(0, round_ - 2)),
            settled=round_ <= 2 or committer.settled(round_ - 2),
            quorum_here=self._dag.has_quorum(round_),
            idle=self._is_idle(),
            saturated=self._queue.is_lagging or len(self._own_batches) > DAG_BLOCK_BATCHES_MAX,
        )

    def _is_idle(self) -> bool:
        """Nothing to carry and nothing pending: all that was named is committed and final."""
        return not (
            not self._custody.is_empty
            or self._checkpoints.has_votes_to_carry
            or self._synchronizer.waiting_count
            or self._queue.loaded_index > self._checkpoints.certified_commit
        )

    def _propose(self, out: list[Effect]) -> None:
        round_ = self._pacemaker.round
        if round_ <= max(self._proposer.last.round, self._pacemaker.last_round):
            raise AssertionError(f"a second own block of round {round_}")
        self._pacemaker.made(round_, self._around, self._now_ms)
        self._guard.signed(round_)
        batches = () if self._ordering.is_over else self._own_batches.take()
        votes = self._checkpoints.take_votes()
        header = self._proposer.header(round_, batches, votes, self._now_ms)
        digest = DagBlock(header, b"").digest
        self._signing = True
        context = dag_context(self._genesis.chain_id())
        sign = partial(self._signer.sign, digest, context)
        out.append(Run(sign, partial(self._signed, header)))

    def _signed(self, header: DagHeader, signature: bytes, now_ms: int) -> Sequence[Effect]:
        """The own block is signed: journal it with all it stands on, then send it."""
        self._signing, self._stirred = False, True
        self._now_ms = self._wake_ms = now_ms
        if self._halted or self._guard.lost or header.round <= self._dag.gc_round:
            # Nobody has seen it; it is as if it had never been made.
            self._own_batches.put_back(header.batches)
            self._checkpoints.return_votes(header.votes)
            return []
        block = DagBlock(header, signature)
        self._synchronizer.held(ref.digest for ref in header.batches)
        admitted = self._synchronizer.offer(block, self._own, now_ms)
        if block not in admitted:
            raise AssertionError("the own block stands on blocks that are not admitted")
        self._jump = False
        self._admitted(admitted)
        self._intake.note(block.encoded, block.digest)
        out: list[Effect] = [*self._journal.flush()]
        self._peers.note_sent(block, now_ms)
        if self._peers.indices:
            out.append(ToPeers(DagBlocks((block.encoded,))))
        self._push(out)
        return out

    def _push(self, out: list[Effect]) -> None:
        """Sends each peer the history that it lacks by the word of its own blocks."""
        for peer in self._peers.indices:
            messages = self._peers.lacking(peer, self._now_ms)
            out += [ToPeers(message, (peer,)) for message in messages]

    # The journal

    def _snapshot(self) -> SnapshotEntry:
        return snapshot_of(
            first_snapshot(self._genesis, self._committee, self._own),
            self._ordering,
            self._proposer.last,
            self._guard.round_min,
            self._evidence.equivocations(),
        )

    def _recover(self, recovered: Recovered, executed_index: int | None) -> None:
        """Goes on from the journal: the same blocks, and therefore the same commits."""
        for pending in recovered.pending:
            self._queue.add(pending.commit, pending.batches)
        self._queue.executed(executed_index or 0)
        for block in recovered.blocks:
            author = block.ref.author
            self._seen_rounds[author] = max(self._seen_rounds[author], block.ref.round)
            self._synchronizer.held(ref.digest for ref in block.header.batches)
            self._dag.add(block)
            self._intake.note(block.encoded, block.digest)
            self._account(block)
        self._want_committed()
        self._order(self._first)
        self._queue.executed(executed_index or 0)
        # The mempool may have dropped what was executed before the start.
        journalled = {ref.digest for b in recovered.blocks for ref in b.header.batches}
        self._synchronizer.dropped_batches(journalled - self._custody.named())

    def _want_committed(self) -> None:
        """Fetches committed blocks above gc_round that are not here: they name batches."""
        first = next(iter(self._peers.indices), self._own)
        missing = self._ordering.missing()
        self._admitted(self._synchronizer.want(missing, first, self._now_ms))

    # Peers and catching up

    def _on_status(self, peer: int, status: PeerStatus, out: list[Effect]) -> None:
        if status.epoch > self._committee.epoch:
            self._catching_up.left(peer)
        elif status.epoch == self._committee.epoch:
            self._heard(peer, status, out)
        standing = self._ordering.standing(self._checkpoints.executed_height)
        wanted = self._catching_up.ask(standing, self._now_ms)
        if wanted is not None:
            out.append(ToRoom(Room.LEDGER, wanted))

    def _heard(self, peer: int, status: PeerStatus, out: list[Effect]) -> None:
        self._peers.said(peer, status)
        self._guard.answered(peer, status.your_round, status.round, self._now_ms)
        if status.your_round < self._proposer.last.round:
            messages = self._peers.own_blocks(peer, status.your_round, self._now_ms)
            out += [ToPeers(message, (peer,)) for message in messages]
        if status.round < self._seen_rounds[peer]:
            # It holds less than it has signed: its memory is lost, and its own block proves it.
            messages = self._peers.blocks_of(peer, self._now_ms)
            out += [ToPeers(message, (peer,)) for message in messages]

    def _on_caught_up(
        self, certificate: Certificate | None, commits: tuple[Commit, ...], out: list[Effect]
    ) -> None:
        """The ledger took blocks from a peer: consensus restarts behind them."""
        is_fruitful = bool(commits) and commits[-1].index > self._linearizer.index
        self._catching_up.answered(is_fruitful, self._now_ms)
        if certificate is None:
            return
        if certificate.checkpoint.height > self._checkpoints.certified_height:
            self._checkpoints.adopt(certificate)
            event = CheckpointCertified(certificate)
            out += [ToRoom(room, event) for room in (Room.MEMPOOL, Room.GATEWAY)]
        self._queue.executed(certificate.checkpoint.commit_index)
        if not is_fruitful:
            return
        self._ordering.restart(commits)
        blocks = [self._dag.block(ref.digest) for ref in self._linearizer.committed()]
        self._custody.caught_up(block for block in blocks if block is not None)
        self._collect(out)
        self._want_committed()
        self._jump = True
        self._journal.request_snapshot()
        out += [ToPeers(self._status_for(peer), (peer,)) for peer in self._peers.indices]

    def _status_for(self, peer: int) -> PeerStatus:
        return PeerStatus(
            epoch=self._committee.epoch,
            # Zero tells those who have lost their memory not to count this answer.
            round=0 if self._guard.lost else self._dag.highest_round,
            commit_index=self._linearizer.index,
            height=self._checkpoints.executed_height,
            your_round=self._seen_rounds[peer] if peer in self._peers else 0,
            final_height=self._checkpoints.certified_height,
        )

    def _status_due_ms(self) -> int | None:
        if self._status_ms is None or not self._peers.indices:
            return None
        due_ms = self._status_ms + STATUS_MS
        if self._pacemaker.waits_for_quorum and not self._is_idle():
            # Blocks may have been lost: those who see this send theirs again.
            since_ms = max(self._status_ms, self._pacemaker.made_ms)
            due_ms = min(due_ms, since_ms + self._pacemaker.timeout_ms)
        return due_ms

    def _report(self, out: list[Effect]) -> None:
        if self._status_ms is None:
            self._status_ms = self._now_ms
        due_ms = self._status_due_ms()
        if due_ms is not None and due_ms <= self._now_ms:
            self._status_ms = self._now_ms
            for peer in self._peers.indices:
                self._greet(peer, out)

    def _greet(self, peer: int, out: list[Effect]) -> None:
        """Where this validator stands, and the evidence that the peer may lack."""
        out.append(ToPeers(self._status_for(peer), (peer,)))
        out += [ToPeers(message, (peer,)) for message in self._evidence.tell(peer)]
