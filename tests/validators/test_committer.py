from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnet_actors.validators.committer import BrokenAssumption, Committer
from qnet_actors.validators.dag import Dag
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.dag import BlockRef, DagBlock, genesis_refs
from tests.validators import oracle
from tests.validators.drawing import Drawing
from tests.validators.support import make_block, round_robin

# Leaders come in turn: A1, B2, C3, D4, A5, ...
FULL = "A->* B->* C->* D->*"


def decided(text: str, stakes: Sequence[int] = (1, 1, 1, 1)) -> list[str]:
    """The names of the committed leaders, or "skip", from round 1 on."""
    drawing = Drawing(round_robin(stakes), text)
    names = {block.digest: name for name, block in drawing.blocks.items()}
    decisions = Committer(drawing.dag(), drawing.committee).decide(0)
    assert [decision.round for decision in decisions] == list(range(1, len(decisions) + 1))
    return [names[d.leader.digest] if d.leader else "skip" for d in decisions]


def rounds(*lines: str) -> str:
    return "\n".join(f"R{i + 1}: {line}" for i, line in enumerate(lines))


def test_a_leader_with_a_quorum_of_certificates_is_committed_directly() -> None:
    assert decided(rounds(FULL, FULL, FULL)) == ["A1"]
    assert decided(rounds(FULL, FULL, FULL, FULL, FULL)) == ["A1", "B2", "C3"]


def test_two_rounds_decide_nothing() -> None:
    assert decided(rounds(FULL, FULL)) == []


def test_two_certificates_of_four_are_no_quorum() -> None:
    assert decided(rounds(FULL, FULL, "A->* B->*")) == []
    assert decided(rounds(FULL, FULL, "A->* B->* C->*")) == ["A1"]


def test_a_quorum_that_references_no_leader_skips_it_directly() -> None:
    assert decided(rounds(FULL, "A->* B->-A C->-A D->-A")) == ["skip"]


def test_an_absent_leader_is_skipped() -> None:
    assert decided(rounds("B->* C->* D->*", "B->* C->* D->*")) == ["skip"]


def test_two_that_reference_no_leader_do_not_skip_it() -> None:
    assert decided(rounds(FULL, "A->* B->* C->-A D->-A")) == []


def test_a_certificate_in_the_history_of_the_anchor_commits_indirectly() -> None:
    # A1 has three votes.  Only D3 sees all of them, and the anchor D4 stands on D3.
    text = rounds(
        FULL,
        "A->* B->* C->* D->-A",
        "A->-B B->-A C->-A D->-D",
        FULL,
        FULL,
        FULL,
    )
    assert decided(text)[:4] == ["A1", "B2", "C3", "D4"]


def test_a_slot_stays_open_while_its_anchor_is() -> None:
    text = rounds(FULL, "A->* B->* C->* D->-A", "A->-B B->-A C->-A D->-D", FULL, FULL)
    assert decided(text) == []


def test_no_certificate_in_the_history_of_the_anchor_skips_indirectly() -> None:
    # Two votes of four: neither a certificate nor the skip pattern.
    text = rounds(FULL, "A->* B->* C->-A D->-A", FULL, FULL, FULL, FULL)
    assert decided(text)[:4] == ["skip", "B2", "C3", "D4"]


def test_a_certificate_outside_the_history_of_the_anchor_does_not_count() -> None:
    # D3 is the only certificate of A1, and nobody stands on D3.
    text = rounds(
        FULL,
        "A->* B->* C->* D->-A",
        "A->-B B->-A C->-A D->-D",
        "A->-D B->-D C->-D D->[D2,A3,B3,C3]",
        FULL,
        FULL,
    )
    assert decided(text)[0] == "skip"


def test_a_skipped_slot_is_no_anchor() -> None:
    # D4 is skipped, so A5 anchors the slot of A1, and through it the one certificate D3 counts.
    text = rounds(
        FULL,
        "A->* B->* C->* D->-A",
        "A->-B B->-A C->-A D->-D",
        FULL,
        "A->-D B->-D C->-D D->*",
        FULL,
        FULL,
    )
    assert decided(text)[:5] == ["A1", "B2", "C3", "skip", "A5"]


def test_an_equivocating_leader_with_split_votes_is_not_committed_directly() -> None:
    text = rounds(
        "A->* A'->* B->* C->* D->*",
        "A->* B->* C->[A1',C1,B1,D1] D->[A1',D1,B1,C1]",
        FULL,
        FULL,
        FULL,
        FULL,
    )
    assert decided(text)[0] == "skip"


def test_one_block_of_an_equivocating_leader_may_be_committed() -> None:
    text = rounds(
        "A->* A'->* B->* C->* D->*",
        "A->* B->[A1',C1,B1,D1] C->[A1',C1,B1,D1] D->[A1',D1,B1,C1]",
        FULL,
    )
    assert decided(text) == ["A1'"]


def test_an_equivocating_voter_counts_once() -> None:
    # D votes with three blocks, and with A's that is two votes of four.
    text = rounds(FULL, "A->* B->-A C->-A D->* D'->* D''->*", FULL, FULL, FULL, FULL)
    assert decided(text)[0] == "skip"


def test_an_equivocating_certifier_counts_once() -> None:
    assert decided(rounds(FULL, FULL, "A->* D->* D'->* D''->*")) == []


def test_two_committed_leader_blocks_of_one_slot_are_a_broken_assumption() -> None:
    # All but A equivocate: two of four, and more, are Byzantine.
    text = rounds(
        "A->* A'->* B->* C->* D->*",
        "B->* C->* D->* B'->[A1',B1,C1,D1] C'->[A1',B1,C1,D1] D'->[A1',B1,C1,D1]",
        "B->* C->* D->* B'->[B2',C2',D2'] C'->[B2',C2',D2'] D'->[B2',C2',D2']",
    )
    with pytest.raises(BrokenAssumption, match="round 1"):
        decided(text)


def test_leaders_that_jump_over_their_own_rounds_commit_nothing_for_ever() -> None:
    # The published trace against free round jumping, which the pacemaker rules out.
    lines = [" ".join(f"{a}->*" for a in "ABCD" if a != "ABCD"[i % 4]) for i in range(40)]
    assert decided(rounds(*lines)) == ["skip"] * 39


def test_one_validator_decides_alone() -> None:
    assert decided(rounds("A->*", "A->*", "A->*", "A->*"), (1,)) == ["A1", "A2"]


def test_seven_validators_need_five() -> None:
    every = " ".join(f"{letter}->*" for letter in "ABCDEFG")
    four = "A->* B->* C->* D->*"
    assert decided(rounds(every, every, four), (1,) * 7) == []
    assert decided(rounds(every, every, f"{four} E->*"), (1,) * 7) == ["A1"]


def test_stake_decides_not_heads() -> None:
    # 5 + 4 of 12 are a quorum; the other two together are none.
    stakes = (5, 4, 2, 1)
    assert decided(rounds(FULL, FULL, "A->* B->*"), stakes) == ["A1"]
    assert decided(rounds(FULL, FULL, "B->* C->* D->*"), stakes) == []
    assert decided(rounds(FULL, "A->* B->-A C->-A D->-A"), stakes) == []


def test_deciding_twice_gives_the_same_and_goes_on_from_there() -> None:
    drawing = Drawing(round_robin(), rounds(*[FULL] * 6))
    committer = Committer(drawing.dag(), drawing.committee)
    first = committer.decide(0)
    assert committer.decide(0) == first
    assert committer.decide(2) == first[2:]
    committer.forget(2)
    assert committer.decide(2) == first[2:]


def test_settled_is_a_quorum_of_votes_or_the_skip_pattern() -> None:
    def settled(line: str) -> bool:
        drawing = Drawing(round_robin(), rounds(FULL, line))
        return Committer(drawing.dag(), drawing.committee).settled(1)

    assert settled("A->* B->* C->*")
    assert settled("B->-A C->-A D->-A")
    assert not settled("A->* B->*")
    assert not settled("A->* B->* C->-A D->-A")


def causal_order(blocks: Sequence[DagBlock], picks: Sequence[int]) -> list[DagBlock]:
    """An order in which ancestors come first, chosen by `picks`."""
    left = list(blocks)
    done: set[bytes] = set()
    known = {block.digest for block in blocks}
    order: list[DagBlock] = []
    for pick in picks:
        ready = [
            block
            for block in left
            if all(a.digest in done or a.digest not in known for a in block.header.ancestors)
        ]
        if not ready:
            break
        block = ready[pick % len(ready)]
        left.remove(block)
        done.add(block.digest)
        order.append(block)
    return order


STAKES = (
    (7,),
    (1, 1, 1, 1),
    (5, 4, 2, 2),
    (3, 3, 3, 1),
    (3, 3, 2, 2, 1),
    (4, 3, 3, 2, 2, 1),
    (1,) * 7,
    (5, 4, 4, 3, 3, 2, 2),
    (4, 4, 3, 3, 2, 2, 2, 1, 1, 1),
)


def random_dag(seed: int, stakes: tuple[int, ...]) -> tuple[Committee, list[DagBlock]]:
    """Valid blocks of some rounds; less than a third of the stake is absent or equivocates."""
    rng = Random(seed)
    committee = round_robin(stakes)
    count = len(stakes)
    # A lone validator is honest: -1 is nobody.
    byzantine = rng.choice([a for a in range(count) if 3 * stakes[a] < sum(stakes)] or [-1])
    shy = rng.random()
    """How likely a block is to leave out the leader of the round before."""
    newest: dict[int, list[BlockRef]] = {
        author: [ref] for author, ref in enumerate(genesis_refs(committee.seed, count))
    }
    blocks: list[DagBlock] = []
    for round_ in range(1, rng.randrange(5, 14)):
        below = {a: [r for r in refs if r.round == round_ - 1] for a, refs in newest.items()}
        made: dict[int, list[BlockRef]] = {}
        for author in range(count):
            variants = rng.randrange(3) if author == byzantine else 1
            for variant in range(variants):
                others = [a for a in range(count) if below[a] and a != author]
                rng.shuffle(others)
                if round_ > 1 and rng.random() < shy:
                    others.sort(key=lambda a: a == committee.leader(round_ - 1))
                ancestors = {author: rng.choice(newest[author])}
                for other in others:
                    parents = [a for a, ref in ancestors.items() if ref.round == round_ - 1]
                    if committee.has_quorum(parents) and rng.random() < 0.6:
                        break
                    ancestors[other] = rng.choice(below[other])
                block = make_block(
                    round_, author, list(ancestors.values()), timestamp_ms=1_000 * round_ + variant
                )
                blocks.append(block)
                made.setdefault(author, []).append(block.ref)
        newest |= made
    return committee, blocks


def outcome(committee: Committee, blocks: Sequence[DagBlock]) -> list[str]:
    """What a validator decides that admits blocks one by one and decides at each step."""
    dag = Dag(committee)
    committer = Committer(dag, committee)
    said: list[str] = []
    for block in blocks:
        dag.add(block)
        decisions = committer.decide(len(said))
        said += [d.leader.digest.hex() if d.leader else oracle.SKIP for d in decisions]
        committer.forget(len(said))
    return said


@pytest.mark.parametrize("stakes", STAKES, ids=str)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=25)
def test_views_in_any_order_decide_alike_and_as_the_oracle(
    stakes: tuple[int, ...], seed: int
) -> None:
    committee, blocks = random_dag(seed, stakes)
    rng = Random(seed)
    picks = [rng.randrange(1_000) for _ in range(2 * len(blocks))]
    whole = causal_order(blocks, picks[: len(blocks)])
    assert len(whole) == len(blocks)
    said = outcome(committee, whole)
    assert said == oracle.decide(blocks, committee)
    # A view that holds only a part, grown in another order, decides nothing else.
    part = causal_order(blocks, picks[len(blocks) :])[: rng.randrange(len(blocks))]
    other = outcome(committee, part)
    assert said[: len(other)] == other
