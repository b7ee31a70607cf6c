"""Where the registry keeps what: addresses that are hashes, so nobody holds a key for them."""

from __future__ import annotations

from functools import cache
from typing import Final

from qnet_actors.wire.hashing import REGISTRY, hash32
from qnet_actors.wire.limits import VALIDATORS_MAX


def _address(kind: bytes, *parts: bytes | int) -> bytes:
    encoded = (p if isinstance(p, bytes) else p.to_bytes(8, "big") for p in parts)
    return hash32(REGISTRY, kind, *encoded)


HEAD: Final = _address(b"head")
BURNT: Final = _address(b"burnt")


@cache
def slot_account(index: int) -> bytes:
    """The owner of the validator in a place of the registry."""
    return _address(b"slot", index)


def validator_account(owner: bytes) -> bytes:
    """Bonded stake, and the id of the validator key."""
    return _address(b"validator", owner)


def unbonding_account(owner: bytes) -> bytes:
    """Stake that is paid out in the epoch that stands there."""
    return _address(b"unbonding", owner)


def approval_account(owner: bytes) -> bytes:
    """The digest of the last approval; see `wire.rules.approval_digest`."""
    return _address(b"approval", owner)


def decided_account(row: int) -> bytes:
    """A row of the rules that the next epoch begins with, where there are such."""
    return _address(b"decided", row)


def key_account(name: bytes) -> bytes:
    """Who registered the key with this id."""
    return _address(b"key", name)


def chunk_account(name: bytes, index: int) -> bytes:
    """A piece of the key with this id."""
    return _address(b"chunk", name, index)


def offence_account(name: bytes, epoch: int) -> bytes:
    """Holds who reported what the key with this id signed in an epoch; zeros: nobody did."""
    return _address(b"offence", name, epoch)


def seed_account(epoch: int) -> bytes:
    """Of an epoch's leader schedule; the same account for every other epoch."""
    return _address(b"seed", epoch % 2)


def member_account(epoch: int, index: int, what: int) -> bytes:
    """Key id, stake and owner (`what` 0, 1, 2) of a member, for every other epoch the same."""
    return _address(b"member", epoch % 2, index, what)


def member_accounts(epoch: int) -> list[bytes]:
    """All of them that a committee may have."""
    places = range(VALIDATORS_MAX)
    return [member_account(epoch, index, what) for index in places for what in range(3)]
