"""An observer of a network on Ray joins from a snapshot, serves readers, and is killed.

A program, since a process has one Ray.  Prints one JSON object; `test_observing` says what must
stand in it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from qnet_actors.client import Client
from qnet_actors.crypto import Signer, provider
from qnet_actors.kernels.cache import warm
from qnet_actors.network.development import (
    ACCOUNT,
    VALIDATOR,
    development_genesis,
    development_keys,
)
from qnet_actors.network.launch import Network
from qnet_actors.network.settings import KeepSettings, NetworkSettings
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Parameters

WAIT_SECONDS = 60.0
KEEP = KeepSettings(snapshot_every_bytes=1, join_ahead_blocks=8)
PAYEE = bytes(32)


def follow(client: Client, reader: Client, signer: Signer) -> tuple[int, bool]:
    """(height, whether both gateways show it) of a payment's block that is final at both."""
    paid = client.transfer(signer, PAYEE, 1, wait="executed", timeout_ms=60_000)
    give_up = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < give_up:
        client.transfer(signer, PAYEE, 1, wait="executed", timeout_ms=60_000)
        try:
            seen = reader.transaction(paid.id)
            status = reader.status()
        except QnetError as error:
            # It has not come so far, or starts anew.
            if error.code not in (Code.NOT_FOUND, Code.NOT_READY, Code.NODE_UNREACHABLE):
                raise
            continue
        if seen.block is None or not status.ready or status.final_height < seen.block.height:
            continue
        height = seen.block.height
        return height, reader.block(height) == client.block(height)
    raise TimeoutError("the observer does not follow")


def main(directory: Path) -> dict[str, Any]:
    warm()
    library = provider("auto")
    (key,) = development_keys(ACCOUNT, 1, library)
    genesis = development_genesis(
        development_keys(VALIDATOR, 4, library), [key.key_id], parameters=Parameters(gc_depth=8)
    )
    chain_id, signer = genesis.chain_id(), Signer(key, library)
    settings = NetworkSettings(directory=directory, gateway_port=0, keep=KEEP, observers=1)
    with (
        Network(genesis, settings, lambda _: None) as network,
        Client(network.gateway_urls[0], chain_id=chain_id) as client,
    ):
        while client.status().final_height < 2 * KEEP.join_ahead_blocks:
            client.transfer(signer, PAYEE, 1, wait="executed", timeout_ms=60_000)
        with Client(network.add_observer(), chain_id=chain_id) as reader:
            joined, equal = follow(client, reader, signer)
            status = reader.status()
            proved = reader.account(key.key_id, prove=True)
            try:
                reader.transfer(signer, PAYEE, 1)
                refused = ""
            except QnetError as error:
                refused = error.code.label
            ledger = directory / "observer-0" / "ledger"
            process = network.process_ids()["observer-0"]
            os.kill(process, signal.SIGKILL)
            again, still_equal = follow(client, reader, signer)
            return {
                "joined": bool(list(ledger.glob("base-*"))),
                "phase": status.sync.phase,
                "blocks_equal": equal and still_equal,
                "proved_nonce": proved.nonce,
                "refused": refused,
                "started_anew": network.process_ids()["observer-0"] != process,
                "went_on": again > joined,
                "members": len(client.validators().validators),
                "failures": [network.failure(index) for index in range(4)],
            }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        sys.stdout.write(json.dumps(main(Path(temporary))) + "\n")
