"""A validator whose ledger is gone comes back split, and joins from a snapshot.

A program, since a process has one Ray.  Prints one JSON object; `test_split_running` says what must
stand in it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray

from qnet_actors.client import Client
from qnet_actors.crypto import Signer, provider
from qnet_actors.gateway.queries import ANSWER_CODEC, StatusAnswer, StatusQuery
from qnet_actors.kernels.cache import warm
from qnet_actors.network.actor import ValidatorHostActor
from qnet_actors.network.development import (
    ACCOUNT,
    VALIDATOR,
    development_genesis,
    development_keys,
)
from qnet_actors.network.launch import Network
from qnet_actors.network.settings import HostSettings, KeepSettings, NetworkSettings
from qnet_actors.wire.codec import encode
from qnet_actors.wire.genesis import Parameters

WAIT_SECONDS = 120.0
KEEP = KeepSettings(snapshot_every_bytes=1, join_ahead_blocks=40)
JOINER = 3


def pay(client: Client, signers: list[Signer]) -> None:
    for signer in signers:
        client.transfer(signer, bytes(32), 1, wait="executed", timeout_ms=60_000)


def main(directory: Path) -> dict[str, Any]:
    warm()
    library = provider("auto")
    accounts = development_keys(ACCOUNT, 4, library)
    genesis = development_genesis(
        development_keys(VALIDATOR, 4, library),
        [key.key_id for key in accounts],
        parameters=Parameters(gc_depth=8),
    )
    signers = [Signer(key, library) for key in accounts]
    settings = NetworkSettings(directory=directory, gateway_port=0, keep=KEEP)
    with (
        Network(genesis, settings, lambda _: None) as network,
        Client(network.gateway_urls[0]) as client,
    ):
        old: Any = ray.get_actor(f"validator-{JOINER}")
        ray.get(old.stop.remote())
        ray.kill(old, no_restart=True)
        path = directory / f"validator-{JOINER}"
        for store in ("ledger", "journal", "batches"):
            shutil.rmtree(path / store)
        while client.status().final_height < 2 * KEEP.join_ahead_blocks:
            pay(client, signers)
        aim = client.status().final_height
        host = ValidatorHostActor.options(
            name="joiner", num_cpus=0, max_restarts=-1, max_task_retries=0
        ).remote(
            encode(genesis),
            HostSettings(
                index=JOINER, directory=path, split=True, partitions=2, executors=2, keep=KEEP
            ),
        )

        def ask(method: str, *arguments: Any) -> Any:
            """Tried again by Ray while the joiner starts anew."""
            call = getattr(host, method).options(max_task_retries=-1)
            return ray.get(call.remote(*arguments), timeout=WAIT_SECONDS)

        first = ask("process_id")
        give_up = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < give_up:
            ask("wait_ready")
            status = ANSWER_CODEC.decode(ask("query", encode(StatusQuery())))
            if isinstance(status, StatusAnswer) and status.ready and status.height > aim:
                break
            pay(client, signers[:1])
        common: set[int] = set()
        while not common and time.monotonic() < give_up:
            pay(client, signers[:1])
            joined, other = dict(ask("state_roots")), network.state_roots()[0]
            common = {height for height in joined if height > aim} & other.keys()
        found = {
            "started_anew": ask("process_id") != first,
            "joined": bool(list((path / "ledger").glob("base-*"))),
            "roots_equal": bool(common) and all(joined[at] == other[at] for at in common),
            "failure": ask("failure"),
        }
        ray.get(host.stop.remote())
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        sys.stdout.write(json.dumps(main(Path(temporary))) + "\n")
