"""A split network that loses a room under load.  A program, since a process has one Ray.

Prints one JSON object; `test_split_running` says what must stand in it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray

from qnet_actors.client import Client
from qnet_actors.crypto import Signer, provider
from qnet_actors.kernels.cache import warm
from qnet_actors.network.development import (
    ACCOUNT,
    VALIDATOR,
    development_genesis,
    development_keys,
)
from qnet_actors.network.launch import Network, agreed_root
from qnet_actors.network.settings import NetworkSettings
from qnet_actors.wire.codes import QnetError

VALIDATORS = 2
ROUNDS = 4
WAIT_SECONDS = 90.0


def wait_for_end(process: int) -> None:
    """Until a process has ended; `process` is a file descriptor of it, which is closed."""
    try:
        ended = select.poll()
        ended.register(process, select.POLLIN)
        if not ended.poll(WAIT_SECONDS * 1_000):
            raise TimeoutError("the validator outlives its room")
    finally:
        os.close(process)


def transfers(url: str, signers: list[Signer], rounds: int) -> int:
    """Each account pays the next, some times; returns how many were executed."""
    done = 0
    with Client(url) as client:
        for _ in range(rounds):
            for position, signer in enumerate(signers):
                payee = signers[(position + 1) % len(signers)].key_id
                sent = client.transfer(signer, payee, 1, wait="executed", timeout_ms=60_000)
                done += sent.receipt is not None and sent.receipt.succeeded
    return done


def main(directory: Path) -> dict[str, Any]:
    warm()
    library = provider("auto")
    accounts = development_keys(ACCOUNT, 6, library)
    keys = development_keys(VALIDATOR, VALIDATORS, library)
    genesis = development_genesis(keys, [key.key_id for key in accounts])
    settings = NetworkSettings(
        directory=directory,
        validators=VALIDATORS,
        gateway_port=0,
        profile="split",
        shards=2,
        partitions=2,
        executors=2,
        executor_rows_min=1,
    )
    signers = [Signer(key, library) for key in accounts]
    with Network(genesis, settings, lambda _: None) as network:
        url = network.gateway_urls[0]
        before = transfers(url, signers, ROUNDS)
        host = network.process_ids()["validator-1"]
        ledger: Any = ray.get_actor("validator-1.1/ledger")
        rooms = [f"partition-{n}" for n in range(2)] + [f"executor-{n}" for n in range(2)]
        handles: list[Any] = [ray.get_actor(f"validator-1.1/{room}") for room in rooms]
        pids: list[int] = ray.get([handle.process_id.remote() for handle in handles])
        victim: int = ray.get(ledger.process_id.remote())
        process = os.pidfd_open(host)
        os.kill(victim, signal.SIGKILL)
        wait_for_end(process)
        # Tried again by Ray until the actor runs again, which then waits for its links.
        back: Any = ray.get_actor("validator-1").wait_ready.options(max_task_retries=-1)
        ray.get(back.remote(), timeout=WAIT_SECONDS)
        if network.process_ids().get("validator-1", host) == host:
            raise RuntimeError("the validator is not a new process")
        after = 0
        give_up = time.monotonic() + WAIT_SECONDS
        while not after and time.monotonic() < give_up:
            try:
                after = transfers(url, signers, 1)
            except QnetError as error:
                sys.stderr.write(f"{error}\n")
        height = max(status.height for status in network.statuses() if status is not None)
        _, root = agreed_root(network, height)
        with Client(url, chain_id=genesis.chain_id()) as client:
            nonces = [client.account(signer.key_id).nonce for signer in signers]
            sent = client.transfer(signers[0], bytes(32), 1, wait="final", timeout_ms=60_000)
            proved = [client.account(signer.key_id, prove=True).nonce for signer in signers]
            receipt = client.final_transaction(sent.id).receipt
        equivocations = [m.get("equivocations") for m in network.measurements()]
    return {
        "executed_before": before,
        "executed_after": after,
        "nonces": nonces,
        "proved_nonces": proved,
        "final": receipt.status == 0,
        "roots_equal": root is not None,
        "equivocations": equivocations,
        "processes": len({host, victim, *pids}),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        sys.stdout.write(json.dumps(main(Path(temporary))) + "\n")
