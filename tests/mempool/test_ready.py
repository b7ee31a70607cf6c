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


def entry(ticket: int, rank: int) -> Entry:
    made = Entry(
        bytes(32), 1, bytes(32), bytes(32), 0, 0, 1, rank, b"", 0, 0, b"", False, 0, 1, b""
    )
    made.ticket, made.rank = ticket, rank
    return made


def kept(ready: Ready) -> int:
    """The longest of all that it holds."""
    return max(len(ready._lines), len(ready._ranks), len(ready._lowest), len(ready._waiting))


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
