"""A split network whose one validator is convicted, and whose rules change.  A program, since a
process has one Ray.

Prints one JSON object; `test_split_running` says what must stand in it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import structs

from qnet_actors.client import Client, Validators
from qnet_actors.crypto import Signer, provider
from qnet_actors.kernels.cache import warm
from qnet_actors.network.development import (
    ACCOUNT,
    VALIDATOR,
    development_genesis,
    development_keys,
)
from qnet_actors.network.launch import Network
from qnet_actors.network.settings import NetworkSettings
from qnet_actors.validators import FileJournal
from qnet_actors.validators.journal_entries import EvidenceEntry
from qnet_actors.validators.recovery import first_snapshot
from qnet_actors.wire.dag import DagBlock, DagHeader, header_digest
from qnet_actors.wire.evidence import Equivocation, equivocation_of
from qnet_actors.wire.genesis import Genesis, Parameters
from qnet_actors.wire.rules import EpochRules
from qnet_actors.wire.schemes import dag_context
from qnet_actors.wire.transactions import Approve

VALIDATORS = 2
TRANSFERS_MAX = 100


def proof(genesis: Genesis, liar: int, signer: Signer) -> Equivocation:
    """Two blocks of a round that the network will not come to."""

    def block(timestamp_ms: int) -> DagBlock:
        header = DagHeader(1, 0, 10**6, liar, timestamp_ms, (), (), ())
        context = dag_context(genesis.chain_id())
        return DagBlock(header, signer.sign(header_digest(header), context))

    return equivocation_of(block(1), block(2))


def wait_for(client: Client, payer: Signer, holds: Callable[[Validators], bool]) -> Validators:
    """The committee and the rules once they are so, under a load that lets commits follow."""
    for _ in range(TRANSFERS_MAX):
        if holds(now := client.validators()):
            return now
        client.transfer(payer, bytes(32), 1, wait="executed", timeout_ms=60_000)
    raise TimeoutError("the epoch does not end")


def main(directory: Path) -> dict[str, Any]:
    warm()
    library = provider("auto")
    keys = development_keys(VALIDATOR, VALIDATORS, library)
    signers = [Signer(key, library) for key in keys]
    payer = Signer(development_keys(ACCOUNT, 1, library)[0], library)
    parameters = Parameters(round_idle_ms=60, gc_depth=8, commit_lag=8, epoch_commits_min=20)
    funded = [payer.key_id, *(key.key_id for key in keys)]
    genesis = development_genesis(keys, funded, parameters=parameters)
    settings = NetworkSettings(
        directory=directory, validators=VALIDATORS, gateway_port=0, profile="split"
    )
    # What the first validator has seen, as if it had seen it before it was started.
    journal = FileJournal(directory / "validator-0" / "journal", sync=True)
    entry = EvidenceEntry(proof(genesis, 1, signers[1]))
    journal.write((first_snapshot(genesis, genesis.committee(), 0), entry))
    journal.close()
    slower = EpochRules(1, structs.replace(parameters, round_delay_ms=80))
    with Network(genesis, settings, lambda _: None) as network:
        with Client(network.gateway_urls[0]) as client:
            convicted = wait_for(client, payer, lambda now: len(now.validators) == 1)
            # What is left of the committee decides alone.
            approval = Approve(convicted.epoch, slower)
            client.send(signers[0], approval, wait="executed", timeout_ms=60_000)
            ruled = wait_for(client, payer, lambda now: now.epoch > convicted.epoch)
            client.transfer(payer, bytes(32), 1, wait="final", timeout_ms=60_000)
        failures = [network.failure(index) for index in range(VALIDATORS)]
    return {
        "epochs": [convicted.epoch, ruled.epoch],
        "key_ids": [validator.key_id for validator in ruled.validators],
        "honest": keys[0].key_id.hex(),
        "delays_ms": [now.rules.parameters.round_delay_ms for now in (convicted, ruled)],
        "failures": failures,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        sys.stdout.write(json.dumps(main(Path(temporary))) + "\n")
