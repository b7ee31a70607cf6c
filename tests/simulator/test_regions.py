"""Delays by place."""

from dataclasses import replace

import pytest

from qnet_actors.simulator.command import simulate
from qnet_actors.simulator.regions import PLACES, longest_ms, matrix_ms
from qnet_actors.simulator.result import Verdict
from qnet_actors.wire.codes import QnetError
from tests.simulator.test_simulation import QUICK


def test_the_world_is_alike_both_ways_and_near_at_home():
    count = 2 * len(PLACES)
    matrix = matrix_ms("world", count)
    assert matrix is not None
    for here in range(count):
        for there in range(count):
            assert matrix[here][there] == matrix[there][here]
            assert (matrix[here][there] == 0) == ((here - there) % len(PLACES) == 0)
    assert longest_ms(matrix) == 162
    assert matrix_ms("", 4) is None
    assert longest_ms(None) == 0
    with pytest.raises(QnetError):
        matrix_ms("moon", 4)


def test_a_network_over_the_world_stands_its_faults():
    far = simulate(3, replace(QUICK, rounds_min=40, regions="world"))
    assert far.verdict == Verdict.PASS, far.reason


def test_a_network_over_the_world_has_slower_rounds():
    calm = replace(QUICK, faults=frozenset(), rounds_min=20)
    near, far = simulate(3, calm), simulate(3, replace(calm, regions="world"))
    assert near.verdict == far.verdict == Verdict.PASS
    assert far.rounds / far.virtual_seconds < 0.9 * near.rounds / near.virtual_seconds
