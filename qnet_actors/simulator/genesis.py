"""The network of a run: its parameters vary from seed to seed."""

from __future__ import annotations

from random import Random
from typing import Final

from qnet_actors.simulator.signing import SimSigner
from qnet_actors.wire.committee import Member
from qnet_actors.wire.genesis import (
    GENESIS_VERSION,
    Genesis,
    GenesisAccount,
    Parameters,
    check_genesis,
)

EPOCH_MS: Final = 1_700_000_000_000
BALANCE: Final = 10**15
EPOCH_COMMITS_MIN: Final = 40


def draw_genesis(
    rng: Random,
    members: list[SimSigner],
    clients: list[SimSigner],
    owners: list[SimSigner],
    delay_ms: int,
    epochs_end: bool,
) -> Genesis:
    """Parameters vary from seed to seed, so that bounds are met within a short run.

    `delay_ms`: how long a message takes at most beyond what all links have in common.
    """
    timeout_ms = rng.randrange(120, 250) + 3 * delay_ms
    # Unequal where none of them then holds a third.
    stakes = (10, 10, 11) if len(members) >= 4 else (10,)
    parameters = Parameters(
        block_interval_ms=rng.choice((50, 100, 200, 300)),
        round_delay_ms=rng.randrange(35, 50),
        round_idle_ms=rng.randrange(200, 1_000),
        leader_timeout_ms=timeout_ms,
        leader_timeout_ms_max=timeout_ms * 4,
        gc_depth=rng.choice((16, 32, 64)),
        commit_lag=rng.choice((8, 16, 64)),
        epoch_commits_min=EPOCH_COMMITS_MIN if epochs_end else 0,
    )
    genesis = Genesis(
        version=GENESIS_VERSION,
        name="simulation",
        development=True,
        timestamp_ms=EPOCH_MS,
        schemes=(members[0].scheme,),
        parameters=parameters,
        members=tuple(
            Member(key.scheme, key.public_key, stake=rng.choice(stakes), reward=key.key_id)
            for key in members
        ),
        accounts=tuple(GenesisAccount(key.key_id, BALANCE) for key in clients + owners),
    )
    check_genesis(genesis)
    return genesis
