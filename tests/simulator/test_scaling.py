"""Costs of rounds are counted, and plots are well formed."""

from xml.etree import ElementTree

import pytest

from qnet_actors.simulator.plots import line_plot
from qnet_actors.simulator.scaling import (
    NAMES,
    SIZES,
    RoundCost,
    Speed,
    certified,
    header_bytes,
    measure,
    plots,
    quorum,
    uncertified,
)
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(("validators", "needed"), [(1, 1), (4, 3), (7, 5), (10, 7), (100, 67)])
def test_quorums_of_equal_stakes(validators: int, needed: int):
    assert quorum(validators) == needed


def test_rounds_are_counted_message_by_message():
    for validators in (1, 2, 4, 7):
        received, verified = 0, 0
        for author in range(validators):
            if author == 0:
                continue
            received += header_bytes(validators) + 100
            verified += 1
        assert uncertified(validators, 100) == RoundCost(received, 1, verified)
        for author in range(validators):
            if author != 0:
                received += 100  # Its vote for the header of validator 0.
                verified += 1
                received += quorum(validators) * 100  # Its certificate.
                verified += quorum(validators)
        assert certified(validators, 100) == RoundCost(received, validators, verified)


def test_a_hundred_certified_validators_carry_what_the_design_says():
    size = SCHEME_SIZES[Scheme.ML_DSA_65].signature
    signatures = 100 * quorum(100) * size
    assert signatures == 22_170_300
    assert 0.9 < certified(100, size).received_bytes / signatures < 1.1


def test_headers_grow_with_the_validators():
    sizes = [header_bytes(validators) for validators in SIZES]
    assert sizes == sorted(sizes)
    assert 38 <= (header_bytes(100) - header_bytes(50)) / 50 <= 48


def test_every_scheme_is_measured_and_drawn():
    speeds = measure(0.002)
    assert set(speeds) == set(NAMES)
    assert all(speed.sign_us > 0 and speed.verify_us > 0 for speed in speeds.values())
    documents = plots(speeds)
    assert set(documents) == {"scaling-bytes.svg", "scaling-cpu.svg", "scaling-schemes.svg"}
    for document in documents.values():
        root = ElementTree.fromstring(document)
        lines = root.findall(f"{SVG}polyline")
        assert len(lines) == 4
        for line in lines:
            assert len(line.get("points", "").split()) == len(SIZES)


def test_time_is_signing_and_verifying():
    assert Speed(100.0, 50.0).round_ms(RoundCost(0, 2, 10)) == pytest.approx(0.7)


def test_points_stand_where_their_values_say():
    root = ElementTree.fromstring(line_plot("a < b", "x", "y", {"one": [(1, 1), (10, 100)]}))
    (line,) = root.findall(f"{SVG}polyline")
    first, last = (point.split(",") for point in line.get("points", "").split())
    assert float(first[0]) < float(last[0])
    assert float(first[1]) > float(last[1]), "upwards is less in SVG"
    assert root.findtext(f"{SVG}title") == "a < b"
