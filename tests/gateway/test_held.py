"""What is held for those who wait: bounded, and gone when nobody waits."""

from __future__ import annotations

from qnet_actors.gateway.held import Held
from qnet_actors.gateway.submission import Parsed


def item(number: int, size_bytes: int = 10) -> Parsed:
    return Parsed(bytes([number]) * 32, bytes(32), bytes(size_bytes), 1)


def test_what_a_validator_took_is_told_in_order_until_nobody_waits() -> None:
    held, one, other = Held(10, 1_000), object(), object()
    items = [item(n) for n in range(4)]
    held.add(items)
    assert held.of(one) == []
    for each in (items[2], items[0], items[1]):
        held.took(each, one)
    held.took(items[3], other)
    assert held.of(one) == items[:3]
    held.took(items[0], other)
    held.drop(items[1].id)
    held.drop(items[1].id)
    assert held.of(one) == [items[2]]
    assert held.of(other) == [items[0], items[3]]


def test_past_a_bound_the_oldest_are_held_no_more() -> None:
    held, one = Held(2, 1_000), object()
    items = [item(n) for n in range(5)]
    held.add(items[1:4])
    for each in items:
        held.took(each, one)
    assert held.of(one) == items[2:4]
    held = Held(10, 25)
    held.add([items[1], items[1], items[2], items[3]])
    assert len(held) == 2
    held.drop(items[2].id)
    held.add([items[4]])
    for each in items:
        held.took(each, one)
    assert held.of(one) == items[3:]
    held.add([item(5, size_bytes=26)])
    assert len(held) == 0
