"""Jobs of the ledger that tell, besides their own result, where they left the epoch."""

from __future__ import annotations

from qnet_actors.ledger.catchup import Rules, apply_records
from qnet_actors.ledger.joining import Manifest, install
from qnet_actors.ledger.outcome import LedgerState
from qnet_actors.ledger.plan import SnapshotPlan
from qnet_actors.ledger.registry import Epoch, read_epoch
from qnet_actors.ledger.verify import CheckedRecord, check_certificate
from qnet_actors.ledger.writes import BlockReader, BlockWrite, SnapshotWrite
from qnet_actors.wire.blocks import Certificate, Checkpoint
from qnet_actors.wire.codes import QnetError


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
