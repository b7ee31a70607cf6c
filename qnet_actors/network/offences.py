"""Equivocations of epochs that are over: what is still to be reported, and where it is kept.

While an epoch lasts the proofs stand in the consensus journal, which begins anew with the next one.
What is kept here is small: punished offences leave it, and none stays longer than the stake of its
epoch is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import msgspec

from qnet_actors.durable import write_whole
from qnet_actors.ledger import is_punishable
from qnet_actors.network.present import Present
from qnet_actors.rooms import Storage
from qnet_actors.validators import Journalled, journalled_evidence
from qnet_actors.wire.codec import Codec, Struct, encode
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.evidence import check_equivocation
from qnet_actors.wire.limits import VALIDATORS_MAX
from qnet_actors.wire.schemes import Scheme, Verifier, dag_context, key_id
from qnet_actors.wire.transactions import ReportEquivocation, check_validator_key

OFFENCES_MAX: Final = 2 * VALIDATORS_MAX
"""How many are kept, the newest ones."""
Name = tuple[bytes, int]
"""Of an offence: key id and epoch; the ledger punishes one of each."""


class Offences(Struct, frozen=True):
    """A write to an `OffenceStore`: all that it holds from now on."""

    reports: Annotated[tuple[ReportEquivocation, ...], msgspec.Meta(max_length=OFFENCES_MAX)]


_CODEC: Final = Codec[Offences](Offences, 16 * 1024 * 1024)


class OffenceStore(Storage, Protocol):
    """Where a validator keeps what it has still to report."""

    def load(self) -> tuple[ReportEquivocation, ...]:
        """What was written last, unchecked; nothing where it cannot be read: others know it."""


class OffenceFile:
    """A file that is replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path

    def load(self) -> tuple[ReportEquivocation, ...]:
        try:
            return _CODEC.decode(self._path.read_bytes()).reports
        except (FileNotFoundError, QnetError):
            return ()

    def write(self, writes: Sequence[Any]) -> None:
        write_whole(self._path, [encode(writes[-1])])

    def close(self) -> None:
        """Nothing stays open."""


class MemoryOffences:
    """For the simulator and tests: what was written is durable."""

    def __init__(self) -> None:
        self._data = encode(Offences(()))

    def load(self) -> tuple[ReportEquivocation, ...]:
        return _CODEC.decode(self._data).reports

    def write(self, writes: Sequence[Any]) -> None:
        self._data = encode(writes[-1])

    def close(self) -> None:
        """Nothing stays open."""


def name_of(report: ReportEquivocation) -> Name:
    return key_id(report.scheme, report.public_key), report.equivocation.epoch


def past_offences(
    kept: Iterable[ReportEquivocation],
    journalled: Journalled,
    present: Present,
    chain_id: bytes,
    verifier: Verifier,
) -> tuple[ReportEquivocation, ...]:
    """What a validator still holds against others for epochs before the present one: proofs that
    are good, and not too old to be punished, one for each offence.

    `kept`: from its `OffenceStore`.  The journal has those of the epoch that it is of.
    """
    reports = list(kept)
    epoch, proofs = journalled_evidence(journalled)
    if present.previous is not None and epoch == present.previous.epoch:
        members = present.previous.members
        reports += [
            ReportEquivocation(members[p.author].scheme, members[p.author].public_key, p)
            for p in proofs
            if p.author < len(members)
        ]
    named: dict[Name, ReportEquivocation] = {}
    for report in reports:
        named.setdefault(name_of(report), report)
    number, unbonding = present.committee.epoch, present.rules.parameters.unbonding_epochs
    held = [
        report
        for (_, epoch), report in sorted(named.items(), key=lambda item: item[0][1])
        if epoch < number and is_punishable(epoch, number, unbonding)
    ]
    context = dag_context(chain_id)
    return tuple(r for r in held[-OFFENCES_MAX:] if _holds(r, context, verifier))


def _holds(report: ReportEquivocation, context: bytes, verifier: Verifier) -> bool:
    try:
        check_validator_key(report.scheme, report.public_key)
        check_equivocation(report.equivocation)
    except QnetError:
        return False
    rows = report.equivocation.rows()
    verdicts = verifier.verify(
        [report.public_key] * len(rows),
        [message for message, _ in rows],
        [signature for _, signature in rows],
        context,
        Scheme(report.scheme),
    )
    return bool(verdicts.all())
