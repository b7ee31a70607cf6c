"""Development networks: a genesis made of public keys, the same wherever it is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from qnet_actors.crypto import KeyPair, development_key
from qnet_actors.crypto.providers import Provider
from qnet_actors.wire.committee import Member
from qnet_actors.wire.genesis import (
    GENESIS_VERSION,
    Genesis,
    GenesisAccount,
    Parameters,
    check_genesis,
)
from qnet_actors.wire.limits import UNITS_PER_QNET
from qnet_actors.wire.schemes import Scheme

ACCOUNT: Final = "account"
VALIDATOR: Final = "validator"
OBSERVER: Final = "observer"

BALANCE: Final = 1_000_000 * UNITS_PER_QNET
STAKE: Final = 1_000 * UNITS_PER_QNET
# A development genesis has a fixed time, so that its chain id, and with it every transaction that
# was signed ahead for a benchmark, stays valid from run to run.
TIMESTAMP_MS: Final = 1_700_000_000_000


def development_keys(
    role: str, count: int, provider: Provider, scheme: Scheme = Scheme.ML_DSA_65
) -> list[KeyPair]:
    """The first `count` development keys of a role."""
    return [development_key(role, index, scheme, provider) for index in range(count)]


def development_genesis(
    validators: Iterable[KeyPair],
    accounts: Iterable[bytes],
    *,
    name: str = "dev",
    parameters: Parameters | None = None,
    balance: int = BALANCE,
) -> Genesis:
    """A development genesis: equal stakes, and `balance` units for each address of `accounts`.

    Raises `QnetError(CONFIGURATION_INVALID)`.
    """
    keys = list(validators)
    genesis = Genesis(
        version=GENESIS_VERSION,
        name=name,
        development=True,
        timestamp_ms=TIMESTAMP_MS,
        schemes=tuple(sorted({int(key.scheme) for key in keys})),
        parameters=parameters or Parameters(),
        members=tuple(
            Member(key.scheme, key.public_key, stake=STAKE, reward=key.key_id) for key in keys
        ),
        accounts=tuple(GenesisAccount(address, balance) for address in accounts),
    )
    check_genesis(genesis)
    return genesis
