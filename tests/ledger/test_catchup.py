"""Catching up from peers: what is certified is taken, whatever is not is left, liars lose time."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from qnet_actors.ledger import MemoryLog
from qnet_actors.ledger.blocks import genesis_tip, identity_of
from qnet_actors.ledger.catchup import (
    ANSWER_TIMEOUT_MS,
    PAUSE_MS,
    PROGRESS_TIMEOUT_MS,
    CatchUpRun,
)
from qnet_actors.ledger.verify import check_certificate, check_records
from qnet_actors.rooms import CatchUp, CaughtUp, CheckpointCertified, CommitReady, CommitsExecuted
from qnet_actors.state import State
from qnet_actors.wire.blocks import BLOCK_RECORD_CODEC, Certificate
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.messages import LedgerBlocks, LedgerRequest
from tests.ledger.chain import blocks, certificates, chain_genesis, drive
from tests.ledger.rig import VERIFIER, Rig, certify
from tests.ledger.world import GENESIS_MS, Commits, a_batch, a_transaction

GENESIS = chain_genesis()
COMMITTEE = GENESIS.committee()
IDENTITY = identity_of(GENESIS, COMMITTEE)
TIP = genesis_tip(GENESIS)


def encoded(first: int, last: int) -> tuple[bytes, ...]:
    return tuple(block.encoded for block in blocks()[first - 1 : last])


def certificate_at(height: int) -> Certificate:
    """The newest certificate at `height` or below."""
    return max(
        (c for c in certificates() if c.checkpoint.height <= height),
        key=lambda c: c.checkpoint.height,
    )


def serve(rig: Rig, source: MemoryLog) -> None:
    """Answers the requests of `rig` honestly until it asks no more."""
    peer = Rig(GENESIS, source)
    while rig.sent:
        message, peers = rig.sent.pop(0)
        assert isinstance(message, LedgerRequest)
        assert peers is not None
        (asked,) = peers
        peer.receive(9, message)
        answer, _ = peer.sent.pop()
        rig.receive(asked, answer)


def source_of(count: int, stored: tuple[Certificate, ...] = certificates()) -> MemoryLog:
    rig = Rig(GENESIS)
    rig.log.write(blocks()[:count])
    for certificate in stored:
        if certificate.checkpoint.height <= count:
            rig.handle(CheckpointCertified(certificate))
    return rig.log


def test_takes_over_what_is_certified_and_hands_back_the_commits():
    rig = Rig(GENESIS)
    rig.handle(CatchUp((1, 2)))
    serve(rig, source_of(22))
    newest = certificate_at(22)
    height = newest.checkpoint.height
    assert height < 22
    assert (rig.tip.height, rig.log.last_height()) == (height, height)
    assert rig.log.records(1, 99, 10**9) == list(encoded(1, height))
    caught_up = rig.to_validator[-1]
    assert isinstance(caught_up, CaughtUp)
    assert caught_up.certificate == newest == rig.log.newest_certificate()
    assert caught_up.commits[-1].digest() == newest.checkpoint.commit_digest
    assert [c.index for c in caught_up.commits] == list(
        range(1, newest.checkpoint.commit_index + 1)
    )
    assert [e.record.header.height for e in rig.executed] == list(range(1, height + 1))
    assert all(e.batches == e.excluded == () for e in rig.executed)
    assert not rig.core.catching_up


def test_consensus_hears_of_executed_commits_before_the_end():
    rig = Rig(GENESIS)
    rig.handle(CatchUp((1, 2)))
    rig.receive(1, LedgerBlocks(encoded(1, 9), certificate_at(9)))
    height = certificate_at(9).checkpoint.height
    assert rig.core.catching_up
    assert rig.to_validator == [CommitsExecuted(height)]


def test_goes_on_by_itself_where_it_caught_up():
    rig = Rig(GENESIS)
    rig.handle(CatchUp((1,)))
    serve(rig, source_of(22))
    plain = Rig(GENESIS)
    drive(plain, 24)
    rig.batches.update(plain.batches)
    for ready in plain_commits(rig.tip.commit_index, 24):
        rig.handle(ready)
    assert rig.tip == plain.tip


def plain_commits(first: int, last: int) -> list[CommitReady]:
    """The commits of the chain after `first`, as the validator hands them over."""
    recorder = Rig(GENESIS)
    seen: list[CommitReady] = []
    handle = recorder.handle

    def record(event: object) -> None:
        if isinstance(event, CommitReady):
            seen.append(event)
        handle(event)

    recorder.handle = record  # type: ignore[method-assign]
    drive(recorder, last)
    return seen[first:]


def test_commits_that_waited_are_executed_after_catching_up():
    rig = Rig(GENESIS)
    source = source_of(12)
    rig.handle(CatchUp((1,)))
    # Consensus comes along while the answer is awaited.
    plain = Rig(GENESIS)
    drive(plain, 24)
    rig.batches.update(plain.batches)
    for ready in plain_commits(0, 24):
        rig.handle(ready)
    assert rig.tip.height == 0
    serve(rig, source)
    assert rig.tip == plain.tip
    assert rig.halted is None


def test_a_fork_between_consensus_and_a_certificate_halts():
    rig = Rig(GENESIS)
    rig.handle(CatchUp((1,)))
    rig.hold_bodies = True
    chain = Commits()
    for i in range(12):
        batch = a_batch([a_transaction(GENESIS, 1, i)])
        rig.commit(chain.next(GENESIS_MS + 351 * (i + 1), [batch]), [batch])
    serve(rig, source_of(12))
    assert rig.halted is not None
    assert "certified" in rig.halted


def lies() -> dict[str, LedgerBlocks]:
    """Answers that a peer might make up, each to a request from height 1 on."""
    records = encoded(1, 6)
    certificate = certificate_at(6)
    checkpoint = certificate.checkpoint
    at = checkpoint.height

    def tampered(height: int, **changes: object) -> LedgerBlocks:
        record = BLOCK_RECORD_CODEC.decode(records[height - 1])
        other = encode(msgspec.structs.replace(record, **changes))
        return LedgerBlocks((*records[: height - 1], other, *records[height:]), certificate)

    second = BLOCK_RECORD_CODEC.decode(records[1])
    balances = bytearray(second.write_set.balances)
    balances[7] ^= 1
    richer = msgspec.structs.replace(second.write_set, balances=bytes(balances))
    header = msgspec.structs.replace(second.header, write_set_digest=richer.digest())
    root = msgspec.structs.replace(checkpoint, state_root=bytes(32))
    last = BLOCK_RECORD_CODEC.decode(records[at - 1])
    return {
        "junk": LedgerBlocks((b"junk",), certificate),
        "gap": LedgerBlocks(records[1:], certificate),
        "order": LedgerBlocks((records[1], records[0], *records[2:]), certificate),
        "write_set": tampered(2, write_set=richer),
        "write_set_and_header": tampered(2, write_set=richer, header=header),
        "bodies": tampered(2, bodies=second.bodies[::-1]),
        "receipts": tampered(2, receipts=second.receipts[::-1]),
        "count": tampered(2, bodies=second.bodies[:1], receipts=second.receipts[:1]),
        "commits": tampered(2, commits=()),
        "no_checkpoint": tampered(at, checkpoint=None),
        "checkpoint": tampered(at, checkpoint=root),
        "two_signatures": LedgerBlocks(records, Certificate(checkpoint, certificate.votes[:2])),
        "one_twice": LedgerBlocks(records, Certificate(checkpoint, (certificate.votes[0],) * 3)),
        "stranger": LedgerBlocks(
            records,
            Certificate(
                checkpoint,
                (*certificate.votes[:2], msgspec.structs.replace(certificate.votes[2], author=7)),
            ),
        ),
        "bad_signature": LedgerBlocks(
            records,
            Certificate(
                checkpoint,
                (*certificate.votes[:2], msgspec.structs.replace(certificate.votes[1], author=3)),
            ),
        ),
        "other_epoch": LedgerBlocks(
            records,
            certify(GENESIS, msgspec.structs.replace(checkpoint, epoch=1), [0, 1, 2]),
        ),
        "other_root_signed_by_nobody": LedgerBlocks(
            (*records[: at - 1], encode(msgspec.structs.replace(last, checkpoint=root))),
            Certificate(root, certificate.votes),
        ),
    }


@pytest.mark.parametrize("lie", sorted(lies()))
def test_a_liar_is_left_for_the_next_peer(lie):
    rig = Rig(GENESIS)
    rig.handle(CatchUp((3, 1)))
    assert rig.sent.pop() == (LedgerRequest(1, 64), (3,))
    rig.receive(3, lies()[lie])
    assert rig.tip.height == 0
    assert rig.log.last_height() == 0
    ((_, peers),) = rig.sent
    assert peers == (1,)
    serve(rig, source_of(6))
    assert rig.tip.height == certificate_at(6).checkpoint.height
    assert isinstance(rig.to_validator[-1], CaughtUp)


def test_a_state_root_on_the_way_is_computed_and_not_believed():
    heights = [c.checkpoint.height for c in certificates()]
    middle, end = heights[0], heights[2]
    records = list(encoded(1, end))
    record = BLOCK_RECORD_CODEC.decode(records[middle - 1])
    assert record.checkpoint is not None
    forged = msgspec.structs.replace(record.checkpoint, state_root=bytes(32))
    records[middle - 1] = encode(msgspec.structs.replace(record, checkpoint=forged))
    rig = Rig(GENESIS)
    rig.handle(CatchUp((1,)))
    rig.receive(1, LedgerBlocks(tuple(records), certificate_at(end)))
    assert rig.tip.height == end
    assert rig.log.records(1, 99, 10**9) == list(encoded(1, end))


def test_a_certified_root_that_the_own_state_does_not_reach_is_a_fault():
    rig = Rig(GENESIS)
    # An account that nobody else has, as a fault of memory could leave it.
    nobody = np.frombuffer(b"\x09" * 32, dtype=np.uint8).reshape(1, 32)
    state = rig.core._state
    assert isinstance(state, State)
    values = state.read(nobody)
    values.balances[0] = 1
    state._partitions[0].write([b"\x09" * 32], values)
    rig.handle(CatchUp((1,)))
    with pytest.raises(QnetError) as caught:
        rig.receive(1, LedgerBlocks(encoded(1, 6), certificate_at(6)))
    assert caught.value.code is Code.DIVERGED


def test_certificates_that_come_late_are_waited_for_over_several_answers():
    heights = [c.checkpoint.height for c in certificates()]
    rig = Rig(GENESIS)
    rig.handle(CatchUp((1,)))
    newest = certificate_at(24)
    for first in range(1, heights[-1] + 1, 5):
        assert rig.sent.pop() == (LedgerRequest(first, 64), (1,))
        assert rig.tip.height == 0
        rig.receive(1, LedgerBlocks(encoded(first, first + 4), newest))
    assert rig.tip.height == heights[-1]


def test_answers_that_nobody_waits_for_are_ignored():
    rig = Rig(GENESIS)
    answer = LedgerBlocks(encoded(1, 6), certificate_at(6))
    rig.receive(1, answer)
    rig.handle(CatchUp((1, 2)))
    rig.receive(2, answer)
    assert rig.tip.height == 0
    rig.receive(1, answer)
    rig.receive(1, answer)
    assert rig.tip.height == certificate_at(6).checkpoint.height


def test_silence_passes_the_turn_on():
    rig = Rig(GENESIS)
    rig.handle(CatchUp((1, 2)))
    rig.at(ANSWER_TIMEOUT_MS - 1)
    assert [peers for _, peers in rig.sent] == [(1,)]
    assert rig.core.wake_ms() == ANSWER_TIMEOUT_MS
    rig.at(ANSWER_TIMEOUT_MS)
    assert [peers for _, peers in rig.sent] == [(1,), (2,)]
    # Too late: another has the turn.
    rig.receive(1, LedgerBlocks(encoded(1, 6), certificate_at(6)))
    assert rig.tip.height == 0


def test_without_any_certificate_it_asks_again_after_a_pause_and_executes_meanwhile():
    rig = Rig(GENESIS)
    rig.handle(CatchUp((1, 2)))
    for peer in (1, 2):
        rig.receive(peer, LedgerBlocks((), None))
    assert len(rig.sent) == 2
    assert rig.core.catching_up
    # Consensus need not wait for what nobody has.
    assert rig.to_validator == [CaughtUp(None, ())]
    drive(rig, 3)
    assert rig.tip.height == 3
    rig.at(PAUSE_MS)
    assert rig.sent[-1] == (LedgerRequest(4, 64), (1,))


def test_with_nothing_new_anywhere_consensus_gets_the_newest_certificate():
    rig = Rig(GENESIS, source_of(12))
    rig.handle(CatchUp((1, 2)))
    for peer in (1, 2):
        rig.receive(peer, LedgerBlocks((), certificate_at(12)))
    caught_up = rig.to_validator[-1]
    assert isinstance(caught_up, CaughtUp)
    assert caught_up.certificate == certificate_at(12)
    assert caught_up.commits[-1].index == caught_up.certificate.checkpoint.commit_index
    assert not rig.core.catching_up


def test_nothing_is_asked_while_a_block_executes():
    rig = Rig(GENESIS)
    rig.hold_runs = True
    drive(rig, 1)
    rig.run_next()
    rig.handle(CatchUp((1,)))
    assert rig.sent == []
    assert rig.core.wake_ms() is None
    rig.run_next()
    assert rig.sent == [(LedgerRequest(2, 64), (1,))]


def test_more_peers_may_be_offered_and_none_is_no_request():
    rig = Rig(GENESIS)
    rig.handle(CatchUp(()))
    assert not rig.core.catching_up
    rig.handle(CatchUp((1,)))
    rig.handle(CatchUp((1, 2)))
    rig.receive(1, LedgerBlocks((), None))
    assert [peers for _, peers in rig.sent] == [(1,), (2,)]


def test_a_drip_of_uncertified_blocks_loses_its_turn():
    run = CatchUpRun((1, 2), 0)
    assert run.ask(TIP.height + 1, 0) is not None
    assert run.take(1)
    records = tuple(check_records(IDENTITY, TIP, encoded(1, 2)))
    assert run.keep(records, 10)
    assert run.ask(TIP.height + 1, 10) == (1, LedgerRequest(3, 64))
    assert not run.is_late(1_000)
    assert run.take(1)
    assert run.keep(records, 1_900)
    assert run.ask(TIP.height + 1, PROGRESS_TIMEOUT_MS - 1) is not None
    assert run.is_late(PROGRESS_TIMEOUT_MS)


def test_what_is_held_uncertified_is_bounded(monkeypatch):
    monkeypatch.setattr("qnet_actors.ledger.catchup.HELD_BYTES_MAX", 2_000)
    rig = Rig(GENESIS)
    rig.handle(CatchUp((1, 2)))
    rig.receive(1, LedgerBlocks(encoded(1, 5), None))
    assert [peers for _, peers in rig.sent] == [(1,), (2,)]


def test_a_run_needs_somebody_to_ask():
    with pytest.raises(ValueError, match="nobody"):
        CatchUpRun((), 0)


def test_records_of_a_split_commit_are_taken_with_all_their_parts():
    small = msgspec.structs.replace(
        GENESIS, parameters=msgspec.structs.replace(GENESIS.parameters, block_gas_max=4_000)
    )
    whole = Rig(small)
    heavy = [a_batch([a_transaction(small, s, n) for n in range(2)], s % 4, 1) for s in range(6)]
    whole.commit(Commits().next(GENESIS_MS + 1_500, heavy), heavy)
    checkpoint = whole.executed[-1].record.checkpoint
    assert checkpoint is not None
    rig = Rig(small)
    rig.handle(CatchUp((1,)))
    answer = LedgerBlocks(
        tuple(whole.log.records(1, 9, 10**9)), certify(small, checkpoint, [0, 1, 2])
    )
    rig.receive(1, answer)
    assert rig.tip == whole.tip


def test_a_certificate_of_a_quorum_passes():
    for certificate in certificates():
        check_certificate(IDENTITY, COMMITTEE, certificate, VERIFIER)
    checkpoint = certificates()[0].checkpoint
    with pytest.raises(QnetError) as caught:
        check_certificate(IDENTITY, COMMITTEE, certify(GENESIS, checkpoint, [0, 1]), VERIFIER)
    assert caught.value.code is Code.BAD_CERTIFICATE


def test_records_check_out_and_give_the_tips():
    checked = check_records(IDENTITY, TIP, encoded(1, 24))
    assert [c.tip.block_hash for c in checked] == [b.block_hash for b in blocks()]
    assert [c.encoded for c in checked] == [b.encoded for b in blocks()]
