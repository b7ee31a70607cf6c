"""Where blocks are cut: from commits alone, and alike wherever one starts."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.ledger.blocks import (
    Cutter,
    Draft,
    OpenCommit,
    Tip,
    genesis_tip,
    is_checkpoint,
    weight_of,
)
from qnet_actors.ledger.execute import open_batch
from qnet_actors.wire.batches import Batch
from qnet_actors.wire.blocks import BLOCK_RECORD_CODEC
from qnet_actors.wire.codec import encode
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.genesis import Parameters
from qnet_actors.wire.transactions import MultiTransfer, Payment, Transfer
from tests.ledger.rig import Rig
from tests.ledger.world import GENESIS_MS, Commits, a_batch, a_genesis, a_transaction, address

GENESIS = a_genesis()
BATCHES = [a_batch([a_transaction(GENESIS, s, n) for n in range(3)], s % 4) for s in range(4)]
OPENED = {batch.digest: open_batch(batch) for batch in BATCHES}


def opened(commit: Commit, batches: list[Batch]) -> OpenCommit:
    ready = tuple(OPENED.get(batch.digest) or open_batch(batch) for batch in batches)
    weights = tuple(weight_of(batch) for batch in ready)
    return OpenCommit(commit, commit.digest(), len(encode(commit)), ready, weights)


def cut(parameters: Parameters, steps: list[tuple[int, list[Batch]]]) -> list[Draft]:
    cutter, commits = Cutter(parameters, genesis_tip(GENESIS)), Commits()
    drafts, now_ms = [], GENESIS_MS
    for delta_ms, batches in steps:
        now_ms += delta_ms
        drafts += cutter.add(opened(commits.next(now_ms, batches), batches))
    return drafts


def indices(drafts: list[Draft]) -> list[int]:
    return [draft.commit_index for draft in drafts]


def test_cut_at_the_first_commit_an_interval_after_the_last_block():
    steps = [(40, [BATCHES[0]]), (40, []), (40, [BATCHES[1]]), (99, [BATCHES[2]]), (1, [])]
    drafts = cut(Parameters(block_interval_ms=100), steps)
    assert indices(drafts) == [3, 5]
    assert [len(draft.commits) for draft in drafts] == [3, 2]
    assert [len(draft.batches) for draft in drafts] == [2, 1]


def test_empty_commits_make_one_block_a_second():
    drafts = cut(Parameters(), [(300, [])] * 12)
    times = [draft.timestamp_ms - GENESIS_MS for draft in drafts]
    assert times == [1_200, 2_100, 3_000]
    assert all(is_checkpoint(a, b) for a, b in zip([0, *times], times, strict=False))


def test_commits_never_wait_for_more_than_half_the_lag():
    """Or consensus, which waits for execution, and execution would wait for each other."""
    drafts = cut(Parameters(commit_lag=8), [(0, [])] * 9)
    assert indices(drafts) == [4, 8]
    assert indices(cut(Parameters(commit_lag=1), [(0, [BATCHES[0]])] * 3)) == [1, 2, 3]


def test_a_commit_that_does_not_fit_ends_the_block_before():
    weight = weight_of(OPENED[BATCHES[0].digest])
    size = 2 * weight.size_bytes + 600
    parameters = Parameters(block_size_bytes_max=size, block_interval_ms=1_000)
    drafts = cut(parameters, [(1, [BATCHES[0]]), (1, [BATCHES[1]]), (1, [BATCHES[2]]), (1_000, [])])
    assert indices(drafts) == [2, 4]
    gas = 2 * weight.gas
    parameters = Parameters(block_gas_max=gas, block_interval_ms=1_000)
    drafts = cut(parameters, [(1, [BATCHES[0]]), (1, [BATCHES[1]]), (1, [BATCHES[2]]), (1_000, [])])
    assert indices(drafts) == [2, 4]


def test_a_commit_too_large_for_one_block_is_split_between_batches():
    weight = weight_of(OPENED[BATCHES[0].digest])
    parameters = Parameters(block_gas_max=2 * weight.gas, block_interval_ms=10)
    drafts = cut(parameters, [(5, []), (1_000, [*BATCHES, BATCHES[0]])])
    before, first, second, last = drafts
    assert [len(draft.batches) for draft in drafts] == [0, 2, 2, 1]
    assert before.commit_index == 1
    assert first.commits == second.commits == ()
    assert (first.commit_index, first.timestamp_ms) == (1, GENESIS_MS + 5)
    assert [c.index for c in last.commits] == [2]
    assert last.timestamp_ms == GENESIS_MS + 1_005


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 10, 49, 50, 51, 99, 100, 101, 500, 999, 1_000, 1_500]),
            st.lists(st.sampled_from(range(4)), max_size=4),
        ),
        max_size=25,
    ),
    st.sampled_from([2, 5, 64]),
    st.sampled_from([6_000, 9_000, 2**36]),
    st.data(),
)
def test_starting_again_at_any_durable_point_cuts_alike(steps, lag, gas, data):
    parameters = Parameters(commit_lag=lag, block_gas_max=gas)
    commits, chain, now_ms = Commits(), [], GENESIS_MS
    for delta_ms, numbers in steps:
        now_ms += delta_ms
        batches = [BATCHES[n] for n in numbers]
        chain.append(opened(commits.next(now_ms, batches), batches))
    whole = Cutter(parameters, genesis_tip(GENESIS))
    drafts = [draft for commit in chain for draft in whole.add(commit)]
    durable = data.draw(st.integers(0, len(drafts)))
    tip = genesis_tip(GENESIS)
    for height, last in enumerate(drafts[:durable], 1):
        parts = 0 if last.commits else tip.parts + 1
        tip = Tip(height, b"", last.timestamp_ms, last.commit_index, last.commit_digest, parts)
    again = Cutter(parameters, tip)
    rest = [d for commit in chain[tip.commit_index :] for d in again.add(commit)]
    assert drafts[durable:] == rest
    named = [commit.index for draft in drafts for commit in draft.commits]
    assert named == list(range(1, len(named) + 1))


def test_weight_bounds_the_record():
    """The size that blocks are limited by is never below what the record takes."""
    rows = {address(n): 10**12 for n in range(40)}
    genesis = a_genesis(balances=rows, parameters=Parameters(block_interval_ms=1))
    lines = tuple(Payment(address(1_000 + i), i + 1) for i in range(256))
    shapes = [
        [a_transaction(genesis, n, 0, Transfer(address(500 + n), 1)) for n in range(40)],
        [a_transaction(genesis, n, 0, MultiTransfer(lines)) for n in range(3)],
    ]
    for transactions in shapes:
        rig = Rig(genesis)
        batch = a_batch(transactions)
        commit = Commits().next(GENESIS_MS + 5, [batch])
        rig.commit(commit, [batch])
        record = rig.executed[0].record
        assert len(record.bodies) == len(transactions)
        bare = msgspec.structs.replace(record, commits=(), checkpoint=None)
        header = len(encode(record.header)) + 64
        assert len(encode(bare)) <= weight_of(open_batch(batch)).size_bytes + header
        assert BLOCK_RECORD_CODEC.decode(encode(record)) == record
