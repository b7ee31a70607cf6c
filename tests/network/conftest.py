"""One network for the whole folder: starting one costs seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from qnet_actors.crypto import KeyPair, Signer, provider
from qnet_actors.kernels.cache import warm
from qnet_actors.network.development import (
    ACCOUNT,
    VALIDATOR,
    development_genesis,
    development_keys,
)

VALIDATORS = 4
ACCOUNTS = 24


@dataclass(frozen=True)
class Running:
    network: object
    url: str
    accounts: list[KeyPair]
    chain_id: bytes

    def signers(self, first: int, count: int) -> list[Signer]:
        return [Signer(key, provider("auto")) for key in self.accounts[first : first + count]]


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    from qnet_actors.network.launch import Network
    from qnet_actors.network.settings import NetworkSettings

    warm()
    library = provider("auto")
    accounts = development_keys(ACCOUNT, ACCOUNTS, library)
    genesis = development_genesis(
        development_keys(VALIDATOR, VALIDATORS, library), [key.key_id for key in accounts]
    )
    settings = NetworkSettings(
        directory=tmp_path_factory.mktemp("network"),
        validators=VALIDATORS,
        gateway_port=0,
        history_blocks=1_000,
    )
    with Network(genesis, settings, lambda _: None) as network:
        yield Running(network, network.gateway_urls[0], accounts, genesis.chain_id())
