"""The committee of an epoch: keys, stake, quorums and the leader schedule."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Final

import msgspec

from qnet_actors.wire.codec import U8, Address, Struct, Unsigned, encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import COMMITTEE, LEADER, REGISTRY, hash32
from qnet_actors.wire.limits import SUPPLY_MAX, VALIDATORS_MAX
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme, key_id


class Member(Struct, frozen=True):
    """A validator of the committee: its index in the list is its name within the epoch."""

    scheme: U8
    public_key: Annotated[bytes, msgspec.Meta(max_length=8_192)]
    stake: Unsigned
    reward: Address
    """The account that fees of its batches go to."""


_SCHEMES: Final = frozenset(scheme.value for scheme in Scheme)
Members = Annotated[tuple[Member, ...], msgspec.Meta(min_length=1, max_length=VALIDATORS_MAX)]


def committee_account(epoch: int) -> bytes:
    """The account that has the digest of an epoch's committee in the place of its key id.

    The last block of the epoch before writes it, so whoever trusts that epoch's committee knows the
    next one.  It is the same account for every other epoch; the digest binds the number.
    """
    return hash32(REGISTRY, b"committee", (epoch % 2).to_bytes(8, "big"))


def quorum_of(stake_total: int) -> int:
    """The least stake of which two sets have an honest validator in common."""
    return 2 * stake_total // 3 + 1


class Committee:
    """The validators of one epoch and the arithmetic of their stake.

    `quorum` is floor(2S/3) + 1 of the total stake S; `validity` is S - quorum + 1, the stake that
    holds at least one honest validator.  Raises `QnetError(CONFIGURATION_INVALID)`.
    """

    def __init__(self, members: Iterable[Member], epoch: int, seed: bytes) -> None:
        self.members: Final = tuple(members)
        self.epoch: Final = epoch
        self.seed: Final = seed
        self.stakes: Final = tuple(member.stake for member in self.members)
        self.total: Final = sum(self.stakes)
        self.quorum: Final = quorum_of(self.total)
        self.validity: Final = self.total - self.quorum + 1
        self._check()

    def _check(self) -> None:
        if not 1 <= len(self.members) <= VALIDATORS_MAX:
            raise QnetError(Code.CONFIGURATION_INVALID, f"{len(self.members)} validators")
        if min(self.stakes) < 1 or self.total > SUPPLY_MAX:
            raise QnetError(Code.CONFIGURATION_INVALID, "a stake is zero or their sum too large")
        if len({member.public_key for member in self.members}) != len(self.members):
            raise QnetError(Code.CONFIGURATION_INVALID, "two validators have the same key")
        for member in self.members:
            if member.scheme not in _SCHEMES:
                raise QnetError(Code.CONFIGURATION_INVALID, f"scheme {member.scheme} is unknown")
            if len(member.public_key) != SCHEME_SIZES[Scheme(member.scheme)].public_key:
                raise QnetError(Code.CONFIGURATION_INVALID, "a public key of the wrong size")

    def __len__(self) -> int:
        return len(self.members)

    @cached_property
    def digest(self) -> bytes:
        return hash32(COMMITTEE, encode([self.epoch, self.seed, self.members]))

    def key_id(self, author: int) -> bytes:
        """The key id of a member's key."""
        return key_id(self.members[author].scheme, self.members[author].public_key)

    def stake_of(self, authors: Iterable[int]) -> int:
        """The stake of distinct authors."""
        return sum(self.stakes[author] for author in set(authors))

    def has_quorum(self, authors: Iterable[int]) -> bool:
        return self.stake_of(authors) >= self.quorum

    def leader(self, round_: int) -> int:
        """The author whose block may lead `round_`: stake-weighted by BLAKE3(seed, round).

        Integer arithmetic only: the digest's first 16 bytes, modulo the total stake.
        """
        digest = hash32(LEADER, self.seed, round_.to_bytes(8, "big"))
        point = int.from_bytes(digest[:16], "big") % self.total
        for author, stake in enumerate(self.stakes):
            if point < stake:
                return author
            point -= stake
        raise AssertionError("a point below the total stake falls on a member")
