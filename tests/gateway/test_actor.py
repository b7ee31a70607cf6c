"""The gateway as a Ray actor, before validators that are Ray actors."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import psutil
import pytest
import ray

from qnet_actors.client import Client
from qnet_actors.gateway.actor import GatewayActor
from qnet_actors.gateway.calls import CallServer, Door
from qnet_actors.gateway.settings import Settings
from qnet_actors.wire.codes import Code, QnetError
from tests.gateway.fakes import FakeBackend, make_backends
from tests.gateway.ledger import Wallet

pytestmark = [pytest.mark.network, pytest.mark.long]


@ray.remote
class Validator:
    """A fake in an actor; each has a ledger of its own."""

    def __init__(self, index: int) -> None:
        (fake,) = make_backends(auto=True)
        fake.index = index
        self.fake: FakeBackend = fake
        self.calls = CallServer(fake)
        self.opened = asyncio.get_running_loop().create_task(self.calls.start("127.0.0.1"))

    async def door(self) -> Door:
        return await self.opened


@pytest.fixture(scope="module")
def cluster():
    # A worker finds the tests where this process did.
    previous = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.getcwd()
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=80 * 1024 * 1024,
    )
    yield
    ray.shutdown()
    if previous is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = previous


def start_validator(index: int, name: str) -> Any:
    options = Validator.options(num_cpus=0, name=name)  # type: ignore[attr-defined]
    return options.remote(index)


def start_gateway(validators: dict[int, str], **settings: Any) -> tuple[Any, str]:
    gateway = GatewayActor.options(num_cpus=0, max_restarts=1).remote(
        validators, "127.0.0.1", 0, Settings(**settings)
    )
    return gateway, ray.get(gateway.start.remote(), timeout=60)


@pytest.mark.filterwarnings("ignore")
def test_a_gateway_actor_serves_survives_a_validator_and_comes_back_itself(cluster):
    names = {index: f"validator-{index}" for index in range(2)}
    validators = {index: start_validator(index, name) for index, name in names.items()}
    gateway, url = start_gateway(
        names, call_timeout_ms=2_000, retry_first_ms=60_000, retry_last_ms=60_000
    )
    wallets = [Wallet(seed) for seed in range(6)]
    with Client(url) as client:
        for wallet in wallets:
            done = client.transfer(wallet.signer, bytes(32), 1, wait="final")
            assert done.status == "final"
        ray.kill(validators[0])
        for wallet in wallets:
            # A sender that moved begins anew: these validators share no ledger.
            nonce = client.next_nonce(wallet.address)
            done = client.transfer(wallet.signer, bytes(32), 2, nonce=nonce, wait="executed")
            assert done.status in ("executed", "final")
        assert client.status().validator == 1
    port = int(url.rpartition(":")[2])
    second = GatewayActor.options(num_cpus=0).remote({1: names[1]}, "127.0.0.1", port)
    with pytest.raises(QnetError) as refused:
        ray.get(second.start.remote(), timeout=60)
    assert refused.value.code == Code.PORT_IN_USE
    ray.kill(second)
    ray.get(gateway.stop.remote(), timeout=60)


@pytest.mark.filterwarnings("ignore")
def test_a_gateway_that_was_killed_listens_again_without_being_told(cluster):
    validator = start_validator(0, "lone-validator")
    probe, url = start_gateway({0: "lone-validator"})
    port = int(url.rpartition(":")[2])
    ray.get(probe.stop.remote(), timeout=60)
    ray.kill(probe)
    # A call that the death overtakes is made again, to the copy.
    gateway = GatewayActor.options(num_cpus=0, max_restarts=1, max_task_retries=-1).remote(
        {0: "lone-validator"}, "127.0.0.1", port
    )
    assert ray.get(gateway.start.remote(), timeout=60) == url
    process = psutil.Process(ray.get(gateway.process_id.remote(), timeout=60))
    process.kill()
    process.wait(timeout=60)
    assert ray.get(gateway.start.remote(), timeout=60) == url
    with Client(url) as client:
        assert client.status().validator == 0
    ray.get(gateway.stop.remote(), timeout=60)
    # A named actor lives only while somebody holds its handle.
    ray.kill(validator)
