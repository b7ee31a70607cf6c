"""The core: commits in, durable blocks out, whatever order things happen in."""

from __future__ import annotations

import dataclasses
import random
from functools import partial
from typing import Any

import msgspec
import pytest

from qnet_actors.ledger import LedgerCore, MemoryLog, SnapshotSettings, pipeline, recover
from qnet_actors.ledger.pipeline import PREFETCHED_MAX
from qnet_actors.rooms import (
    Bodies,
    CheckpointCertified,
    CheckpointMade,
    CommitReady,
    CommitsExecuted,
    PeerUp,
    Run,
)
from qnet_actors.wire.blocks import BLOCK_RECORD_CODEC, Certificate
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.genesis import Genesis, Parameters
from qnet_actors.wire.limits import BATCH_SIZE_BYTES_MAX
from qnet_actors.wire.messages import LedgerBlocks, LedgerRequest
from qnet_actors.wire.snapshots import SECTION_ACCOUNTS_CODEC
from tests.ledger.rig import VERIFIER, Rig, certify, keys
from tests.ledger.world import (
    GENESIS_MS,
    Commits,
    a_batch,
    a_genesis,
    a_transaction,
    address,
)

BALANCES = {address(n): 10**12 for n in range(8)}


def genesis_of(**parameters: int) -> Genesis:
    return a_genesis(
        balances=BALANCES,
        parameters=msgspec.structs.replace(Parameters(), **parameters),
        public_keys=[pair.public_key for pair in keys()],
    )


GENESIS = genesis_of()
EVERY = SnapshotSettings(every_bytes=1)


def batch_of(sender: int, *nonces: int, author: int = 0, genesis=GENESIS):
    return a_batch([a_transaction(genesis, sender, n) for n in nonces], author, nonces[0] + 1)


def is_execution(run: Run) -> bool:
    return isinstance(run.call, partial) and run.call.func.__name__ == "_make"


def drive(rig: Rig, blocks: int, commits: Commits | None = None, start_ms: int = GENESIS_MS):
    """Blocks of two transactions, three to a second."""
    chain = commits or Commits()
    first = chain.index
    for i in range(first, first + blocks):
        batch = batch_of(i % 8, *(2 * (i // 8) + k for k in range(2)), author=i % 4)
        rig.commit(chain.next(start_ms + 350 * (i + 1), [batch]), [batch])
    return chain


def test_a_commit_becomes_a_durable_block():
    rig = Rig(GENESIS)
    batch = batch_of(1, 0, 1, 3)
    rig.commit(Commits().next(GENESIS_MS + 1_000, [batch]), [batch])
    (event,) = rig.executed
    assert (event.record.header.height, event.record.header.transaction_count) == (1, 2)
    assert event.batches == (batch.digest,)
    assert len(event.excluded) == 1
    assert event.block_hash == event.record.header.hash() == rig.tip.block_hash
    assert event.record.header.parent == GENESIS.chain_id()
    executed, made = rig.to_validator
    assert executed == CommitsExecuted(1)
    assert made.checkpoint == event.record.checkpoint
    assert rig.to_gateway == [event]
    assert BLOCK_RECORD_CODEC.decode(rig.log.records(1, 1, 10**6)[0]) == event.record


def test_nothing_is_told_before_it_is_durable():
    rig = Rig(GENESIS)
    rig.hold_runs = True
    drive(rig, 3)
    rig.hold_writes = True
    while rig.held:
        rig.run_next()
    assert (rig.tip.height, rig.log.last_height()) == (3, 0)
    assert not rig.executed
    assert not rig.to_validator
    rig.write_all()
    assert len(rig.executed) == 3
    assert [e.index for e in rig.to_validator if isinstance(e, CommitsExecuted)] == [1, 2, 3]


def test_commits_without_transactions_count_as_executed_once_their_block_is_durable():
    rig = Rig(GENESIS)
    commits = Commits()
    for i in range(1, 10):
        rig.commit(commits.next(GENESIS_MS + 200 * i))
    assert not rig.asked
    assert [e for e in rig.to_validator if isinstance(e, CommitsExecuted)] == [CommitsExecuted(5)]


def test_a_batch_that_is_not_as_it_was_named_is_left_out_and_stops_nobody():
    rig = Rig(GENESIS)
    own, other = batch_of(1, 0, author=1), batch_of(2, 0, author=2)
    commit = Commits().next(GENESIS_MS + 1_000, [own, other])
    rig.batches.update({batch.digest: batch for batch in (own, other)})
    stolen = (3, own.ref)
    renumbered = (2, msgspec.structs.replace(other.ref, sequence=other.header.sequence + 7))
    rig.handle(CommitReady(commit, (stolen, (1, own.ref), renumbered)))
    assert rig.halted is None
    (event,) = rig.executed
    assert event.batches == (own.digest,)
    assert event.record.header.transaction_count == 1


def test_one_execution_at_a_time_and_the_next_bodies_meanwhile():
    rig = Rig(GENESIS)
    rig.hold_runs = True
    commits = Commits()
    for i in range(4):
        batch = batch_of(i, 0)
        rig.commit(commits.next(GENESIS_MS + 200 * (i + 1), [batch]), [batch])
    assert len(rig.asked) == 4
    while rig.held:
        assert sum(is_execution(run) for run in rig.held) <= 1
        rig.run_next()
    assert rig.tip.height == 4


def test_bodies_are_prefetched_within_a_bound():
    rig = Rig(GENESIS)
    rig.hold_bodies = True
    commits = Commits()
    for i in range(PREFETCHED_MAX + 4):
        batch = batch_of(i % 8, i // 8)
        rig.commit(commits.next(GENESIS_MS + 200 * (i + 1), [batch]), [batch])
    assert len(rig.asked) == PREFETCHED_MAX
    # Answers in any order; blocks in order.
    while rig.asked:
        rig.answer(rig.asked.pop())
    assert rig.tip.height == PREFETCHED_MAX + 4
    assert [e.record.header.height for e in rig.executed] == list(range(1, PREFETCHED_MAX + 5))


def test_bodies_are_prefetched_within_a_bound_of_bytes(monkeypatch):
    # Any body is too much, so each commit waits until the one before is executed.
    monkeypatch.setattr(pipeline, "HELD_BYTES_MAX", 1)
    rig = Rig(GENESIS)
    rig.hold_bodies = True
    commits = Commits()
    for i in range(4):
        batch = batch_of(i % 8, i // 8)
        rig.commit(commits.next(GENESIS_MS + 200 * (i + 1), [batch]), [batch])
    for height in range(1, 5):
        assert len(rig.asked) == 1
        rig.answer(rig.asked.pop())
        assert rig.tip.height == height


def test_expected_bodies_count_until_their_size_is_known(monkeypatch):
    # Before any batch is here the largest possible is expected, then one like the last.
    monkeypatch.setattr(pipeline, "HELD_BYTES_MAX", 2 * BATCH_SIZE_BYTES_MAX)
    rig = Rig(GENESIS)
    rig.hold_bodies = True
    commits = Commits()
    for i in range(PREFETCHED_MAX):
        batch = batch_of(i, 0)
        rig.commit(commits.next(GENESIS_MS + 200 * (i + 1), [batch]), [batch])
    assert len(rig.asked) == 2
    rig.answer(rig.asked.pop(0))
    assert len(rig.asked) == PREFETCHED_MAX - 1


def test_any_timing_gives_the_same_blocks():
    plain = Rig(GENESIS)
    drive(plain, 12)
    for seed in range(5):
        rng = random.Random(seed)
        rig = Rig(GENESIS)
        rig.hold_runs = rig.hold_bodies = True
        drive(rig, 12)
        for _ in range(1_000):
            if rig.asked and rng.random() < 0.5:
                rig.answer(rig.asked.pop(rng.randrange(len(rig.asked))))
            elif rig.held:
                rig.run_next()
        assert [e.block_hash for e in rig.executed] == [e.block_hash for e in plain.executed]


def test_restart_goes_on_where_the_log_ends():
    plain = Rig(GENESIS)
    drive(plain, 12)
    for stop in range(1, 12):
        rig = Rig(GENESIS)
        chain = Commits()
        drive(rig, stop, chain)
        # A commit that waits for its block when the process dies is handed over again.
        again = Rig(GENESIS, rig.log.crash())
        assert again.to_validator[0] == CommitsExecuted(again.tip.commit_index)
        drive(again, 12 - stop, chain)
        hashes = [e.block_hash for e in rig.executed + again.executed]
        assert hashes == [e.block_hash for e in plain.executed]


def test_restart_votes_for_the_last_checkpoint_unless_it_is_certified():
    rig = Rig(GENESIS)
    drive(rig, 3)
    made = [e.checkpoint for e in rig.to_validator if isinstance(e, CheckpointMade)][-1]
    again = Rig(GENESIS, rig.log.crash())
    assert CheckpointMade(made) in again.to_validator
    again.handle(CheckpointCertified(certify(GENESIS, made, [0, 1, 2])))
    last = Rig(GENESIS, again.log.crash())
    assert CheckpointMade(made) not in last.to_validator
    assert last.core.final_height == made.height


def test_restart_from_a_snapshot():
    rig = Rig(GENESIS, snapshots=EVERY)
    chain = drive(rig, 10)
    assert rig.log.snapshot_heights() == [9, 6]
    again = Rig(GENESIS, rig.log.crash(), snapshots=EVERY)
    assert again.tip == rig.tip
    plain = Rig(GENESIS)
    both = Commits()
    drive(plain, 14, both)
    drive(again, 4, chain)
    assert again.tip == plain.tip
    # Commits from before the snapshot are known again.
    recovered = recover(again.log, GENESIS)
    assert [commit.index for commit in recovered.commits] == list(range(1, 15))


@pytest.mark.parametrize(
    "damage", ["balance", "form", "lacking", "junk", "height", "commits", "no_commits"]
)
def test_a_snapshot_that_does_not_fit_is_passed_over(damage):
    rig = Rig(GENESIS, snapshots=EVERY)
    drive(rig, 10)
    disk = rig.log._disk
    good = disk.snapshots[0]
    accounts = SECTION_ACCOUNTS_CODEC.decode(good.data[1])
    changes: dict[str, Any] = {
        "balance": {
            "data": {
                1: encode(msgspec.structs.replace(accounts, balances=bytes(len(accounts.balances))))
            }
        },
        "form": {"data": {1: encode(msgspec.structs.replace(accounts, key_ids=b""))}},
        "lacking": {"data": {}},
        "junk": {"data": {1: b"junk"}},
        "height": {"height": good.height + 1},
        "commits": {"commits": good.commits[1:2]},
        "no_commits": {"commits": ()},
    }
    disk.snapshots[0] = dataclasses.replace(good, **changes[damage])
    assert recover(rig.log, GENESIS).tip == rig.tip


def test_a_split_commit_goes_on_after_a_restart_among_its_parts():
    small = genesis_of(block_gas_max=4_000)
    heavy = [a_batch([a_transaction(small, s, n) for n in range(2)], s % 4, 1) for s in range(6)]
    whole = Rig(small)
    commit = Commits().next(GENESIS_MS + 1_500, heavy)
    whole.commit(commit, heavy)
    first, second, last = (e.record for e in whole.executed)
    for part in (first, second):
        assert (part.commits, part.header.commit_index, part.checkpoint) == ((), 0, None)
    assert (last.header.commit_index, last.checkpoint is not None) == (1, True)
    executed = [e for e in whole.to_validator if isinstance(e, CommitsExecuted)]
    assert executed == [CommitsExecuted(1)]
    for durable in range(4):
        log = MemoryLog()
        log.write(whole.log._disk.blocks[:durable])
        again = Rig(small, log)
        assert again.tip.parts == durable % 3
        again.commit(commit, heavy)
        assert again.tip == whole.tip
        assert again.halted is None


def test_parts_of_another_commit_are_a_fault():
    small = genesis_of(block_gas_max=4_000)
    heavy = [a_batch([a_transaction(small, s, n) for n in range(2)], s % 4, 1) for s in range(6)]
    whole = Rig(small)
    whole.commit(Commits().next(GENESIS_MS + 1_500, heavy), heavy)
    log = MemoryLog()
    log.write(whole.log._disk.blocks[:2])
    again = Rig(small, log)
    with pytest.raises(QnetError, match="parts"):
        again.commit(Commits().next(GENESIS_MS + 1_500, heavy[:1]), heavy[:1])


def test_commit_out_of_order_halts():
    rig = Rig(GENESIS)
    commits = Commits()
    commits.next(GENESIS_MS + 100)
    rig.commit(commits.next(GENESIS_MS + 200))
    assert rig.halted is not None
    assert "does not follow" in rig.halted


def test_a_commit_handed_over_again_is_ignored_and_a_different_one_halts():
    rig = Rig(GENESIS)
    batch = batch_of(1, 0)
    commit = Commits().next(GENESIS_MS + 1_000, [batch])
    rig.commit(commit, [batch])
    rig.commit(commit, [batch])
    assert (rig.halted, len(rig.executed)) == (None, 1)
    rig.commit(Commits().next(GENESIS_MS + 1_001), [])
    assert rig.halted is not None
    assert "differs" in rig.halted
    # Also one that waits for its block.
    rig = Rig(GENESIS)
    rig.commit(Commits().next(GENESIS_MS + 10), [])
    rig.commit(Commits().next(GENESIS_MS + 11), [])
    assert rig.halted is not None


def test_wrong_bodies_halt():
    rig = Rig(GENESIS)
    rig.hold_bodies = True
    batch, other = batch_of(1, 0), batch_of(2, 0)
    rig.commit(Commits().next(GENESIS_MS + 1_000, [batch]), [batch])
    rig.handle(Bodies(1, (other,)))
    assert rig.halted is not None
    assert "bodies" in rig.halted


def test_bodies_nobody_asked_for_are_ignored():
    rig = Rig(GENESIS)
    rig.handle(Bodies(7, (batch_of(1, 0),)))
    assert rig.halted is None


def test_too_many_commits_halt():
    genesis = genesis_of(commit_lag=1)
    rig = Rig(genesis)
    rig.hold_runs = True
    commits = Commits()
    for _ in range(2 + PREFETCHED_MAX):
        rig.commit(commits.next(GENESIS_MS + 1))
    assert rig.halted is None
    rig.commit(commits.next(GENESIS_MS + 1))
    assert rig.halted is not None


def test_a_certificate_is_stored_and_a_diverging_one_halts():
    rig = Rig(GENESIS)
    drive(rig, 6)
    made = [e.checkpoint for e in rig.to_validator if isinstance(e, CheckpointMade)]
    certificate = certify(GENESIS, made[0], [0, 2, 3])
    rig.handle(CheckpointCertified(certificate))
    assert rig.log.newest_certificate() == certificate
    forged = msgspec.structs.replace(made[1], state_root=bytes(32))
    rig.handle(CheckpointCertified(Certificate(forged, ())))
    assert rig.halted is not None
    assert "diverged" in rig.halted
    assert rig.log.newest_certificate() == certificate


def test_requests_of_peers_are_served_from_the_log_within_bounds():
    rig = Rig(GENESIS)
    drive(rig, 6)
    made = [e.checkpoint for e in rig.to_validator if isinstance(e, CheckpointMade)]
    first, last = (certify(GENESIS, c, [0, 1, 2]) for c in (made[0], made[-1]))
    for certificate in (first, last):
        rig.handle(CheckpointCertified(certificate))
    rig.receive(2, LedgerRequest(2, 3))
    answer, peers = rig.sent.pop()
    assert peers == (2,)
    heights = [BLOCK_RECORD_CODEC.decode(r).header.height for r in answer.records]
    assert heights == [2, 3, 4]
    assert answer.certificate == first
    for request in (LedgerRequest(7, 9), LedgerRequest(0, 9), LedgerRequest(2**63, 9)):
        rig.receive(2, request)
        assert rig.sent.pop() == (LedgerBlocks((), last), (2,))
    rig.receive(1, LedgerRequest(1, 2**32 - 1))
    assert len(rig.sent.pop()[0].records) == 6


def test_each_peer_has_one_request_waiting():
    rig = Rig(GENESIS)
    drive(rig, 2)
    rig.hold_runs = True
    for first in range(1, 4):
        for peer in (1, 2):
            rig.receive(peer, LedgerRequest(first, 1))
    assert len(rig.held) == 1
    rig.hold_runs = False
    rig.run_next()
    # The first was being read; of the later ones the newest of each peer is left.
    assert [peers for _, peers in rig.sent] == [(1,), (2,), (1,)]
    assert [len(message.records) for message, _ in rig.sent] == [1, 0, 0]


def test_other_events():
    rig = Rig(GENESIS)
    rig.handle(PeerUp(1))
    rig.receive(1, LedgerBlocks((b"junk",), None))
    assert (rig.halted, rig.sent) == (None, [])
    with pytest.raises(TypeError, match="does not take"):
        rig.core.handle(object(), 0)


def test_a_fault_of_the_node_is_not_swallowed():
    """A batch that the mempool must not have let through stops the node."""
    rig = Rig(GENESIS)
    batch = a_batch([a_transaction(GENESIS, 1, 0, gas_price=0)])
    with pytest.raises(QnetError, match="gas price"):
        rig.commit(Commits().next(GENESIS_MS + 1_000, [batch]), [batch])


def test_closed_log_refuses():
    log = MemoryLog()
    log.crash()
    with pytest.raises(QnetError, match="closed"):
        LedgerCore(
            genesis=GENESIS,
            committee=GENESIS.committee(),
            verifier=VERIFIER,
            recovered=recover(log, GENESIS),
            log=log,
        )
