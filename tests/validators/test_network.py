"""Whole cores against each other on a virtual clock: they agree, go on and never sign twice."""

from __future__ import annotations

import msgspec
import pytest

from qnet_actors.rooms import BatchReady, CommitReady
from qnet_actors.validators.checks import BlockRules
from qnet_actors.validators.evidence import EVIDENCE_PER_AUTHOR_MAX
from qnet_actors.wire.blocks import Checkpoint
from qnet_actors.wire.dag import Commit, DagBlock, DagHeader, decode_dag_block
from qnet_actors.wire.messages import DagBlocks, DagRequest, Message, PeerStatus
from tests.validators.support import VERIFIER, make_genesis, sign
from tests.validators.virtual import World

EXTRA = 1_000_000
"""Batches of the last stretch are numbered from here."""


def world(seed: int = 1, count: int = 4) -> World:
    return World(make_genesis((1,) * count), seed)


def assert_goes_on(made: World, commits: int = 40) -> None:
    """With the faults over, all that live commit the same, at speed, and are level."""
    made.loss, made.delay_ms, made.cut = 0.0, (2, 20), lambda sender, receiver: False
    made.run(4_000)
    live = [validator for validator in made.validators if validator.alive]
    before = [validator.executed for validator in live]
    for number in range(60):
        made.later(live[0], 50 * number, made.ready, live[0].index, EXTRA + number)
    made.run(5_000)
    made.assert_agreement()
    assert not [validator.halted for validator in made.validators if validator.halted]
    executed = [validator.executed for validator in live]
    assert min(b - a for a, b in zip(before, executed, strict=True)) >= commits
    assert max(executed) - min(executed) <= 3
    for validator in live:
        assert not validator.core.status.catching_up
        assert not validator.core.status.memory_lost
        late = [ref.sequence for _, ref in validator.batches if ref.sequence >= EXTRA]
        assert late == [EXTRA + number for number in range(60)]


def test_four_commit_the_same_chain_with_each_batch_once() -> None:
    made = world()
    made.start()
    made.load(50, 200)
    made.run(12_000)
    assert made.assert_agreement() > 150
    for validator in made.validators:
        digests = [ref.digest for _, ref in validator.batches]
        assert len(digests) == len(set(digests)) == 200
        assert validator.core.status.timeouts == 0
        certified = [c.checkpoint.height for c in validator.certificates]
        assert certified == sorted(set(certified))
        assert len(certified) > 15
    # Memory: some 64 rounds of 4 blocks, whatever has passed.
    assert all(v.core.status.dag_blocks <= 4 * 70 for v in made.validators)


@pytest.mark.parametrize(("stakes", "commits"), [((7,), 100), ((1,) * 7, 80), ((5, 4, 3, 1), 80)])
def test_any_committee_commits(stakes: tuple[int, ...], commits: int) -> None:
    made = World(make_genesis(stakes))
    made.start()
    made.load(50, 100)
    made.run(7_000)
    assert made.assert_agreement() >= commits
    assert all(len(validator.batches) == 100 for validator in made.validators)


def test_the_same_seed_runs_the_same() -> None:
    chains = []
    for _ in range(2):
        made = world(seed=5)
        made.loss = 0.1
        made.start()
        made.load(50, 50)
        made.run(4_000)
        chains.append([commit.digest() for commit in made.validators[0].commits.values()])
    assert chains[0] == chains[1]
    assert chains[0]


@pytest.mark.parametrize("seed", range(3))
def test_loss_and_delay_slow_down_and_no_more(seed: int) -> None:
    made = world(seed)
    made.loss, made.delay_ms = 0.2, (2, 200)
    made.start()
    made.load(50, 200)
    made.run(12_000)
    assert made.assert_agreement() >= 15
    assert_goes_on(made)


def aimed(low_ms: int, high_ms: int) -> World:
    """Ten seconds of load while all that the leaders of the day send or get is late."""
    made = world()
    leader = made.genesis.committee().leader

    def delay_ms(sender: int, receiver: int) -> tuple[int, int]:
        top = max(validator.core.status.round for validator in made.validators)
        slow = {leader(top), leader(top + 1)}
        return (low_ms, high_ms) if sender in slow or receiver in slow else (1, 4)

    made.delay_of = delay_ms
    made.start()
    made.load(50, 200)
    made.run(10_000)
    return made


def test_delays_aimed_at_leaders_cost_no_leader_while_they_stay_below_the_timeout() -> None:
    # A leader gets what it stands on late, and is late then: twice the delay is below 200 ms.
    made = aimed(80, 95)
    assert made.assert_agreement() > 50
    for validator in made.validators:
        status = validator.core.status
        assert status.timeouts == 0
        assert status.commit_index >= status.round - 4


@pytest.mark.parametrize(("low_ms", "high_ms", "commits"), [(130, 150, 45), (300, 330, 10)])
def test_delays_aimed_at_leaders_beyond_the_timeout_stop_nothing(
    low_ms: int, high_ms: int, commits: int
) -> None:
    made = aimed(low_ms, high_ms)
    assert made.assert_agreement() >= commits
    assert min(len(validator.batches) for validator in made.validators) >= 150


@pytest.mark.parametrize("spread_ms", [1, 150])
def test_one_that_lags_does_not_slow_the_others(spread_ms: int) -> None:
    rounds = []
    for slow in (None, 3):
        made = world()
        far = {slow}
        made.delay_of = lambda sender, receiver, far=far: (  # type: ignore[misc]
            (300, 300 + spread_ms) if far & {sender, receiver} else (2, 20)
        )
        made.start()
        made.load(50, 400)
        made.run(2_000)
        before = made.validators[0].core.status
        made.run(18_000)
        made.assert_agreement()
        after = made.validators[0].core.status
        rounds.append(after.round - before.round)
        # Of the rounds that three lead all are committed.
        committed = after.commit_index - before.commit_index
        assert committed >= (0.7 if slow else 0.98) * rounds[-1]
        others = [batch for batch in made.validators[0].batches if batch[0] != slow]
        assert len(others) >= (290 if slow else 390)
    assert rounds[1] >= 0.9 * rounds[0]


@pytest.mark.parametrize("stopped_ms", [1_500, 4_000, 9_000])
def test_a_process_that_stood_still_takes_part_again(stopped_ms: int) -> None:
    made = world(stopped_ms)
    made.start()
    made.load(50, 600)
    made.run(3_000)
    stopped, *rest = reversed(made.validators)
    stopped.stopped_until_ms = made.now_ms + stopped_ms
    before = [validator.executed for validator in rest]
    made.run(stopped_ms)
    after = [validator.executed for validator in rest]
    # Each of the others waits for it once or twice, and three leaders of four are here.
    assert min(b - a for a, b in zip(before, after, strict=True)) >= stopped_ms / 50 * 0.6
    made.run(300)
    signed = len(stopped.signed)
    assert_goes_on(made)
    assert len(stopped.signed) > signed + 40


def test_three_go_on_without_the_fourth() -> None:
    made = world()
    made.start()
    made.run(2_000)
    made.validators[3].crash()
    assert_goes_on(made, commits=25)


def test_a_partition_without_a_quorum_commits_nothing_and_heals() -> None:
    made = world()
    made.start()
    made.load(50, 200)
    made.run(2_000)
    made.cut = lambda sender, receiver: (sender < 2) != (receiver < 2)
    made.run(1_000)
    stuck = [validator.executed for validator in made.validators]
    made.run(4_000)
    assert [validator.executed for validator in made.validators] == stuck
    assert_goes_on(made)


@pytest.mark.parametrize("down_ms", [50, 1_000, 8_000])
def test_a_restarted_validator_comes_back(down_ms: int) -> None:
    made = world(down_ms)
    made.start()
    made.load(50, 300)
    made.run(3_000)
    made.validators[2].crash()
    made.run(down_ms)
    made.validators[2].start()
    assert_goes_on(made)
    assert made.validators[2].caught_up == (down_ms == 8_000)


def test_own_batches_that_were_committed_without_the_author_go_back_to_its_mempool() -> None:
    made = world()
    made.start()
    made.run(2_000)
    author = made.validators[2]
    # It is heard and hears nothing: the others commit a block that it does not see committed.
    made.cut = lambda sender, receiver: receiver == 2
    ref = made.ready(2, 1)
    made.run(1_500)
    assert (2, ref) in made.validators[0].batches
    author._catch_up((0,))
    committed = {block for commit in author.commits.values() for block in commit.blocks}
    named = next(b for b in author.core._dag.blocks() if ref in b.header.batches)
    assert named.ref in committed
    assert named.ref.round > author.core.status.gc_round
    assert author.dropped == []
    made.cut = lambda sender, receiver: False
    # Offered at once it would be named in vain, and waits all the same.
    author.event(BatchReady(ref))
    made.load(50, 300)
    made.run(12_000)
    assert (2, ref) not in author.batches
    assert author.dropped == [ref]
    assert made.validators[0].batches.count((2, ref)) == 1
    author.event(BatchReady(ref))
    made.run(1_000)
    assert author.batches.count((2, ref)) == 1
    made.assert_agreement()


def test_a_late_joiner_takes_blocks_and_then_takes_part() -> None:
    made = world()
    made.start(0, 1, 3)
    made.load(50, 300)
    made.run(10_000)
    joiner = made.validators[2]
    joiner.start()
    made.run(1_000)
    assert joiner.caught_up >= 1
    # It jumped once, and never again, though it falls behind by some rounds.
    assert max(joiner.signed) > 100
    first = min(round_ for round_ in joiner.signed if round_ > 100)
    made.cut = lambda sender, receiver: receiver == 2
    made.run(600)
    assert_goes_on(made)
    assert set(range(first, max(joiner.signed))) <= set(joiner.signed)
    # It names the same batches in the same commits as those that were there from the start.
    assert joiner.batches == made.validators[0].batches[-len(joiner.batches) :]


@pytest.mark.parametrize("seed", range(2))
def test_power_lost_everywhere_loses_no_commit(seed: int) -> None:
    made = world(seed)
    made.start()
    made.load(50, 300)
    made.run(3_000)
    before = [dict(validator.commits) for validator in made.validators]
    for validator in made.validators:
        validator.crash()
    made.run(300)
    for validator in made.validators:
        validator.start()
        made.run(200)
    assert_goes_on(made)
    for validator, commits in zip(made.validators, before, strict=True):
        assert commits.items() <= validator.commits.items()


def test_staggered_restarts_of_seven() -> None:
    made = world(3, count=7)
    made.loss = 0.05
    made.start()
    made.load(50, 200)
    for _ in range(5):
        validator = made.validators[made.rng.randrange(7)]
        validator.crash()
        made.run(made.rng.randrange(100, 1_500))
        validator.start()
        made.run(300)
    assert_goes_on(made)


@pytest.mark.parametrize("lost_writes", [3, 10**6])
def test_lost_memory_signs_nothing_twice(lost_writes: int) -> None:
    # `Validator.signed` remembers over lives and fails on a second block of a round.
    made = world(lost_writes)
    made.start()
    made.load(50, 300)
    made.run(4_000)
    victim = made.validators[2]
    signed = max(victim.signed)
    highest = max(max(validator.signed) for validator in made.validators)
    victim.crash(lost_writes)
    if lost_writes > 3:
        victim.executed = 0
    made.run(30)
    victim.start()
    made.run(1_500)
    after = min(round_ for round_ in victim.signed if round_ > signed)
    assert after >= highest + 1
    assert_goes_on(made)
    assert not [v.core.status.equivocations for v in made.validators if v.core.status.equivocations]


def test_lost_memory_waits_for_a_quorum_of_others() -> None:
    made = world()
    made.start()
    made.load(50, 300)
    made.run(3_000)
    victim = made.validators[2]
    victim.crash(lost_writes=4)
    made.validators[3].crash()
    signed = len(victim.signed)
    victim.start()
    made.run(3_000)
    assert victim.core.status.memory_lost
    assert len(victim.signed) == signed
    made.validators[3].start()
    assert_goes_on(made)


def twin(block: DagBlock) -> DagBlock:
    """Another block of the same slot, as good as the first."""
    header = block.header
    fields = {name: getattr(header, name) for name in header.__struct_fields__}
    fields["timestamp_ms"] += 1
    return sign(DagHeader(**fields))


def test_an_equivocator_splits_nobody_and_leaves_evidence() -> None:
    made = world()
    liar = made.validators[3]

    def equivocate(message: Message, receiver: int) -> Message:
        if not isinstance(message, DagBlocks) or receiver < 2:
            return message
        blocks = [decode_dag_block(data) for data in message.blocks]
        return DagBlocks(tuple((twin(b) if b.ref.author == 3 else b).encoded for b in blocks))

    liar.on_message = equivocate
    made.start()
    made.load(50, 200)
    made.run(8_000)
    assert made.assert_agreement() > 40
    honest = made.validators[:3]
    assert not [validator.halted for validator in honest if validator.halted]
    assert any(validator.core.status.equivocations for validator in honest)
    rules = BlockRules(made.genesis.committee(), VERIFIER, made.genesis.chain_id())
    for validator in honest:
        kept = validator.core.evidence.equivocations()
        assert len(kept) == EVIDENCE_PER_AUTHOR_MAX
        assert [proof.author for proof in kept] == [3, 3]
        assert rules.proven(kept) == list(kept)
        validator.crash()
        validator.start()
        assert validator.core.evidence.equivocations() == kept
    for validator in honest:
        named = {(author, ref.sequence) for author, ref in validator.batches}
        assert {pair for pair in named if pair[0] < 3} >= {
            (n % 4, n) for n in range(120) if n % 4 < 3
        }


def test_a_validator_that_shows_its_blocks_to_one_only_is_heard_through_that_one() -> None:
    made = world()
    made.validators[3].on_message = lambda message, receiver: (
        None if isinstance(message, DagBlocks) and receiver != 0 else message
    )
    made.start()
    made.load(50, 100)
    made.run(10_000)
    assert made.assert_agreement() > 60
    named = {author for author, _ in made.validators[1].batches}
    assert named == {0, 1, 2, 3}


def test_lies_about_rounds_and_commits_of_one_peer_move_nobody() -> None:
    made = world()

    def lie(message: Message, receiver: int) -> Message:
        if isinstance(message, PeerStatus):
            return PeerStatus(
                epoch=0,
                round=10**12,
                commit_index=10**12,
                height=10**12,
                your_round=10**12,
                final_height=10**12,
            )
        return message

    made.validators[3].on_message = lie
    made.start()
    made.load(50, 100)
    made.run(3_000)
    made.validators[1].crash()
    made.run(200)
    made.validators[1].start()
    made.run(8_000)
    made.validators[3].on_message = lambda message, receiver: message
    assert_goes_on(made)
    assert all(validator.caught_up == 0 for validator in made.validators)


def test_junk_is_refused_and_harms_nobody() -> None:
    made = world()

    def junk(message: Message, receiver: int) -> Message:
        if not isinstance(message, DagBlocks):
            return message
        broken = []
        for data in message.blocks:
            block = decode_dag_block(data)
            flipped = bytes([block.signature[0] ^ 1]) + block.signature[1:]
            broken += [DagBlock(block.header, flipped).encoded, data[:-1], b"\xc0"]
        return DagBlocks(tuple(broken))

    made.validators[3].on_message = junk
    made.start()
    made.load(50, 100)
    made.run(8_000)
    assert made.assert_agreement() > 40
    for validator in made.validators[:3]:
        assert validator.core.status.invalid_blocks > 100
        assert {author for author, _ in validator.batches} == {0, 1, 2}


def test_no_traffic_slows_rounds_to_one_a_second_and_traffic_wakes_them() -> None:
    made = world()
    made.start()
    made.run(10_000)
    quiet = made.validators[0].core.status.round
    # A checkpoint vote every few commits is carried at once, so it is a little more than ten.
    assert 8 <= quiet <= 16
    made.ready(1, 0)
    made.run(600)
    assert all(len(validator.batches) == 1 for validator in made.validators)
    # Rounds stay fast until the batch is final too: a checkpoint comes every eight commits.
    made.run(900)
    for validator in made.validators:
        (named,) = validator.loaded
        assert validator.certificates[-1].checkpoint.commit_index >= named


def test_a_batch_that_one_validator_lacks_is_fetched_before_its_block_is_admitted() -> None:
    made = world()
    made.start()
    made.run(1_000)
    slow = made.validators[2]
    slow.alive = False
    ref = made.ready(0, 7)
    slow.alive = True
    slow.act(list)
    made.run(1_500)
    assert [named for _, named in slow.batches] == [ref]


def test_commits_wait_for_the_ledger_within_the_lag_bound() -> None:
    made = World(make_genesis(commit_lag=8))
    made.start()
    slow = made.validators[2]
    emitted: list[int] = []

    def stuck(ready: CommitReady) -> None:
        emitted.append(ready.commit.index)

    slow._execute = stuck  # type: ignore[method-assign]
    made.load(50, 200)
    made.run(1_500)
    assert emitted == list(range(1, 9))
    assert slow.core.status.commit_index > 8


def test_a_quorum_for_another_checkpoint_halts_the_one_that_differs() -> None:
    made = world()
    odd = made.validators[1]
    honest = made.checkpoint

    def differs(commit: Commit) -> Checkpoint:
        checkpoint = honest(commit)
        return msgspec.structs.replace(checkpoint, state_root=bytes(32))

    made.checkpoint = lambda commit: (  # type: ignore[method-assign]
        differs(commit) if made.acting is odd else honest(commit)
    )
    made.start()
    made.load(50, 100)
    made.run(4_000)
    assert odd.halted is not None
    assert "diverged" in odd.halted
    assert [validator.halted for validator in made.validators if validator is not odd] == [None] * 3
    assert made.validators[0].certificates


def test_requests_are_served_with_the_history_above_the_asker() -> None:
    made = world()
    asked: list[int] = []

    def count(message: Message, receiver: int) -> Message:
        if isinstance(message, DagRequest):
            asked.append(len(message.refs))
        return message

    made.start()
    made.load(50, 200)
    made.run(3_000)
    slow = made.validators[2]
    slow.on_message = count
    made.cut = lambda sender, receiver: receiver == 2
    made.run(1_200)
    behind = made.validators[0].core.status.round - slow.core.status.round
    assert behind >= 10
    made.cut = lambda sender, receiver: False
    asked.clear()
    made.run(600)
    assert made.validators[0].core.status.round - slow.core.status.round <= 2
    # One step back at a time would take a request a round.
    assert len(asked) < behind
