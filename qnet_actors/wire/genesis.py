"""Genesis: what a network is, before its first block.  Its digest is the chain id."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Final

import msgspec

from qnet_actors.wire.codec import U8, U32, Address, Codec, Struct, Unsigned, encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee, Members
from qnet_actors.wire.hashing import EPOCH_SEED, GENESIS, hash32
from qnet_actors.wire.limits import (
    GAS_LIMIT_MAX,
    GENESIS_ACCOUNTS_MAX,
    GENESIS_SIZE_BYTES_MAX,
    SUPPLY_MAX,
    TRANSACTION_SIZE_BYTES_MAX,
)
from qnet_actors.wire.schemes import Scheme

GENESIS_VERSION: Final = 1
_BLOCK_SIZE_BYTES_MAX: Final = 8 * 1024 * 1024
_TIME_MS_MAX: Final = 600_000


class Parameters(Struct, frozen=True):
    """Rules on which all validators must agree; changed only at an epoch."""

    block_interval_ms: U32 = 100
    block_gas_max: Unsigned = 2**36
    block_size_bytes_max: U32 = 8 * 1024 * 1024
    round_delay_ms: U32 = 50
    round_idle_ms: U32 = 1_000
    leader_timeout_ms: U32 = 200
    leader_timeout_ms_max: U32 = 3_200
    gc_depth: U32 = 64
    commit_lag: U32 = 64
    epoch_commits_min: U32 = 0
    """An epoch does not end before so many commits; 0: never, the genesis' committee stays."""
    unbonding_epochs: U32 = 2
    """After so many more epochs unbonded stake is paid out; until then it can be punished."""
    stake_min: Unsigned = 1
    """The least stake of a validator."""
    power_durability: bool = False
    """True: fsync before an acknowledgement.  False: written before it (development only)."""


class GenesisAccount(Struct, frozen=True):
    address: Address
    balance: Unsigned


class Genesis(Struct, frozen=True, dict=True, gc=True):
    version: U8
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    development: bool
    timestamp_ms: Unsigned
    schemes: Annotated[tuple[U8, ...], msgspec.Meta(min_length=1, max_length=8)]
    parameters: Parameters
    members: Members
    accounts: Annotated[tuple[GenesisAccount, ...], msgspec.Meta(max_length=GENESIS_ACCOUNTS_MAX)]

    def chain_id(self) -> bytes:
        return self._digest

    @cached_property
    def _digest(self) -> bytes:
        # Kept, since a genesis may have a million accounts.
        return hash32(GENESIS, encode(self))

    def committee(self) -> Committee:
        """The committee of epoch 0."""
        return Committee(self.members, 0, hash32(EPOCH_SEED, self.chain_id()))


GENESIS_CODEC: Final = Codec[Genesis](Genesis, GENESIS_SIZE_BYTES_MAX)


def check_parameters(parameters: Parameters) -> None:
    """Raises `QnetError(CONFIGURATION_INVALID)` with the parameter that is out of its range."""

    def refuse(reason: str) -> None:
        raise QnetError(Code.CONFIGURATION_INVALID, reason)

    if parameters.gc_depth < 8 or parameters.commit_lag < 1 or parameters.block_interval_ms < 1:
        refuse("gc_depth, commit_lag or block_interval_ms is too small")
    if not 1 <= parameters.stake_min <= SUPPLY_MAX:
        refuse(f"stake_min is not 1-{SUPPLY_MAX}: no committee could be made")
    if parameters.block_gas_max < GAS_LIMIT_MAX:
        refuse(f"block_gas_max is below {GAS_LIMIT_MAX}, the gas limit of one transaction")
    if not TRANSACTION_SIZE_BYTES_MAX <= parameters.block_size_bytes_max <= _BLOCK_SIZE_BYTES_MAX:
        refuse(f"block_size_bytes_max is not {TRANSACTION_SIZE_BYTES_MAX}-{_BLOCK_SIZE_BYTES_MAX}")
    if not 1 <= parameters.leader_timeout_ms <= parameters.leader_timeout_ms_max <= _TIME_MS_MAX:
        refuse("leader_timeout_ms is out of range")
    for name in ("block_interval_ms", "round_delay_ms", "round_idle_ms"):
        if getattr(parameters, name) > _TIME_MS_MAX:
            refuse(f"{name} is over {_TIME_MS_MAX}: the network would stand still")


def check_genesis(genesis: Genesis) -> None:
    """Raises `QnetError(CONFIGURATION_INVALID)` with the field that is wrong."""

    def refuse(reason: str) -> None:
        raise QnetError(Code.CONFIGURATION_INVALID, f"genesis: {reason}")

    if genesis.version != GENESIS_VERSION:
        refuse(f"version {genesis.version}")
    known = {scheme.value for scheme in Scheme}
    if not set(genesis.schemes) <= known or len(set(genesis.schemes)) != len(genesis.schemes):
        refuse("schemes are unknown or named twice")
    if not genesis.development and Scheme.KEYED_HASH in genesis.schemes:
        refuse("the keyed hash protects nothing; it is for development networks only")
    if any(member.scheme not in genesis.schemes for member in genesis.members):
        refuse("a validator's scheme is not among the network's")
    addresses = {account.address for account in genesis.accounts}
    if len(addresses) != len(genesis.accounts):
        refuse("an account stands there twice")
    # Whoever has money may stake it, and no committee may have more than this.
    staked = sum(member.stake for member in genesis.members)
    if staked + sum(account.balance for account in genesis.accounts) > SUPPLY_MAX:
        refuse(f"the supply is over {SUPPLY_MAX}")
    parameters = genesis.parameters
    if not genesis.development and not parameters.power_durability:
        refuse("process durability is for development networks only")
    try:
        check_parameters(parameters)
    except QnetError as error:
        refuse(error.detail)
    if any(member.stake < parameters.stake_min for member in genesis.members):
        refuse("a validator's stake is below stake_min")
    if len({member.reward for member in genesis.members}) != len(genesis.members):
        refuse("two validators have the same reward account")
    genesis.committee()
