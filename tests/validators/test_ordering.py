from __future__ import annotations

from qnet_actors.validators.dag import Dag
from qnet_actors.validators.journal import MemoryJournal
from qnet_actors.validators.ordering import Ordering
from qnet_actors.validators.proposer import Proposer
from qnet_actors.validators.recovery import Recovered, recover
from qnet_actors.wire.dag import BlockRef, DagBlock
from tests.validators.drawing import Drawing
from tests.validators.support import START_MS, VERIFIER, make_genesis, sign

GENESIS = make_genesis()
COMMITTEE = GENESIS.committee()
FULL = "A->* B->* C->* D->*"


def nothing() -> Recovered:
    return recover(MemoryJournal().journalled, GENESIS, COMMITTEE, 0, VERIFIER)


def drawn(*lines: str) -> dict[str, DagBlock]:
    text = "\n".join(f"R{i + 1}: {line}" for i, line in enumerate(lines))
    return Drawing(COMMITTEE, text).blocks


def test_leaders_are_committed_in_order_and_asked_for_once() -> None:
    blocks = drawn(*[FULL] * 6)
    dag = Dag(COMMITTEE)
    ordering = Ordering(GENESIS, COMMITTEE, dag, nothing())
    assert ordering.missing() == []
    assert ordering.is_ready
    rounds = []
    for block in blocks.values():
        dag.add(block)
        for leader in ordering.next_leaders():
            rounds.append(leader.ref.round)
            ordering.commit(leader)
        assert ordering.next_leaders() == []
    assert rounds == [1, 2, 3, 4]
    assert ordering.decided_round == 4
    assert [item.commit.leader.round for item in ordering.queue.take()] == rounds


def test_nothing_is_committed_before_all_that_is_committed_is_here() -> None:
    blocks = drawn(*[FULL] * 6)
    whole = Dag(COMMITTEE)
    source = Ordering(GENESIS, COMMITTEE, whole, nothing())
    for block in blocks.values():
        whole.add(block)
    for leader in source.next_leaders():
        source.commit(leader)
    dag = Dag(COMMITTEE)
    ordering = Ordering(GENESIS, COMMITTEE, dag, nothing())
    ordering.restart(source.linearizer.recent)
    committed = ordering.linearizer.committed()
    assert sorted(ordering.missing()) == sorted(committed)
    assert not ordering.is_ready
    for ref in committed[:-1]:
        dag.add(whole.block(ref.digest) or blocks["A1"])
    assert ordering.missing() == committed[-1:]
    assert not ordering.is_ready
    dag.add(whole.block(committed[-1].digest) or blocks["A1"])
    assert ordering.missing() == []
    assert ordering.is_ready


def proposer(dag: Dag) -> Proposer:
    return Proposer(dag, COMMITTEE, 0, dag.genesis[0])


def made(by: Proposer, dag: Dag, round_: int, now_ms: int = START_MS) -> DagBlock:
    block = sign(by.header(round_, (), (), now_ms))
    dag.add(block)
    by.made(block)
    return block


def authors(refs: tuple[BlockRef, ...]) -> list[tuple[int, int]]:
    return [(ref.author, ref.round) for ref in refs]


def test_a_block_names_the_own_one_first_and_of_the_others_what_is_new() -> None:
    # D stops after round 1, C is a round late.
    blocks = drawn("B->* C->* D->*", "B->[B1,C1,D1]", "B->[B2,C1,D1]")
    dag = Dag(COMMITTEE)
    own = proposer(dag)
    assert authors(made(own, dag, 1).header.ancestors) == [(a, 0) for a in range(4)]
    for name in ("B1", "C1", "D1"):
        dag.add(blocks[name])
    assert authors(made(own, dag, 2).header.ancestors) == [(0, 1), (1, 1), (2, 1), (3, 1)]
    dag.add(blocks["B2"])
    assert authors(made(own, dag, 3).header.ancestors) == [(0, 2), (1, 2)]
    dag.add(blocks["B3"])
    # A round that one is behind in is named as far as it goes, and never a round too high.
    assert authors(own.header(3, (), (), START_MS).ancestors) == [(0, 3)]
    assert authors(own.header(4, (), (), START_MS).ancestors) == [(0, 3), (1, 3)]


def test_of_an_equivocators_blocks_the_first_admitted_is_named() -> None:
    blocks = drawn("B->* C->* D->* D'->*")
    dag = Dag(COMMITTEE)
    for name in ("B1", "C1", "D1'", "D1"):
        dag.add(blocks[name])
    assert blocks["D1'"].ref in proposer(dag).header(2, (), (), START_MS).ancestors


def test_own_timestamps_do_not_go_back_with_the_clock() -> None:
    dag = Dag(COMMITTEE)
    own = proposer(dag)
    assert made(own, dag, 1, START_MS + 500).header.timestamp_ms == START_MS + 500
    assert own.header(2, (), (), START_MS).timestamp_ms == START_MS + 500
