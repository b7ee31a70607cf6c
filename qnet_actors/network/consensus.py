"""The rooms that stay in a validator's own process, packed or split: consensus and what reports."""

from __future__ import annotations

from qnet_actors.network.offences import OffenceStore, past_offences
from qnet_actors.network.present import Present
from qnet_actors.network.reporting import Reporter
from qnet_actors.rooms import AccountReader
from qnet_actors.validators import Journalled, ValidatorCore
from qnet_actors.validators import recover as recover_validator
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.schemes import Signer
from qnet_actors.wire.schemes import Verifier as RowVerifier


def open_consensus(
    genesis: Genesis,
    present: Present,
    own: int,
    signer: Signer,
    verifier: RowVerifier,
    journalled: Journalled,
) -> ValidatorCore:
    """The core of a validator of the present committee, with what its journal holds."""
    committee = present.committee
    return ValidatorCore(
        genesis=genesis,
        committee=committee,
        parameters=present.rules.parameters,
        own=own,
        signer=signer,
        verifier=verifier,
        recovered=recover_validator(journalled, genesis, committee, own, verifier, present.last),
        executed_index=present.commit_index,
        epoch_end=present.epoch_end,
    )


def open_reporter(
    genesis: Genesis,
    present: Present,
    own: int,
    signer: Signer,
    verifier: RowVerifier,
    journalled: Journalled,
    offences: OffenceStore,
    reader: AccountReader,
    consensus: ValidatorCore,
    shards: int,
) -> Reporter:
    """What has equivocators punished, with what earlier epochs have left to report."""
    stored = offences.load()
    chain_id = genesis.chain_id()
    return Reporter(
        chain_id=chain_id,
        committee=present.committee,
        own=own,
        signer=signer,
        reader=reader,
        evidence=consensus.evidence.equivocations,
        shard_count=shards,
        past=past_offences(stored, journalled, present, chain_id, verifier),
        stored=stored,
    )
