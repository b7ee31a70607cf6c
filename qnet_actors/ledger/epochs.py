"""Where the epoch stands after a job of the ledger, and whether the next one can begin."""

from __future__ import annotations

from qnet_actors.ledger.catchup import Rules, apply_records
from qnet_actors.ledger.joining import Manifest, install
from qnet_actors.ledger.outcome import LedgerState
from qnet_actors.ledger.plan import SnapshotPlan
from qnet_actors.ledger.registry import Epoch, read_epoch, rules_of
from qnet_actors.ledger.verify import CheckedRecord, check_certificate
from qnet_actors.ledger.writes import BlockReader, BlockWrite, SnapshotWrite
from qnet_actors.wire.blocks import Certificate, Checkpoint
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.rules import check_known


def apply_and_look(
    state: LedgerState,
    records: tuple[CheckedRecord, ...],
    certificate: Certificate,
    plan: SnapshotPlan,
) -> tuple[list[BlockWrite | SnapshotWrite], Epoch]:
    """See `catchup.apply_records`."""
    writes = apply_records(state, records, certificate, plan)
    return writes, read_epoch(state)


def install_and_look(state: LedgerState, log: BlockReader, manifest: Manifest) -> Epoch:
    """See `joining.install`."""
    install(state, log, manifest)
    return read_epoch(state)


def prove_last(
    rules: Rules, executed: Checkpoint | None, certificate: Certificate | None
) -> Certificate | None:
    """The certificate, where it is good and of the checkpoint executed here."""
    if certificate is None or certificate.checkpoint != executed:
        return None
    try:
        check_certificate(rules.identity, rules.committee, certificate, rules.verifier)
    except QnetError:
        return None
    return certificate


def unknown_rules(state: LedgerState, genesis: Genesis) -> str | None:
    """Why this software cannot take part in the epoch that the state stands in; None: it can."""
    try:
        check_known(read_epoch(state).number, rules_of(state, genesis).version)
    except QnetError as error:
        return str(error)
    return None
