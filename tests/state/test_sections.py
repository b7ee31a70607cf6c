"""Sections of the state: they combine to the root, and none of them can be another."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from qnet_actors.light import key_hash
from qnet_actors.state import State, check_section, section_prefixes, sections_root, split_sections
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.snapshots import SnapshotSection
from tests.state.test_partition import Values, write_set


def accounts(count: int, seed: int = 1) -> Values:
    rng = random.Random(seed)
    return {rng.randbytes(32): (n, 2 * n + 1, rng.randbytes(32)) for n in range(count)}


def state_of(held: Values) -> State:
    state = State()
    state.load(1, write_set(held))
    return state


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(1, 70), st.integers(0, 9))
def test_sections_are_the_state_whatever_their_size(count, accounts_max, seed):
    state = state_of(accounts(count, seed))
    made = list(split_sections(state.snapshot(), accounts_max))
    sections = [section for section, _ in made]
    assert sections_root(sections) == state.root()
    for (section, part), prefix in zip(made, section_prefixes(sections), strict=True):
        assert len(part.addresses) <= 32 * accounts_max
        check_section(section, prefix, part)
    other = State(4)
    other.replace(1, [part for _, part in made])
    assert other.root() == state.root()


def test_sections_do_not_depend_on_the_order_of_accounts():
    held = accounts(50)
    backwards = dict(reversed(held.items()))
    assert list(split_sections(write_set(held), 8)) == list(
        split_sections(State.snapshot(state_of(backwards)), 8)
    )


def refused(sections: list[SnapshotSection], match: str) -> None:
    with pytest.raises(QnetError, match=match) as caught:
        sections_root(sections)
    assert caught.value.code is Code.DATA_CORRUPT


def test_sections_that_are_no_whole_tree_are_refused():
    sections = [section for section, _ in split_sections(write_set(accounts(40)), 8)]
    refused(sections[1:], "overlap|gap")
    refused(sections[:-1], "gap")
    refused([*sections, sections[-1]], "overlap")
    refused([replace(sections[0], depth=65), *sections[1:]], "deep")
    refused([replace(sections[0], kind=3), *sections[1:]], "kind")
    refused([replace(sections[0], kind=0), *sections[1:]], "kind")
    refused([replace(sections[0], hash=bytes(32)), *sections[1:]], "kind")
    swapped = [sections[1], sections[0], *sections[2:]]
    assert sections[0].depth == sections[1].depth
    assert sections_root(swapped) != sections_root(sections)


def test_a_section_is_proved_by_its_accounts_alone():
    held = accounts(40)
    made = list(split_sections(write_set(held), 8))
    prefixes = section_prefixes([section for section, _ in made])
    section, part = made[2]
    prefix = prefixes[2]

    def lies() -> dict[str, WriteSet]:
        richer = bytearray(part.balances)
        richer[0] ^= 1
        return {
            "another section": made[3][1],
            "richer": replace(part, balances=bytes(richer)),
            "one less": WriteSet(
                part.addresses[32:], part.nonces[8:], part.balances[8:], part.key_ids[32:]
            ),
            "none": WriteSet(b"", b"", b"", b""),
            "torn": replace(part, nonces=part.nonces[1:]),
            "unsorted": WriteSet(
                part.addresses[32:] + part.addresses[:32],
                part.nonces[8:] + part.nonces[:8],
                part.balances[8:] + part.balances[:8],
                part.key_ids[32:] + part.key_ids[:32],
            ),
        }

    check_section(section, prefix, part)
    for name, lie in lies().items():
        with pytest.raises(QnetError) as caught:
            check_section(section, prefix, lie)
        assert caught.value.code is Code.DATA_CORRUPT, name


def test_a_kind_that_is_claimed_is_not_believed():
    """A lone leaf rises: two kinds for one hash could combine to the same root."""
    held = accounts(1)
    (section, part), *_ = split_sections(write_set(held), 8)
    (address,) = held
    side = key_hash(address)[0] >> 7
    empty = SnapshotSection(1, 0, bytes(32))
    node = SnapshotSection(1, 1, section.hash)
    honest = [empty, node] if side else [node, empty]
    lying = honest[::-1]
    assert sections_root(honest) == sections_root(lying) == section.hash
    check_section(node, side, part)
    with pytest.raises(QnetError):
        check_section(node, 1 - side, part)
    with pytest.raises(QnetError):
        check_section(replace(node, kind=2), side, part)
