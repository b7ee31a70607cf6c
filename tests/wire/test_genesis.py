"""Genesis: what makes a network, and what cannot be one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Member
from qnet_actors.wire.genesis import (
    GENESIS_CODEC,
    Genesis,
    GenesisAccount,
    Parameters,
    check_genesis,
)
from qnet_actors.wire.hashing import EPOCH_SEED, GENESIS, hash32
from qnet_actors.wire.limits import SUPPLY_MAX
from tests.strategies import geneses

DURABLE = Parameters(power_durability=True)
VALID = Genesis(
    version=1,
    name="test",
    development=False,
    timestamp_ms=0,
    schemes=(4,),
    parameters=DURABLE,
    members=(Member(4, b"k" * 32, 1, b"r" * 32),),
    accounts=(GenesisAccount(b"a" * 32, SUPPLY_MAX - 2),),
)


@given(geneses)
def test_a_genesis_that_holds_is_taken(genesis):
    check_genesis(genesis)
    check_genesis(GENESIS_CODEC.decode(encode(genesis)))
    assert genesis.chain_id() == hash32(GENESIS, encode(genesis))
    committee = genesis.committee()
    assert committee.members == genesis.members
    assert (committee.epoch, committee.seed) == (0, hash32(EPOCH_SEED, genesis.chain_id()))


def test_every_field_is_in_the_chain_id():
    changes = {
        "name": "other",
        "development": True,
        "timestamp_ms": 1,
        "schemes": (4, 2),
        "parameters": msgspec.structs.replace(DURABLE, gc_depth=65),
        "members": (Member(4, b"k" * 32, 2, b"r" * 32),),
        "accounts": (),
        "version": 2,
    }
    assert set(changes) == set(VALID.__struct_fields__)
    ids = {
        msgspec.structs.replace(VALID, **{name: new}).chain_id() for name, new in changes.items()
    }
    assert len(ids | {VALID.chain_id()}) == len(changes) + 1


def parameters(**changes: int) -> dict[str, object]:
    return {"parameters": msgspec.structs.replace(DURABLE, **changes)}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"version": 2}, "version"),
        (parameters(stake_min=2), "stake"),
        (
            {"members": tuple(Member(4, key * 32, 1, b"r" * 32) for key in (b"k", b"l"))},
            "reward",
        ),
        ({"schemes": (4, 4)}, "schemes"),
        ({"schemes": (4, 6)}, "schemes"),
        ({"schemes": (2,)}, "scheme"),
        ({"schemes": (4, 255)}, "keyed hash"),
        ({"accounts": (GenesisAccount(b"a" * 32, 1),) * 2}, "twice"),
        (
            {"accounts": (GenesisAccount(b"a" * 32, SUPPLY_MAX - 1), GenesisAccount(b"b" * 32, 1))},
            "supply",
        ),
        ({"members": (Member(4, b"k" * 32, 3, b"r" * 32),)}, "supply"),
        ({"parameters": Parameters()}, "durability"),
        (parameters(gc_depth=7), "gc_depth"),
        (parameters(commit_lag=0), "commit_lag"),
        (parameters(block_interval_ms=0), "block_interval_ms"),
        (parameters(block_gas_max=2**31 - 1), "block_gas_max"),
        (parameters(block_size_bytes_max=64 * 1024 - 1), "block_size_bytes_max"),
        (parameters(block_size_bytes_max=8 * 1024 * 1024 + 1), "block_size_bytes_max"),
        (parameters(leader_timeout_ms=0), "leader_timeout_ms"),
        (parameters(leader_timeout_ms=3_201), "leader_timeout_ms"),
        (parameters(leader_timeout_ms_max=600_001), "leader_timeout_ms"),
        ({"members": (Member(4, b"k" * 31, 1, b"r" * 32),)}, "key"),
        ({"members": (Member(4, b"k" * 32, 0, b"r" * 32),)}, "stake"),
    ],
)
def test_a_genesis_that_cannot_be_is_refused(changes, word):
    check_genesis(VALID)
    with pytest.raises(QnetError) as caught:
        check_genesis(msgspec.structs.replace(VALID, **changes))
    assert caught.value.code is Code.CONFIGURATION_INVALID
    assert word in caught.value.detail


def test_development_networks_may_do_without_fsync_and_real_signatures():
    check_genesis(
        msgspec.structs.replace(VALID, development=True, parameters=Parameters(), schemes=(4, 255))
    )
