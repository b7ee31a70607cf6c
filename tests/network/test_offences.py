"""What is kept of equivocations whose epoch is over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from qnet_actors.crypto import BatchVerifier
from qnet_actors.network.offences import (
    OFFENCES_MAX,
    MemoryOffences,
    OffenceFile,
    Offences,
    past_offences,
)
from qnet_actors.network.present import Present
from qnet_actors.validators import Journalled
from qnet_actors.validators.journal_entries import EvidenceEntry
from qnet_actors.validators.recovery import first_snapshot
from qnet_actors.wire.committee import Committee
from qnet_actors.wire.evidence import SignedSlot
from qnet_actors.wire.rules import first_rules
from qnet_actors.wire.transactions import ReportEquivocation
from tests.ledger.test_registry import proof as proof_in
from tests.ledger.test_registry import validator_key
from tests.network.test_reporting import CHAIN_ID, COMMITTEE, GENESIS, later, proof, report
from tests.validators.support import PROVIDER

VERIFIER = BatchVerifier(PROVIDER)
UNBONDING = GENESIS.parameters.unbonding_epochs


def present(epoch: int = 1, previous: Committee | None = COMMITTEE) -> Present:
    committee = Committee(later(0, 1, 2, 3).members, epoch, bytes(32))
    return Present(committee, first_rules(GENESIS.parameters), previous, 0, 0, None)


def journal(epoch: int = 0) -> Journalled:
    """With a proof in its snapshot, and another since."""
    snapshot = first_snapshot(GENESIS, COMMITTEE, 0)
    snapshot = msgspec.structs.replace(snapshot, epoch=epoch, evidence=(proof(),))
    return Journalled(snapshot, (EvidenceEntry(proof(3)), EvidenceEntry(proof(3, round_=2))))


def past(
    *kept: ReportEquivocation, journalled: Journalled | None = None, at: Present | None = None
) -> tuple[ReportEquivocation, ...]:
    return past_offences(kept, journalled or Journalled(), at or present(), CHAIN_ID, VERIFIER)


def test_the_journal_of_the_epoch_before_names_offenders_by_its_committee():
    assert past(journalled=journal()) == (report(), report(3))
    assert past(report(), journalled=journal()) == (report(), report(3))
    # Of a journal of this epoch, or of one whose committee is not known any more, nothing is taken.
    assert past(journalled=journal(1)) == ()
    assert past(journalled=journal(), at=present(2, later(0, 1, 2, 3))) == ()
    assert past(journalled=journal(), at=present(previous=None)) == ()


@pytest.mark.parametrize("epoch", range(1, UNBONDING + 2))
def test_what_is_too_old_to_be_punished_is_dropped(epoch: int):
    expected = (report(),) if epoch <= UNBONDING else ()
    assert past(report(), at=present(epoch, None)) == expected


def test_what_does_not_hold_is_dropped():
    good = report()
    other = ReportEquivocation(good.scheme, COMMITTEE.members[0].public_key, good.equivocation)
    short = ReportEquivocation(good.scheme, b"", good.equivocation)
    unknown = ReportEquivocation(99, good.public_key, good.equivocation)
    first = good.equivocation.first
    same = msgspec.structs.replace(good.equivocation, second=first)
    forged = msgspec.structs.replace(good.equivocation, first=SignedSlot(first.slot, bytes(32)))
    wrong = [
        ReportEquivocation(good.scheme, good.public_key, equivocation)
        for equivocation in (same, forged)
    ]
    for bad in (other, short, unknown, *wrong):
        assert past(bad) == ()
    assert past(report(3), other, short, unknown) == (report(3),)


def test_a_file_holds_what_was_written_last(tmp_path: Path):
    path = tmp_path / "offences"
    file, memory = OffenceFile(path), MemoryOffences()
    assert file.load() == memory.load() == ()
    for reports in ((report(),), (report(3), report()), ()):
        for store in (file, memory):
            store.write((Offences((report(0),)), Offences(reports)))
            assert store.load() == reports
        assert OffenceFile(path).load() == reports
    path.write_bytes(b"\x91\x91")
    assert file.load() == ()
    file.close()
    memory.close()


def test_no_more_is_kept_than_there_is_room_for_and_the_oldest_goes():
    key, newest = validator_key(0), OFFENCES_MAX + 4
    reports = [
        ReportEquivocation(key.scheme, key.public_key, proof_in(0, epoch=epoch, chain_id=CHAIN_ID))
        for epoch in reversed(range(newest))
    ]
    slow = msgspec.structs.replace(GENESIS.parameters, unbonding_epochs=newest)
    at = replace(present(newest, None), rules=first_rules(slow))
    kept = [report.equivocation.epoch for report in past(*reports, at=at)]
    assert kept == list(range(4, newest))
