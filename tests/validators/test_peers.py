from __future__ import annotations

import pytest

from qnet_actors.validators import peers as module
from qnet_actors.validators.dag import Dag
from qnet_actors.validators.intake import BLOCKS_PER_JOB_MAX, BLOCKS_PER_PEER_MAX, Intake
from qnet_actors.validators.peers import RESEND_MS, Archive, Peers
from qnet_actors.wire.dag import BlockRef, DagBlock, decode_dag_block
from qnet_actors.wire.messages import DagBlocks, PeerStatus
from tests.validators.drawing import Drawing
from tests.validators.support import genesis_blocks, make_block, make_genesis

FULL = "A->* B->* C->* D->*"
COMMITTEE = make_genesis().committee()
NOW = 70_000


def status(round_: int = 0, commit_index: int = 0) -> PeerStatus:
    return PeerStatus(0, round_, commit_index, 0, 0, 0)


def made(*lines: str) -> tuple[Drawing, Dag, Archive, Peers]:
    text = "\n".join(f"R{i + 1}: {line}" for i, line in enumerate(lines))
    drawing = Drawing(COMMITTEE, text)
    dag, archive = drawing.dag(), Archive(8)
    peers = Peers(dag, archive, COMMITTEE, 0, 64)
    for block in drawing.blocks.values():
        peers.saw(block)
    return drawing, dag, archive, peers


def names(drawing: Drawing, messages: list[DagBlocks]) -> list[str]:
    known = {block.digest: name for name, block in drawing.blocks.items()}
    return [known[decode_dag_block(data).digest] for m in messages for data in m.blocks]


def test_blocks_that_a_peer_went_on_without_are_pushed_once() -> None:
    # B has made B3 and B4 without C2; D knows all.
    lines = (FULL, FULL, "A->* B->-C C->* D->*", "A->-C B->[B3,A3,D3] C->* D->*")
    drawing, _, _, peers = made(*lines)
    assert names(drawing, peers.lacking(1, NOW)) == ["C2"]
    assert peers.lacking(1, NOW) == []
    assert names(drawing, peers.lacking(1, NOW + RESEND_MS)) == ["C2"]
    assert peers.lacking(3, NOW) == []
    peers.up(1)
    assert names(drawing, peers.lacking(1, NOW)) == ["C2"]


def test_own_blocks_above_a_round_are_sent_again_lowest_first() -> None:
    drawing, _, _, peers = made(*[FULL] * 5)
    assert names(drawing, peers.own_blocks(2, 2, NOW)) == ["A3", "A4", "A5"]
    assert peers.own_blocks(2, 2, NOW) == []
    peers.note_sent(drawing.blocks["A5"], NOW + RESEND_MS)
    assert names(drawing, peers.own_blocks(2, 3, NOW + RESEND_MS)) == ["A4"]


def test_a_peer_without_memory_is_sent_its_own_newest_block() -> None:
    drawing, _, _, peers = made(*[FULL] * 3)
    assert names(drawing, peers.blocks_of(2, NOW)) == ["C3"]


def test_a_request_is_answered_with_the_history_above_the_asker() -> None:
    drawing, _, _, peers = made(*[FULL] * 9)
    # Without a word of where it stands it gets what it asks for.
    refs = [drawing.blocks["B9"].ref, BlockRef(9, 1, bytes(32))]
    assert names(drawing, peers.serve(2, refs, NOW)) == ["B9"]
    slow = Drawing(COMMITTEE, f"R1: {FULL}\nR2: {FULL}")
    fresh = Peers(drawing.dag(), Archive(8), COMMITTEE, 0, 64)
    for block in slow.blocks.values():
        fresh.saw(block)
    fresh.said(2, status(round_=7))
    answer = names(drawing, fresh.serve(2, refs, NOW))
    assert answer == [f"{a}{r}" for r in (7, 8) for a in "ABCD"] + ["B9"]
    assert names(drawing, fresh.serve(2, refs, NOW)) == ["B9"]


def test_blocks_below_gc_round_are_served_from_the_archive_for_a_while() -> None:
    drawing, dag, archive, peers = made(*[FULL] * 9)
    archive.add(dag.collect(4), 4)
    refs = [drawing.blocks[name].ref for name in ("A1", "B4", "C6")]
    assert names(drawing, peers.serve(1, refs, NOW)) == ["A1", "B4", "C6"]
    archive.add([], 10)
    assert names(drawing, peers.serve(1, refs, NOW)) == ["B4", "C6"]


def test_a_block_that_is_asked_for_many_times_is_served_once() -> None:
    drawing, dag, archive, peers = made(*[FULL] * 9)
    archive.add(dag.collect(4), 4)
    refs = [drawing.blocks[name].ref for name in ("A1", "C6", "A1", "C6", "A1")]
    assert names(drawing, peers.serve(1, refs, NOW)) == ["A1", "C6"]


def test_answers_are_bounded_in_bytes_a_message_and_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawing, _, _, peers = made(*[FULL] * 3)
    size = len(drawing.blocks["A3"].encoded)
    monkeypatch.setattr(module, "MESSAGE_SIZE_BYTES_MAX", 3 * size)
    monkeypatch.setattr(module, "SERVED_BYTES_PER_SECOND", 3 * size)
    refs = [block.ref for block in drawing.blocks.values()]
    answer = peers.serve(1, refs, NOW)
    assert all(sum(map(len, message.blocks)) <= 3 * size for message in answer)
    served = sum(len(message.blocks) for message in answer)
    assert 3 <= served < len(refs)
    assert peers.serve(1, refs, NOW + 1) == []
    assert peers.serve(2, refs, NOW + 1) != []
    assert peers.serve(1, refs, NOW + 1_000) != []


def test_to_be_behind_takes_more_than_one_word_and_more_than_32_commits() -> None:
    _, _, _, peers = made(FULL)
    peers.said(1, status(commit_index=10**9))
    assert peers.behind(0) == ()
    peers.said(2, status(commit_index=132))
    assert peers.behind(100) == ()
    assert peers.behind(99) == (1, 2)


def test_a_flood_fills_only_its_senders_queue_and_jobs_are_shared() -> None:
    intake = Intake((1, 2, 3), knows=lambda digest: False)
    intake.add(1, [b"%d" % i for i in range(BLOCKS_PER_PEER_MAX + 7)])
    intake.add(2, [b"two"])
    assert intake.dropped == 7
    job = intake.take()
    assert BLOCKS_PER_JOB_MAX <= len(job) <= BLOCKS_PER_JOB_MAX + 3
    assert [item.peer for item in job[:3]] == [1, 2, 1]
    assert intake.take()[0].data == b"%d" % (len(job) - 1)


def test_what_is_known_is_not_checked_again_until_it_is_dropped() -> None:
    known: set[bytes] = set()
    intake = Intake((1,), knows=known.__contains__)
    intake.note(b"bytes", b"digest")
    known.add(b"digest")
    intake.add(1, [b"bytes", b"other"])
    assert [item.data for item in intake.take()] == [b"other"]
    known.clear()
    intake.add(1, [b"bytes"])
    assert [item.data for item in intake.take()] == [b"bytes"]


def test_one_block_signed_in_many_ways_costs_one_verification() -> None:
    known: set[bytes] = set()
    intake = Intake((1, 2), knows=known.__contains__)
    block = make_block(1, 2, genesis_blocks(make_genesis()))
    signed = [DagBlock(block.header, bytes([i]) * 32).encoded for i in range(9)]
    intake.add(1, signed)
    intake.add(2, signed[:1])
    assert [(item.peer, item.data) for item in intake.take()] == [(1, signed[0]), (2, signed[0])]
    assert intake.dropped == 8
    known.add(block.digest)
    intake.add(1, signed)
    assert not intake.take()


def test_variants_that_would_be_dropped_are_not_verified() -> None:
    intake = Intake((1,), knows=lambda digest: False, is_spare=lambda ref: ref.author == 2)
    zero = genesis_blocks(make_genesis())
    intake.add(1, [make_block(1, author, zero).encoded for author in (1, 2, 3)])
    assert [item.block.ref.author for item in intake.take() if item.block] == [1, 3]


def test_half_of_gc_depth_is_far_behind_where_that_is_less() -> None:
    # Batches are let go gc_depth commits after execution: who waits longer never gets them.
    peers = Peers(Dag(COMMITTEE), Archive(8), COMMITTEE, 0, 16)
    for peer in (1, 2):
        peers.said(peer, status(commit_index=108))
    assert peers.behind(100) == ()
    assert peers.behind(99) == (1, 2)
