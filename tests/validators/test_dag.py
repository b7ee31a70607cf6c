from __future__ import annotations

from qnet_actors.validators.dag import Dag
from tests.validators.drawing import Drawing
from tests.validators.support import make_genesis

TEXT = """
    R1: A->* B->* C->* D->* D'->*
    R2: A->* B->* C->*
    R3: A->* B->*
"""


def drawn() -> Drawing:
    return Drawing(make_genesis().committee(), TEXT)


def test_blocks_are_found_by_digest_round_and_slot() -> None:
    drawing = drawn()
    dag, blocks = drawing.dag(), drawing.blocks
    assert len(dag) == 10
    assert dag.block(blocks["C2"].digest) is blocks["C2"]
    assert dag.block(bytes(32)) is None
    assert [b.ref.author for b in dag.blocks_in(2)] == [0, 1, 2]
    assert list(dag.blocks_at(1, 3)) == [blocks["D1"], blocks["D1'"]]
    assert not dag.blocks_at(2, 3)
    assert not dag.blocks_in(9)
    assert blocks["A1"].digest in dag


def test_a_quorum_counts_authors_not_blocks() -> None:
    drawing = drawn()
    dag = Dag(drawing.committee)
    assert dag.has_quorum(0)
    assert not dag.has_quorum(1)
    for name in ("A1", "D1", "D1'"):
        dag.add(drawing.blocks[name])
    assert not dag.has_quorum(1)
    assert dag.quorum_round == 0
    dag.add(drawing.blocks["B1"])
    assert dag.has_quorum(1)
    assert dag.quorum_round == 1
    whole = drawing.dag()
    assert (whole.quorum_round, whole.highest_round) == (2, 3)


def test_a_block_is_added_once() -> None:
    drawing = drawn()
    dag = drawing.dag()
    before = dag.admitted_count
    dag.add(drawing.blocks["A1"])
    assert (len(dag), dag.admitted_count) == (10, before)


def test_the_latest_block_of_an_author_is_the_first_of_its_highest_round() -> None:
    dag = drawn().dag()
    latest = {author: dag.latest(author) for author in range(4)}
    assert [block.ref.round if block else None for block in latest.values()] == [3, 3, 2, 1]
    assert dag.latest(3) is dag.blocks_at(1, 3)[0]


def test_collecting_drops_rounds_and_covers_what_stood_there() -> None:
    drawing = drawn()
    dag, blocks = drawing.dag(), drawing.blocks
    dropped = dag.collect(1)
    assert [block.ref.round for block in dropped] == [1] * 5
    assert len(dag) == 5
    assert dag.block(blocks["A1"].digest) is None
    assert dag.covers(blocks["A1"].ref)
    assert dag.latest(3) is None
    assert dag.collect(1) == []
    dag.add(blocks["A1"])
    assert len(dag) == 5
    assert [block.ref.round for block in dag.blocks()] == [2, 2, 2, 3, 3]


def test_collecting_everything_leaves_no_quorum() -> None:
    dag = drawn().dag()
    dag.collect(20)
    assert len(dag) == 0
    assert (dag.quorum_round, dag.highest_round, dag.gc_round) == (20, 20, 20)
    assert not dag.has_quorum(20)
