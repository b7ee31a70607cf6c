"""The order of ready entries: both of its ends, and what it keeps once they are gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.mempool.entries import Entry
from qnet_actors.mempool.ready import Ready

CYCLES = 3_000
KEPT_MAX = 1_100
"""Stale tickets and ranks of an order in which nothing waits."""


def entry(ticket: int, rank: int, *, sender: int = 0, nonce: int = 0) -> Entry:
    name = sender.to_bytes(32, "big")
    made = Entry(bytes(32), 1, name, bytes(32), nonce, 0, 1, rank, b"", 0, 0, b"", False, 0, 1, b"")
    made.ticket, made.rank = ticket, rank
    return made


def kept(ready: Ready) -> int:
    """The longest of all that it holds."""
    kept = sum(map(len, ready._kept.values()))
    parts = (ready._lines, ready._ranks, ready._lowest, ready._waiting, ready._kept_nonces)
    return max(kept, *map(len, parts))


def add(ready: Ready, made: Entry) -> None:
    ready.add(made)


def extend(ready: Ready, made: Entry) -> None:
    ready.extend([made], [made.ticket], [made.rank])


def put_back(ready: Ready, made: Entry) -> None:
    ready.put_back([(made, made.ticket)])


def take_first(ready: Ready) -> None:
    assert ready.first() is not None
    ready.pop()
    assert ready.first() is None


def take_last(ready: Ready) -> None:
    last = ready.last()
    assert last is not None
    ready.remove(last)
    assert ready.last() is None


def take_first_and_look_no_further(ready: Ready) -> None:
    """As where that one filled its batch."""
    assert ready.first() is not None
    ready.pop()


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("give", [add, extend, put_back])
@pytest.mark.parametrize("take", [take_first, take_last, take_first_and_look_no_further])
def test_drains_and_refills_leave_nothing_behind(
    rising: bool, give: Callable[[Ready, Entry], None], take: Callable[[Ready], None]
) -> None:
    ready = Ready()
    for cycle in range(CYCLES):
        give(ready, entry(cycle + 1, cycle if rising else 7))
        take(ready)
    assert len(ready) == 0
    assert kept(ready) <= KEPT_MAX


def test_several_ranks_are_added_at_once_where_the_stale_ones_are_cleared_away() -> None:
    ready, ticket = Ready(), 0
    for cycle in range(CYCLES):
        made = [entry(ticket + 1 + each, cycle + each % 3) for each in range(4)]
        ticket += len(made)
        ready.extend(made, [each.ticket for each in made], [each.rank for each in made])
        made.sort(key=lambda each: -each.rank)
        assert ready.last() is made[-1]
        for each in made:
            assert ready.first() is each
            ready.pop()
    assert kept(ready) <= KEPT_MAX


@given(st.lists(st.tuples(st.sampled_from(["add", "first", "last", "any"]), st.integers(1, 4))))
def test_the_first_and_the_last_are_those_of_a_sorted_list(steps: list[tuple[str, int]]) -> None:
    ready, oracle, tickets = Ready(), list[Entry](), 0
    for step, number in steps:
        if step == "add":
            tickets += 1
            made = entry(tickets, number)
            ready.add(made)
            oracle.append(made)
            # By falling rank; equals stay in the order in which they came.
            oracle.sort(key=lambda each: -each.rank)
        elif oracle:
            victim = oracle.pop({"first": 0, "last": -1}.get(step, number % len(oracle)))
            ready.remove(victim)
        assert ready.first() is (oracle[0] if oracle else None)
        assert ready.last() is (oracle[-1] if oracle else None)


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "promise", "first", "last", "any"]), st.integers(1, 4)),
        max_size=60,
    ),
    st.integers(1, 3),
)
def test_what_is_promised_keeps_its_place_and_gives_way_to_nobody(
    steps: list[tuple[str, int]], every: int
) -> None:
    ready, oracle, tickets = Ready(), list[Entry](), 0
    for at, (step, number) in enumerate(steps):
        if step == "add":
            tickets += 1
            made = entry(tickets, number, sender=tickets)
            ready.add(made)
            oracle.append(made)
            oracle.sort(key=lambda each: -each.rank)
        elif step == "promise" and oracle:
            oracle[number % len(oracle)].promised = True
        elif step == "first" and oracle:
            assert ready.first() is oracle[0]
            ready.pop()
            del oracle[0]
        elif oracle:
            victim = oracle.pop(-1 if step == "last" else number % len(oracle))
            ready.remove(victim)
        if at % every == 0:
            assert ready.last() is next((e for e in reversed(oracle) if not e.promised), None)
        if at % 2 == 0:
            assert ready.first() is (oracle[0] if oracle else None)
    for each in oracle:
        assert ready.first() is each
        ready.pop()
    assert ready.first() is None


def test_nothing_gives_way_that_a_promised_one_of_its_sender_follows() -> None:
    ready = Ready()
    made = [entry(n + 1, 5, sender=sender, nonce=n) for n, sender in enumerate((7, 8, 7, 8))]
    made[3].promised = True
    for each in made:
        ready.add(each)
    assert ready.last() is made[2]
    ready.remove(made[2])
    # The next one would be that of 8, whose promised one could not follow without it.
    assert ready.last() is made[0]
    # What comes behind the promised one may go again.
    later = entry(9, 4, sender=8, nonce=9)
    ready.add(later)
    assert ready.last() is later
    for each in (made[0], made[1], made[3], later):
        assert ready.first() is each
        ready.pop()


def test_looks_at_both_ends_of_promised_ones_leave_nothing_behind() -> None:
    ready = Ready()
    for ticket in range(1, 9):
        promised = entry(ticket, ticket % 3, sender=ticket)
        promised.promised = True
        ready.add(promised)
    for _ in range(CYCLES):
        assert ready.last() is None
        assert ready.first() is not None
    assert kept(ready) <= KEPT_MAX
    for cycle in range(CYCLES):
        promised = entry(100 + cycle, cycle, sender=cycle)
        promised.promised = True
        ready.add(promised)
        assert ready.last() is None
        ready.remove(promised)
    assert kept(ready) <= KEPT_MAX
