"""A network over a Ray cluster of four nodes, one of which dies and comes back.

A process of its own for `test_cluster`: a process has one Ray.  Prints one JSON object.  With an
argument `split` the validators are split; with `frozen` the node stands still, is given up, and
finds out.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Before Ray is imported: a cluster that asks for a token, and notices soon who is gone.
os.environ.update(
    {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "3000",
        "RAY_health_check_failure_threshold": "3",
    }
)

import ray
from ray.cluster_utils import Cluster

from qnet_actors.crypto import Signer, provider
from qnet_actors.kernels.cache import warm
from qnet_actors.network.development import (
    ACCOUNT,
    VALIDATOR,
    development_genesis,
    development_keys,
)
from qnet_actors.network.launch import Network, agreed_root
from qnet_actors.network.placement import MACHINE_LABEL
from qnet_actors.network.settings import NetworkSettings, Profile
from qnet_actors.wire.codes import QnetError
from tests.network.split_network import transfers, wait_for_end

MACHINES = ("a", "b", "c", "d")
VICTIM = 2
WAIT_SECONDS = 60.0
STORE_BYTES = 96 * 1024 * 1024


class Machines:
    """Ray nodes of one machine, named as if they were machines of their own."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.nodes: dict[str, Any] = {}
        for name in MACHINES:
            self.start(name)

    def start(self, name: str) -> None:
        self.nodes[name] = self.cluster.add_node(
            labels={MACHINE_LABEL: name},
            num_cpus=1,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
        )

    def kill(self, name: str) -> None:
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)

    def processes(self, name: str) -> list[int]:
        """A node's Ray, and what that has started."""
        tasks = Path(f"/proc/{self._ray(name)}/task").glob("*/children")
        started = [int(pid) for task in tasks for pid in task.read_text(encoding="ascii").split()]
        return [self._ray(name), *started]

    def given_up(self, name: str) -> bool:
        """Whether Ray holds a node for dead."""
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        return not any(n["Alive"] and n["Labels"].get(MACHINE_LABEL) == name for n in nodes)

    def _ray(self, name: str) -> int:
        return int(self.nodes[name].all_processes["raylet"][0].process.pid)

    def close(self) -> None:
        self.cluster.shutdown()  # type: ignore[no-untyped-call]

    def of(self, process: int) -> str:
        """On which a process is: its Ray has started it."""
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
        parent = next(line for line in status.splitlines() if line.startswith("PPid:")).split()[1]
        return {self._ray(name): name for name in self.nodes}.get(int(parent), "none")


def until_back(index: int) -> float:
    """Seconds until a validator that was gone has links to a quorum."""
    begun = time.monotonic()
    actor: Any = ray.get_actor(f"validator-{index}")
    # Tried again by Ray until the actor runs again.
    ray.get(actor.wait_ready.options(max_task_retries=-1).remote(), timeout=WAIT_SECONDS)
    return time.monotonic() - begun


def served(url: str, signers: list[Signer]) -> tuple[int, float]:
    """Transfers executed once a gateway serves all accounts, and after how many seconds it did."""
    begun = time.monotonic()
    while True:
        try:
            return transfers(url, signers, 1), time.monotonic() - begun
        except QnetError:
            if time.monotonic() > begun + WAIT_SECONDS:
                raise


def freeze(machines: Machines, name: str, url: str, signers: list[Signer]) -> list[int]:
    """Until Ray has given a node up whose processes stand still; which they are."""
    processes = machines.processes(name)
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    give_up = time.monotonic() + WAIT_SECONDS
    while not machines.given_up(name):
        served(url, signers)
        if time.monotonic() > give_up:
            raise TimeoutError(f"Ray does not give up {name}")
    return processes


def thaw(machines: Machines, name: str, processes: list[int]) -> None:
    """Has a node find out that it was given up, which ends it."""
    open_ = [os.pidfd_open(process) for process in processes]
    for process in processes:
        os.kill(process, signal.SIGCONT)
    for process in open_:
        wait_for_end(process)
    machines.kill(name)


def main(directory: Path, profile: Profile, frozen: bool) -> dict[str, Any]:
    warm()
    library = provider("auto")
    accounts = development_keys(ACCOUNT, 6, library)
    keys = development_keys(VALIDATOR, len(MACHINES), library)
    genesis = development_genesis(keys, [key.key_id for key in accounts])
    signers = [Signer(key, library) for key in accounts]
    machines = Machines()
    settings = NetworkSettings(
        directory=directory,
        address=machines.cluster.address,
        validators=len(MACHINES),
        gateway_port=0,
        profile=profile,
    )
    try:
        with Network(genesis, settings, say) as network:
            url = network.gateway_urls[0]
            before = transfers(url, signers, 2)
            say("all serve")
            pids = network.process_ids()
            places = [machines.of(pids[f"validator-{index}"]) for index in range(len(MACHINES))]
            victim = MACHINES[VICTIM]
            if frozen:
                processes = freeze(machines, victim, url, signers)
            else:
                machines.kill(victim)
            say(f"{victim} is gone")
            without, seconds_to_service = served(url, signers)
            alone = sum(status is not None for status in network.statuses())
            say(f"served after {seconds_to_service:.1f} s")
            if frozen:
                thaw(machines, victim, processes)
                say(f"{victim} has found out")
            machines.start(victim)
            say(f"{victim} is back")
            seconds_to_links = until_back(VICTIM)
            say(f"links after {seconds_to_links:.1f} s")
            back = machines.of(network.process_ids()[f"validator-{VICTIM}"])
            after = transfers(url, signers, 1)
            height = max(status.height for status in network.statuses() if status is not None)
            _, root = agreed_root(network, height)
            equivocations = [m.get("equivocations") for m in network.measurements()]
    finally:
        machines.close()
    return {
        "places": places,
        "executed": [before, without, after],
        "answered_without": alone,
        "back_on": back,
        "roots_equal": root is not None,
        "equivocations": equivocations,
        "seconds_to_service": round(seconds_to_service, 1),
        "seconds_to_links": round(seconds_to_links, 1),
    }


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        found = main(
            Path(temporary), "split" if "split" in sys.argv else "packed", "frozen" in sys.argv
        )
        sys.stdout.write(json.dumps(found) + "\n")
