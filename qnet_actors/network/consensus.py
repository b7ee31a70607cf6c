"""The rooms that stay in a validator's own process, packed or split: consensus and what reports."""

from __future__ import annotations

from dataclasses import dataclass

from qnet_actors.network.offences import OffenceStore, past_offences
from qnet_actors.network.present import Present
from qnet_actors.network.reporting import Reporter
from qnet_actors.rooms import AccountReader
from qnet_actors.validators import Journalled, ValidatorCore, recover
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.schemes import Signer, Verifier


@dataclass(frozen=True, slots=True)
class Seat:
    """A validator's place in the committee of its epoch, and what it signs and goes on with."""

    genesis: Genesis
    present: Present
    own: int
    signer: Signer
    verifier: Verifier
    journalled: Journalled


def open_consensus(seat: Seat) -> ValidatorCore:
    """The core of a validator of the present committee, with what its journal holds."""
    present, committee = seat.present, seat.present.committee
    return ValidatorCore(
        genesis=seat.genesis,
        committee=committee,
        parameters=present.rules.parameters,
        own=seat.own,
        signer=seat.signer,
        verifier=seat.verifier,
        recovered=recover(
            seat.journalled, seat.genesis, committee, seat.own, seat.verifier, present.last
        ),
        executed_index=present.commit_index,
        epoch_end=present.epoch_end,
    )


def open_reporter(
    seat: Seat,
    consensus: ValidatorCore,
    offences: OffenceStore,
    reader: AccountReader,
    shards: int,
) -> Reporter | None:
    """What has equivocators punished, with what earlier epochs have left to report.

    None: the committee is fixed, and nobody is punished.
    """
    if not seat.genesis.parameters.epoch_commits_min:
        return None
    stored, chain_id = offences.load(), seat.genesis.chain_id()
    return Reporter(
        chain_id=chain_id,
        committee=seat.present.committee,
        own=seat.own,
        signer=seat.signer,
        reader=reader,
        evidence=consensus.evidence.equivocations,
        shard_count=shards,
        past=past_offences(stored, seat.journalled, seat.present, chain_id, seat.verifier),
        stored=stored,
    )
