"""The arithmetic of stake, and the schedule of leaders."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.committee import Committee, Member
from qnet_actors.wire.hashing import COMMITTEE, KEY, LEADER, hash32
from qnet_actors.wire.limits import SUPPLY_MAX, VALIDATORS_MAX

SEED = b"s" * 32


def committee(stakes: list[int], seed: bytes = SEED, epoch: int = 0) -> Committee:
    return Committee(
        [Member(4, i.to_bytes(32, "big"), stake, b"r" * 32) for i, stake in enumerate(stakes)],
        epoch,
        seed,
    )


@pytest.mark.parametrize("validators", range(1, VALIDATORS_MAX + 1))
def test_quorum_and_validity_of_equal_stakes(validators):
    """n = 3f + 1 and the numbers between: quorums meet in an honest validator."""
    equal = committee([1] * validators)
    faulty = (validators - 1) // 3
    assert equal.total == validators
    # Two quorums have more than f validators in common, and the honest ones alone make a quorum.
    assert 2 * equal.quorum - validators >= faulty + 1
    assert equal.quorum <= validators - faulty
    # No smaller number would do.
    assert 3 * (equal.quorum - 1) <= 2 * validators
    # Validity: at least one honest among so many, and the honest are enough to reach it.
    assert faulty < equal.validity <= validators - faulty
    assert equal.quorum + equal.validity == validators + 1
    if validators % 3 == 1:
        assert (equal.quorum, equal.validity) == (2 * faulty + 1, faulty + 1)
    authors = range(validators)
    assert equal.has_quorum(authors[: equal.quorum])
    assert not equal.has_quorum(authors[: equal.quorum - 1])


@given(st.lists(st.integers(1, SUPPLY_MAX // 8), min_size=1, max_size=8), st.data())
def test_quorum_and_validity_of_any_stakes(stakes, data):
    some = committee(stakes)
    assert 3 * some.quorum > 2 * some.total >= 3 * (some.quorum - 1)
    # What is not a quorum leaves at least `validity` outside of it.
    authors = data.draw(st.lists(st.integers(0, len(stakes) - 1), max_size=16))
    inside = some.stake_of(authors)
    assert inside == sum(stake for i, stake in enumerate(stakes) if i in authors)
    assert some.has_quorum(authors) == (some.total - inside < some.validity)


def test_an_author_counts_once():
    four = committee([1] * 4)
    assert four.stake_of([0, 0, 0, 0]) == 1
    assert not four.has_quorum([0, 0, 1, 1])


def test_leaders_follow_stake():
    stakes = [1, 2, 3, 10]
    weighted = committee(stakes)
    rounds = 8_000
    led = Counter(weighted.leader(round_) for round_ in range(rounds))
    for author, stake in enumerate(stakes):
        expected = rounds * stake / sum(stakes)
        # Six standard deviations: it fails by chance never, by a fault at once.
        assert abs(led[author] - expected) < 6 * expected**0.5


@given(st.lists(st.integers(1, 2**56), min_size=1, max_size=128), st.integers(0, 2**64 - 1))
def test_the_leader_is_the_one_whose_stake_covers_the_point(stakes, round_):
    some = committee(stakes)
    digest = hash32(LEADER, SEED, round_.to_bytes(8, "big"))
    point = int.from_bytes(digest[:16], "big") % sum(stakes)
    leader = some.leader(round_)
    assert sum(stakes[:leader]) <= point < sum(stakes[: leader + 1])


def test_another_seed_gives_another_schedule():
    one, other = committee([1] * 10), committee([1] * 10, b"t" * 32)
    schedules = [[c.leader(round_) for round_ in range(100)] for c in (one, one, other)]
    assert schedules[0] == schedules[1] != schedules[2]


def test_the_digest_covers_epoch_seed_and_members():
    base = committee([1, 2])
    assert base.digest == hash32(COMMITTEE, encode([0, SEED, base.members]))
    others = (committee([1, 2], epoch=1), committee([1, 2], b"t" * 32), committee([2, 1]))
    assert len({base.digest, *(other.digest for other in others)}) == 4
    assert base.key_id(1) == hash32(KEY, b"\x04", base.members[1].public_key)
    assert len(base) == 2


def member(public_key: bytes = b"k" * 32, scheme: int = 4, stake: int = 1) -> Member:
    return Member(scheme, public_key, stake, b"r" * 32)


@pytest.mark.parametrize(
    "members",
    [
        [],
        [member(i.to_bytes(32, "big")) for i in range(VALIDATORS_MAX + 1)],
        [member(stake=0)],
        [member(stake=SUPPLY_MAX + 1)],
        [member(b"a" * 32, stake=SUPPLY_MAX), member(b"b" * 32)],
        [member(), member()],
        [member(b"k" * 31)],
        [member(b"")],
        [member(scheme=0)],
        [member(scheme=6)],
        [member(scheme=2)],
    ],
)
def test_a_committee_that_cannot_be_is_refused(members):
    with pytest.raises(QnetError) as caught:
        Committee(members, 0, SEED)
    assert caught.value.code is Code.CONFIGURATION_INVALID
