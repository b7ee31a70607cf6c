"""One core and its effects: order of writes and sends, restarts, dropped batches, catching up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from qnet_actors.rooms import (
    BatchesDropped,
    BatchesExpiring,
    BatchesHeld,
    BatchReady,
    CatchUp,
    CaughtUp,
    CheckpointCertified,
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
from qnet_actors.validators import Recovered, ValidatorCore, recover
from qnet_actors.validators.catching_up import CATCH_UP_MS
from qnet_actors.validators.journal import MemoryJournal
from qnet_actors.validators.journal_entries import BlockEntry, SnapshotEntry
from qnet_actors.validators.journal_writer import SEGMENT_BYTES_MIN
from qnet_actors.wire.blocks import Certificate
from qnet_actors.wire.dag import DagBlock, decode_dag_block
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.messages import DagBlocks, DagRequest, PeerStatus
from tests.validators.support import (
    START_MS,
    VERIFIER,
    batch_ref,
    genesis_blocks,
    make_block,
    make_genesis,
    signer,
)
from tests.validators.virtual import World

GENESIS = make_genesis()


def make_core(
    genesis: Genesis = GENESIS, journal: MemoryJournal | None = None, **arguments: Any
) -> ValidatorCore:
    committee = genesis.committee()
    journalled = (journal or MemoryJournal()).journalled
    return ValidatorCore(
        genesis=genesis,
        committee=committee,
        own=0,
        signer=signer(0),
        verifier=VERIFIER,
        recovered=recover(journalled, genesis, committee, 0, VERIFIER),
        **arguments,
    )


class Bench:
    """Drives one core by hand: work is done at once, writes go to a journal, the rest is kept."""

    def __init__(self, core: ValidatorCore, journal: MemoryJournal | None = None) -> None:
        self.core = core
        self.journal = journal or MemoryJournal()
        self.now_ms = START_MS
        self.effects: list[Effect] = []

    def do(self, event: Any = None) -> list[Effect]:
        """Handles an event and all that follows from it; returns its effects in order."""
        start = len(self.effects)
        if event is not None:
            self._carry_out(self.core.handle(event, self.now_ms))
        self._carry_out(self.core.tick(self.now_ms))
        return self.effects[start:]

    def after(self, delay_ms: int) -> list[Effect]:
        self.now_ms += delay_ms
        return self.do()

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Run):
                self._carry_out(effect.then(effect.call(), self.now_ms))
                self._carry_out(self.core.tick(self.now_ms))
                continue
            if isinstance(effect, Persist):
                self.journal.write(effect.writes)
            self.effects.append(effect)

    def answer(self, *peers: int, round_: int = 0, your_round: int = 0) -> None:
        for peer in peers:
            self.do(FromPeer(peer, PeerStatus(0, round_, 0, 0, your_round, 0)))

    def give(self, *blocks: DagBlock, peer: int = 1) -> list[Effect]:
        return self.do(FromPeer(peer, DagBlocks(tuple(block.encoded for block in blocks))))

    def sent(self) -> list[DagBlock]:
        """The own blocks that were sent to all."""
        return [
            decode_dag_block(data)
            for effect in self.effects
            if isinstance(effect, ToPeers)
            and isinstance(effect.message, DagBlocks)
            and effect.peers is None
            for data in effect.message.blocks
        ]

    def to(self, room: Room, kind: type) -> list[Any]:
        return [
            effect.event
            for effect in self.effects
            if isinstance(effect, ToRoom) and effect.room == room and isinstance(effect.event, kind)
        ]


def started(genesis: Genesis = GENESIS, **arguments: Any) -> Bench:
    """A new validator whose peers have answered, and which has made its first block."""
    bench = Bench(make_core(genesis, **arguments))
    bench.do()
    bench.answer(1, 2)
    bench.after(50)
    return bench


def others(round_: int, below: Sequence[DagBlock], genesis: Genesis = GENESIS) -> list[DagBlock]:
    """Blocks of the three other validators; below none stand the genesis blocks."""
    ancestors = [block.ref for block in below] or list(genesis_blocks(genesis))
    chain_id = genesis.chain_id()
    return [make_block(round_, author, ancestors, chain_id=chain_id) for author in (1, 2, 3)]


def run_rounds(bench: Bench, count: int) -> list[list[DagBlock]]:
    """Rounds in which everybody takes part, from the one that the core is in."""
    rounds: list[list[DagBlock]] = []
    below: list[DagBlock] = []
    for _ in range(count):
        own = bench.sent()[-1]
        made = others(own.ref.round, below)
        bench.give(*made)
        below = [own, *made]
        rounds.append(below)
        bench.after(1_000)
    return rounds


def test_nothing_is_signed_before_the_peers_have_answered() -> None:
    bench = Bench(make_core())
    bench.do()
    bench.do(PeerUp(1))
    bench.answer(1)
    bench.after(5_000)
    assert bench.sent() == []
    bench.answer(2)
    assert [block.ref.round for block in bench.sent()] == [1]


def test_a_link_that_comes_up_is_told_where_one_stands() -> None:
    bench = started()
    (effect,) = [e for e in bench.do(PeerUp(3)) if isinstance(e, ToPeers)]
    assert effect.peers == (3,)
    assert isinstance(effect.message, PeerStatus)
    assert effect.message.round == 1
    assert effect.message.your_round == 0
    bench.give(*others(1, []))
    (effect,) = [e for e in bench.do(PeerUp(3)) if isinstance(e, ToPeers)]
    assert isinstance(effect.message, PeerStatus)
    assert effect.message.your_round == 1


def test_the_own_block_and_all_it_stands_on_are_durable_before_it_is_sent() -> None:
    bench = started()
    run_rounds(bench, 5)
    durable: set[bytes] = set()
    sent = 0
    for effect in bench.effects:
        match effect:
            case Persist(writes=writes):
                for entry in writes:
                    if isinstance(entry, BlockEntry):
                        durable.add(decode_dag_block(entry.block).digest)
            case ToPeers(message=DagBlocks(blocks=blocks)):
                for block in map(decode_dag_block, blocks):
                    sent += 1
                    assert block.digest in durable
                    for ancestor in block.header.ancestors:
                        assert ancestor.round == 0 or ancestor.digest in durable
            case ToRoom(room=Room.LEDGER, event=CommitReady(commit=commit)):
                assert all(ref.digest in durable for ref in commit.blocks)
    assert sent >= 6
    assert bench.to(Room.LEDGER, CommitReady)


def test_at_every_commit_handed_over_the_journal_leads_to_it() -> None:
    bench = started()
    run_rounds(bench, 5)
    journal = MemoryJournal()
    handed = 0
    for effect in bench.effects:
        match effect:
            case Persist(writes=writes):
                journal.write(writes)
            case ToRoom(room=Room.LEDGER, event=CommitReady(commit=commit)):
                handed += 1
                assert make_core(journal=journal).status.commit_index >= commit.index
    assert handed >= 3


def test_a_new_journal_begins_with_a_snapshot_and_later_ones_keep_it_short() -> None:
    bench = started(make_genesis(gc_depth=8))
    assert isinstance(bench.effects[0], Persist)
    assert isinstance(bench.effects[0].writes[0], SnapshotEntry)
    world = World(make_genesis(gc_depth=8))
    world.start()
    world.load(50, 400)
    sizes = []
    for _ in range(4):
        world.run(5_000)
        sizes.append(len(b"".join(world.validators[0].journal._frames)))
    assert world.validators[0].core.status.round > 300
    # Without new segments it would be three times as long.
    assert max(sizes) < SEGMENT_BYTES_MIN + 16_384


def test_a_ledger_that_lost_what_the_journal_calls_executed_catches_up_first() -> None:
    world = World(make_genesis(gc_depth=8))
    world.start()
    world.load(50, 400)
    world.run(10_000)
    victim = world.validators[0]
    snapshot = victim.journal.journalled.snapshot
    assert snapshot is not None
    assert snapshot.executed_index > 0
    before = victim.executed
    victim.crash()
    # Its block log was set aside: the ledger begins anew, the journal does not.
    victim.executed = 0
    world.start(0)
    world.run(5_000)
    assert victim.caught_up
    assert victim.executed > before


@pytest.mark.parametrize("ledger_knows", [True, False])
def test_a_new_life_recovers_the_same_commits_and_signs_above_the_last_own_block(
    ledger_knows: bool,
) -> None:
    bench = started()
    run_rounds(bench, 12)
    before = bench.to(Room.LEDGER, CommitReady)
    last = bench.sent()[-1].ref.round
    assert len(before) >= 9
    arguments = {"executed_index": before[3].commit.index} if ledger_knows else {}
    again = Bench(make_core(journal=bench.journal, **arguments), bench.journal)
    again.do()
    after = again.to(Room.LEDGER, CommitReady)
    expected = before[4:] if ledger_knows else before
    assert [(r.commit, r.batches) for r in after] == [(r.commit, r.batches) for r in expected]
    assert again.core._linearizer.recent == bench.core._linearizer.recent
    assert again.core.status.gc_round == bench.core.status.gc_round
    assert again.sent() == []
    again.answer(1, 2, round_=last, your_round=last)
    again.after(5_000)
    assert all(block.ref.round > last for block in again.sent())


def test_a_crash_between_signing_and_writing_leaves_the_round_free() -> None:
    bench = started()
    rounds = run_rounds(bench, 3)
    lost = bench.sent()[-1]
    journal = bench.journal.crash(lost_writes=1)
    again = Bench(make_core(journal=journal), journal)
    again.do()
    # Nobody has seen the lost block, for it was never sent; the peers know the one before.
    again.answer(1, 2, round_=3, your_round=lost.ref.round - 1)
    again.give(*rounds[-1])
    again.after(5_000)
    assert again.sent()[0].ref.round == lost.ref.round


def test_an_own_block_that_the_journal_does_not_know_stops_all_signing() -> None:
    bench = started()
    below = others(1, [])
    bench.give(*below)
    stranger = make_block(9, 0, [bench.sent()[0].ref, *(b.ref for b in others(8, below))])
    bench.give(stranger)
    count = len(bench.sent())
    bench.answer(1, 2, round_=9, your_round=9)
    bench.after(10_000)
    assert bench.core.status.memory_lost
    assert len(bench.sent()) == count
    status = [e.message for e in bench.do(PeerUp(1)) if isinstance(e, ToPeers)]
    assert isinstance(status[0], PeerStatus)
    # Whoever has lost its memory itself must not count this answer.
    assert status[0].round == 0


def test_own_batches_are_proposed_once_and_given_back_when_they_fall_to_gc_round() -> None:
    genesis = make_genesis(gc_depth=8)
    bench = started(genesis)
    ref = batch_ref(1)
    bench.do(BatchReady(ref))
    bench.do(BatchReady(ref))
    below = [bench.sent()[0], *others(1, [], genesis)]
    bench.give(*below[1:])
    bench.after(50)
    named = [block for block in bench.sent() if ref in block.header.batches]
    assert [block.ref.round for block in named] == [2]
    # The others go on without that block, for so long that it can never be committed.
    for round_ in range(2, 20):
        below = others(round_, below, genesis)
        bench.give(*below)
        bench.after(50)
    assert bench.core.status.gc_round >= 2
    (dropped,) = bench.to(Room.MEMPOOL, BatchesDropped)
    assert dropped.refs == (ref,)
    bench.do(BatchReady(ref))
    bench.after(1_000)
    assert [b.ref.round for b in bench.sent() if ref in b.header.batches] != [2]


def test_a_committed_batch_is_not_proposed_again() -> None:
    bench = started()
    ref = batch_ref(1)
    bench.do(BatchReady(ref))
    run_rounds(bench, 6)
    ready = bench.to(Room.LEDGER, CommitReady)
    assert [batches for item in ready for batches in item.batches] == [(0, ref)]
    bench.do(BatchReady(ref))
    bench.after(1_000)
    assert sum(ref in block.header.batches for block in bench.sent()) == 1


def test_a_batch_that_a_block_names_is_not_let_go_before_it_is_executed() -> None:
    """Else its author could have everybody wait for what nobody holds any more."""
    bench = started()
    ref, unnamed = batch_ref(1), batch_ref(2)
    digests = (ref.digest, unnamed.digest)

    def released() -> list[bytes]:
        effects = bench.do(BatchesExpiring(digests, 3))
        answers = [e for e in effects if isinstance(e, ToRoom)]
        assert all((e.room, e.shard) == (Room.MEMPOOL, 3) for e in answers)
        return [d for e in answers for d in e.event.digests]

    bench.do(BatchesHeld(digests))
    first = others(1, [])
    late = make_block(1, 1, list(genesis_blocks(GENESIS)), batches=[ref])
    # It waits: the block before it is not here.
    waiting = make_block(2, 1, [b.ref for b in (late, *first[1:])], batches=[ref])
    bench.give(waiting)
    assert released() == [unnamed.digest]
    bench.give(late, *first[1:])
    assert released() == [unnamed.digest]
    below = [bench.sent()[0], late, *first[1:]]
    bench.after(50)
    below = [bench.sent()[-1], waiting, *others(2, below)[1:]]
    bench.give(*below[2:])
    for round_ in range(3, 8):
        bench.after(50)
        below = [bench.sent()[-1], *others(round_, below)]
        bench.give(*below[1:])
    ready = bench.to(Room.LEDGER, CommitReady)
    (named,) = [item.commit.index for item in ready if item.batches]
    assert released() == [unnamed.digest]
    bench.do(CommitsExecuted(named))
    assert released() == list(digests)
    # From now on a block that names it waits until it is held again.
    again = make_block(8, 1, [b.ref for b in below[1:]], batches=[ref])
    effects = bench.give(again)
    fetches = [e.event for e in effects if isinstance(e, ToRoom)]
    assert FetchBatches(((1, ref),), 1) in fetches
    assert bench.core.status.waiting_blocks == 1


def test_an_own_batch_that_waits_for_a_block_is_not_let_go() -> None:
    bench = started()
    ref = batch_ref(1)
    bench.do(BatchReady(ref))
    assert bench.do(BatchesExpiring((ref.digest,), 0)) == []


def test_requests_are_answered_to_whoever_asked() -> None:
    bench = started()
    rounds = run_rounds(bench, 3)
    refs = tuple(block.ref for block in rounds[0])
    effects = bench.do(FromPeer(2, DagRequest(refs)))
    (answer,) = [e for e in effects if isinstance(e, ToPeers) and isinstance(e.message, DagBlocks)]
    assert answer.peers == (2,)
    assert isinstance(answer.message, DagBlocks)
    assert {decode_dag_block(data).ref for data in answer.message.blocks} == set(refs)


def test_what_is_no_peer_and_no_message_of_this_room_changes_nothing() -> None:
    bench = started()
    block = others(1, [])[0]
    for event in (
        FromPeer(7, DagBlocks((block.encoded,))),
        FromPeer(0, DagBlocks((block.encoded,))),
        PeerUp(9),
        object(),
    ):
        assert bench.do(event) == []
    assert bench.core.status.dag_blocks == 1
    bench.do(FromPeer(1, PeerStatus(5, 10**9, 10**9, 0, 10**9, 0)))
    assert not bench.core.status.memory_lost


def test_while_the_ledger_catches_up_nothing_is_handed_over_until_it_is_late() -> None:
    bench = started()
    for peer in (1, 2):
        bench.do(FromPeer(peer, PeerStatus(0, 1, 200, 0, 0, 0)))
    (asked,) = bench.to(Room.LEDGER, CatchUp)
    assert asked.peers == (1, 2)
    run_rounds(bench, 6)
    assert bench.core.status.catching_up
    assert bench.core.status.commit_index == 0
    for peer in (1, 2):
        bench.do(FromPeer(peer, PeerStatus(0, 1, 0, 0, 0, 0)))
    bench.after(CATCH_UP_MS)
    assert not bench.core.status.catching_up
    assert [item.commit.index for item in bench.to(Room.LEDGER, CommitReady)] == [1, 2, 3, 4]


def test_a_known_block_is_not_checked_again() -> None:
    bench = started()
    blocks = others(1, [])
    bench.give(*blocks)
    runs: list[Effect] = []
    message = DagBlocks((*(block.encoded for block in blocks), bench.sent()[0].encoded))
    for _ in range(3):
        runs += bench.core.handle(FromPeer(2, message), bench.now_ms)
        runs += bench.core.tick(bench.now_ms)
    assert not [effect for effect in runs if isinstance(effect, Run)]


def test_a_peer_that_holds_less_than_it_signed_is_sent_its_own_newest_block() -> None:
    bench = started()
    rounds = run_rounds(bench, 3)
    effects = bench.do(FromPeer(1, PeerStatus(0, 0, 0, 0, 99, 0)))
    (answer,) = [e for e in effects if isinstance(e, ToPeers) and isinstance(e.message, DagBlocks)]
    assert answer.peers == (1,)
    assert isinstance(answer.message, DagBlocks)
    newest = next(block for block in rounds[-1] if block.ref.author == 1)
    assert [decode_dag_block(data) for data in answer.message.blocks] == [newest]


def caught_up_from(world: World, index: int) -> CaughtUp:
    """The answer of a ledger that took the blocks of the first validator."""
    source = world.validators[0]
    certificate: Certificate = source.certificates[-1]
    last = certificate.checkpoint.commit_index
    gc_round = source.commits[last].leader.round - world.genesis.parameters.gc_depth
    first = next(i for i in range(1, last + 1) if source.commits[i].leader.round > gc_round)
    return CaughtUp(certificate, tuple(source.commits[i] for i in range(first, last + 1)))


def test_catching_up_waits_for_all_that_committed_blocks_name() -> None:
    world = World(make_genesis())
    world.start()
    world.load(50, 300)
    world.run(8_000)
    event = caught_up_from(world, 0)
    bench = Bench(make_core(world.genesis))
    bench.do()
    bench.do(event)
    assert event.certificate is not None
    certified = event.certificate.checkpoint
    assert bench.core.status.commit_index == certified.commit_index
    assert bench.core.status.certified_height == certified.height
    assert len(bench.to(Room.MEMPOOL, CheckpointCertified)) == 1
    source = world.validators[0].core
    wanted = {ref for commit in event.commits for ref in commit.blocks}
    wanted = {ref for ref in wanted if ref.round > bench.core.status.gc_round}
    asked = [e.message for e in bench.effects if isinstance(e, ToPeers)]
    assert {r for m in asked if isinstance(m, DagRequest) for r in m.refs} == wanted
    # Everything but one of them arrives, and all that came later: nothing is committed yet.
    dag = source._dag
    held_back = min(wanted)
    blocks = [dag.block(ref.digest) for ref in sorted(wanted)]
    archived = [decode_dag_block(d) for r in wanted if (d := source._archive.get(r.digest))]
    known = {block.ref: block for block in [*archived, *filter(None, blocks)]}
    assert set(known) == wanted
    later = [block for block in dag.blocks() if block.ref not in wanted]
    for block in later:
        bench.core._synchronizer.held(ref.digest for ref in block.header.batches)
    give = [known[ref] for ref in sorted(wanted) if ref != held_back] + later
    for start in range(0, len(give), 100):
        bench.give(*give[start : start + 100])
    assert bench.to(Room.LEDGER, CommitReady) == []
    bench.give(known[held_back])
    ready = bench.to(Room.LEDGER, CommitReady)
    assert ready
    for item in ready:
        assert item.commit == world.validators[0].commits[item.commit.index]
    expected = {c.index: c for c in world.validators[0].commits.values()}
    assert [i.commit.index for i in ready] == list(
        range(certified.commit_index + 1, max(expected) + 1)
    )
    batches = [pair for item in ready for pair in item.batches]
    assert batches == world.validators[0].batches[-len(batches) :]


def test_catching_up_to_where_one_is_already_changes_nothing_but_what_is_final() -> None:
    world = World(make_genesis())
    world.start()
    world.load(50, 300)
    world.run(5_000)
    other = world.validators[1]
    before = other.core.status
    event = caught_up_from(world, 1)
    assert event.commits[-1].index < before.commit_index
    other.event(event)
    assert other.core.status.commit_index == before.commit_index
    world.run(2_000)
    world.assert_agreement()
    assert other.core.status.commit_index > before.commit_index


def test_two_committed_leaders_of_one_slot_halt() -> None:
    # All but validator 0 equivocate, in two worlds that each commit a leader of their own.
    genesis = GENESIS
    committee = genesis.committee()
    bench = started()
    leader_round = next(r for r in range(1, 99) if committee.leader(r) != 0)
    worlds: list[list[DagBlock]] = [[], []]
    halted: list[Effect] = []
    for round_ in range(1, leader_round + 3):
        made = []
        for salt in (0, 1):
            ancestors = [b.ref for b in worlds[salt]] or list(genesis_blocks(genesis))
            made.append(
                [
                    make_block(round_, author, ancestors, timestamp_ms=START_MS + salt)
                    for author in (1, 2, 3)
                ]
            )
        worlds = made
        halted += [e for e in bench.give(*made[0], *made[1]) if isinstance(e, Halt)]
    assert len(halted) == 1
    assert isinstance(halted[0], Halt)
    assert "diverged" in halted[0].reason
    assert bench.do(CommitsExecuted(1)) == []
    assert bench.core.wake_ms() is None


def test_the_core_asks_to_be_woken_later_and_never_again_at_once() -> None:
    world = World(make_genesis())
    world.start()
    world.load(50, 40)
    core = world.validators[0].core
    for _ in range(400):
        world.run(11)
        wake_ms = core.wake_ms()
        assert wake_ms is not None
        assert wake_ms > world.now_ms - 11
        before = core.tick(world.now_ms)
        if not before:
            after = core.wake_ms()
            assert after is None or after > world.now_ms


def test_recovered_state_names_the_entries_it_came_from() -> None:
    bench = started()
    run_rounds(bench, 2)
    committee = GENESIS.committee()
    state: Recovered = recover(bench.journal.journalled, GENESIS, committee, 0, VERIFIER)
    entries = [e for e in bench.journal.journalled.entries if isinstance(e, BlockEntry)]
    assert [block.encoded for block in state.blocks] == [entry.block for entry in entries]
    assert state.own == bench.sent()[-1].ref
