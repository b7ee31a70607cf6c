"""Proofs of equivocations: form, signatures, bounds, who is told, what the journal brings back."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from qnet_actors.rooms import Effect, FromPeer, PeerUp, Persist, Run, ToPeers
from qnet_actors.validators.checks import BlockRules
from qnet_actors.validators.evidence import (
    EVIDENCE_PER_AUTHOR_MAX,
    REPORTED_MAX,
    TELLS_MAX,
    EvidenceBook,
)
from qnet_actors.validators.journal import MemoryJournal
from qnet_actors.validators.journal_entries import EvidenceEntry
from qnet_actors.validators.recovery import recover
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.evidence import Equivocation, check_equivocation, equivocation_of
from qnet_actors.wire.messages import Evidence, Message
from tests.validators.support import VERIFIER, genesis_blocks, make_block, make_genesis
from tests.validators.test_core import Bench, make_core

GENESIS = make_genesis()
COMMITTEE = GENESIS.committee()
RULES = BlockRules(COMMITTEE, VERIFIER, GENESIS.chain_id())
ZERO = genesis_blocks(GENESIS)


def proof(author: int = 3, round_: int = 1, variant: int = 1) -> Equivocation:
    one, other = (
        make_block(round_, author, ZERO, timestamp_ms=at) for at in (round_ * 100, 10**6 + variant)
    )
    return equivocation_of(one, other)


def book(kept: Sequence[Equivocation] = ()) -> EvidenceBook:
    return EvidenceBook(RULES, (1, 2, 3), kept)


def told(effects: Sequence[Effect]) -> list[tuple[int, Message]]:
    return [
        (peer, effect.message)
        for effect in effects
        if isinstance(effect, ToPeers) and isinstance(effect.message, Evidence)
        for peer in effect.peers or ()
    ]


def prove(held: EvidenceBook) -> list[Effect]:
    """Carries out the job that checks what was reported, if there is one."""
    out: list[Effect] = []
    for effect in held.check():
        assert isinstance(effect, Run)
        out += effect.then(effect.call(), 0)
    return out


def test_a_proof_is_the_same_whichever_block_came_first() -> None:
    one, other = (make_block(1, 2, ZERO, timestamp_ms=at) for at in (1, 2))
    made = equivocation_of(one, other)
    assert made == equivocation_of(other, one)
    assert (made.author, made.round, made.epoch) == (2, 1, 0)
    assert {made.first.slot.digest(), made.second.slot.digest()} == {one.digest, other.digest}
    check_equivocation(made)
    assert RULES.proven([made]) == [made]


def test_what_proves_nothing_is_refused() -> None:
    good = proof()
    replace = msgspec.structs.replace
    swapped = Equivocation(good.second, good.first)
    same = Equivocation(good.first, good.first)
    apart = Equivocation(good.first, proof(author=2).second)
    for bad in (swapped, same, apart):
        with pytest.raises(QnetError) as caught:
            check_equivocation(bad)
        assert caught.value.code == Code.MALFORMED
    forged = replace(good, second=replace(good.second, signature=good.first.signature))
    later = Equivocation(
        *(
            replace(signed, slot=replace(signed.slot, epoch=1))
            for signed in (good.first, good.second)
        )
    )
    stranger = Equivocation(
        *(
            replace(signed, slot=replace(signed.slot, author=4))
            for signed in (good.first, good.second)
        )
    )
    assert RULES.proven([swapped, forged, good, later, stranger]) == [good]


def test_two_proofs_an_author_are_kept_each_of_another_round_and_all_are_counted() -> None:
    held = book()
    blocks = [make_block(1, 2, ZERO, timestamp_ms=i) for i in range(9)]
    for block in blocks[1:]:
        held.saw(blocks[0], block)
    assert held.count == 8
    assert held.equivocations() == (equivocation_of(blocks[0], blocks[1]),)
    for round_ in (2, 3):
        held.reported(1, [proof(2, round_)])
        prove(held)
    assert len(held.equivocations()) == EVIDENCE_PER_AUTHOR_MAX


def test_a_new_proof_is_durable_before_the_others_are_told() -> None:
    one, other = (make_block(1, 3, ZERO, timestamp_ms=at) for at in (1, 2))
    effects = book().saw(one, other)
    expected = equivocation_of(one, other)
    assert effects[0] == Persist((EvidenceEntry(expected),))
    assert told(effects) == [(1, Evidence((expected,))), (2, Evidence((expected,)))]


def test_a_reported_proof_is_checked_kept_and_passed_on() -> None:
    held = book()
    held.reported(1, [proof()])
    effects = prove(held)
    assert held.equivocations() == (proof(),)
    assert isinstance(effects[0], Persist)
    assert 2 in [peer for peer, _ in told(effects)]
    held.reported(2, [proof()])
    assert not held.check()


def test_who_reports_what_does_not_hold_is_not_heard_again() -> None:
    held = book()
    bad = proof(2)
    bad = msgspec.structs.replace(bad, second=proof(1).second)
    held.reported(1, [bad])
    assert not prove(held)
    held.reported(1, [proof()])
    assert not held.check()
    held.reported(2, [proof()])
    assert prove(held)


def test_a_flood_of_reports_is_bounded() -> None:
    held = book()
    held.reported(1, [proof(3, round_) for round_ in range(1, 3 * REPORTED_MAX)])
    jobs = held.check()
    assert len(jobs) == 1
    assert isinstance(jobs[0], Run)
    assert len(jobs[0].call()) == REPORTED_MAX
    assert not held.check()


def test_a_peer_is_told_until_it_tells_itself_a_few_times_at_most() -> None:
    held = book([proof()])
    assert [bool(held.tell(1)) for _ in range(TELLS_MAX + 1)] == [True] * TELLS_MAX + [False]
    held.up(1)
    assert held.tell(1)
    held.reported(1, [proof()])
    assert not held.tell(1)
    assert held.tell(2)
    assert not held.tell(3), "the author knows"


def test_the_journal_brings_evidence_back_and_peers_hear_of_it() -> None:
    journal = MemoryJournal()
    bench = Bench(make_core(GENESIS, journal), journal)
    bench.answer(1, 2, 3)
    bench.do(FromPeer(1, Evidence((proof(),))))
    assert bench.core.evidence.equivocations() == (proof(),)
    again = Bench(make_core(GENESIS, journal.crash()), journal)
    assert again.core.evidence.equivocations() == (proof(),)
    assert told(again.do(PeerUp(2))) == [(2, Evidence((proof(),)))]


def test_a_snapshot_holds_the_evidence() -> None:
    journal = MemoryJournal()
    core = make_core(GENESIS, journal)
    bench = Bench(core, journal)
    bench.do(FromPeer(1, Evidence((proof(),))))
    core._journal.request_snapshot()
    bench.after(1)
    journalled = journal.journalled
    assert journalled.snapshot is not None
    assert journalled.snapshot.evidence == (proof(),)
    assert not [entry for entry in journalled.entries if isinstance(entry, EvidenceEntry)]


def test_a_journal_with_a_proof_that_does_not_hold_is_refused() -> None:
    journal = MemoryJournal()
    Bench(make_core(GENESIS, journal), journal).do()
    journal.write([EvidenceEntry(Equivocation(proof().second, proof().first))])
    with pytest.raises(QnetError) as caught:
        recover(journal.journalled, GENESIS, COMMITTEE, 0, VERIFIER)
    assert caught.value.code == Code.DATA_CORRUPT
