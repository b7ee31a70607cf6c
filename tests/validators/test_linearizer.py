from __future__ import annotations

import pytest

from qnet_actors.validators.dag import Dag
from qnet_actors.validators.linearizer import Linearizer
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import GENESIS_COMMIT_DIGEST, BlockRef, Commit, DagBlock
from tests.validators.drawing import Drawing
from tests.validators.support import START_MS, genesis_blocks, make_block, make_genesis

FULL = "A->* B->* C->* D->*"


def over(drawing: Drawing, depth: int = 64) -> Linearizer:
    return Linearizer(drawing.dag(), drawing.committee, depth, START_MS)


def names(drawing: Drawing, commit: Commit) -> list[str]:
    known = {block.digest: name for name, block in drawing.blocks.items()}
    return [known[ref.digest] for ref in commit.blocks]


def drawn(*lines: str, stakes: tuple[int, ...] = (1, 1, 1, 1)) -> Drawing:
    text = "\n".join(f"R{i + 1}: {line}" for i, line in enumerate(lines))
    return Drawing(make_genesis(stakes).committee(), text)


def test_a_commit_holds_the_leader_and_its_uncommitted_history_in_order() -> None:
    drawing = drawn(FULL, "A->* B->-D", FULL)
    linearizer = over(drawing)
    first = linearizer.commit(drawing.blocks["B2"])
    assert names(drawing, first) == ["A1", "B1", "C1", "B2"]
    assert first.blocks == tuple(sorted(first.blocks))
    second = linearizer.commit(drawing.blocks["C3"])
    assert names(drawing, second) == ["D1", "A2", "C3"]


def test_commits_are_a_hash_chain() -> None:
    drawing = drawn(FULL, FULL, FULL)
    linearizer = over(drawing)
    commits = [linearizer.commit(drawing.blocks[name]) for name in ("A1", "B2", "C3")]
    assert [commit.index for commit in commits] == [1, 2, 3]
    assert commits[0].previous == GENESIS_COMMIT_DIGEST
    assert commits[1].previous == commits[0].digest()
    assert commits[2].previous == commits[1].digest()
    assert linearizer.digest == commits[2].digest()
    assert linearizer.is_committed(drawing.blocks["A1"].ref)
    assert not linearizer.is_committed(drawing.blocks["D3"].ref)


def test_both_blocks_of_an_equivocator_are_ordered_where_both_are_referenced() -> None:
    drawing = drawn("A->* B->* C->* D->* D'->*", "A->* B->[D1',A1,B1,C1]", FULL)
    commit = over(drawing).commit(drawing.blocks["A3"])
    assert set(names(drawing, commit)) >= {"D1", "D1'"}
    assert len(commit.blocks) == len(set(commit.blocks))


def stamped(stakes: tuple[int, ...], timestamps: list[int]) -> tuple[Committee, Dag, DagBlock]:
    """A leader of round 2 over parents with these timestamps."""
    genesis = make_genesis(stakes)
    dag = Dag(genesis.committee())
    refs: list[BlockRef] = []
    for author, timestamp_ms in enumerate(timestamps):
        block = make_block(1, author, genesis_blocks(genesis), timestamp_ms=timestamp_ms)
        dag.add(block)
        refs.append(block.ref)
    leader = make_block(2, 0, refs, timestamp_ms=1)
    dag.add(leader)
    return genesis.committee(), dag, leader


@pytest.mark.parametrize(
    ("stakes", "timestamps", "median"),
    [
        ((1, 1, 1), [30, 10, 20], 20),
        ((1, 1, 1, 1), [40, 10, 30, 20], 20),
        ((1, 1, 1, 1), [10**18, 10, 30, 20], 20),
        ((5, 4, 3, 1), [40, 10, 30, 20], 30),
        ((7,), [77], 77),
    ],
)
def test_the_timestamp_is_the_median_by_stake_of_the_parents(
    stakes: tuple[int, ...], timestamps: list[int], median: int
) -> None:
    committee, dag, leader = stamped(stakes, timestamps)
    assert Linearizer(dag, committee, 64, 0).commit(leader).timestamp_ms == median


def test_time_does_not_go_back_and_begins_at_genesis() -> None:
    committee, dag, leader = stamped((1, 1, 1, 1), [10, 20, 30, 40])
    linearizer = Linearizer(dag, committee, 64, 1_000)
    first = linearizer.commit(dag.blocks_in(1)[0])
    assert first.timestamp_ms == 1_000
    assert linearizer.commit(leader).timestamp_ms == 1_000


def test_what_is_at_or_below_gc_round_is_left_out_as_the_commit_before_fixed_it() -> None:
    # D1 is referenced late, by D12; with depth 8 it is lost once a leader of round 9 is committed.
    lines = [FULL, *["A->-D B->-D C->-D"] * 10]
    text = "\n".join(f"R{i + 1}: {line}" for i, line in enumerate(lines))
    text += "\nR12: A->-D B->-D C->-D D->[D1,A11,B11,C11]\nR13: A->*"
    drawing = Drawing(make_genesis().committee(), text)
    for first, kept in (("A8", True), ("A9", False)):
        linearizer = over(drawing, depth=8)
        linearizer.commit(drawing.blocks[first])
        assert linearizer.gc_round == (0 if kept else 1)
        assert ("D1" in names(drawing, linearizer.commit(drawing.blocks["A13"]))) == kept


def test_a_restarted_chain_goes_on_the_same() -> None:
    drawing = drawn(*[FULL] * 12)
    leaders = [drawing.blocks[f"{'ABCD'[i % 4]}{i + 1}"] for i in range(12)]
    whole = over(drawing, depth=4)
    commits = [whole.commit(leader) for leader in leaders[:9]]
    recent = whole.recent
    assert recent == tuple(commits[-len(recent) :])
    assert recent[0].leader.round > whole.gc_round
    rest = [whole.commit(leader) for leader in leaders[9:]]
    again = Linearizer(drawing.dag(), drawing.committee, 4, START_MS, recent)
    assert (again.index, again.round, again.gc_round) == (9, 9, 5)
    assert [again.commit(leader) for leader in leaders[9:]] == rest
    assert {ref.round for ref in again.committed()} <= set(range(again.gc_round + 1, 13))


def test_commits_that_are_no_chain_are_refused() -> None:
    drawing = drawn(FULL, FULL, FULL)
    linearizer = over(drawing)
    commits = [linearizer.commit(drawing.blocks[name]) for name in ("A1", "B2", "C3")]
    for wrong in ([commits[0], commits[2]], [commits[1], commits[0]]):
        with pytest.raises(QnetError, check=lambda e: e.code == Code.DATA_CORRUPT):
            over(drawing).restart(wrong)


def test_memory_is_bounded_by_the_depth() -> None:
    drawing = drawn(*[FULL] * 30)
    linearizer = over(drawing, depth=4)
    for round_ in range(1, 31):
        linearizer.commit(drawing.blocks[f"A{round_}"])
        assert len(linearizer.recent) <= 4
        assert len(linearizer.committed()) <= 4 * 4
