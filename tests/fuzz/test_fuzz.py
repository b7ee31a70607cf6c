"""Every decoder of what comes from outside, on seeded mutations of good inputs."""

from __future__ import annotations

import zlib
from itertools import islice

import pytest

from qnet_actors.wire.codes import Code, QnetError
from tests.fuzz.harnesses import HARNESSES, Broken, Harness
from tests.fuzz.mutation import mutations

MUTATIONS = 1_200


@pytest.mark.parametrize("harness", HARNESSES, ids=lambda harness: harness.name)
def test_good_inputs_are_taken(harness: Harness) -> None:
    seeds = harness.seeds()
    assert seeds
    assert all(harness.takes(seed) for seed in seeds)


@pytest.mark.parametrize("harness", HARNESSES, ids=lambda harness: harness.name)
def test_no_bytes_break_a_decoder(harness: Harness) -> None:
    seed = zlib.crc32(harness.name.encode())
    taken = [harness.takes(data) for data in mutations(harness.seeds(), MUTATIONS, seed)]
    assert harness.cuts or not all(taken), "nothing was ever refused"


def test_mutations_are_repeatable_and_differ() -> None:
    seeds = [b"one seed", b"another"]
    first = list(mutations(seeds, 200, 1))
    assert first == list(mutations(seeds, 200, 1))
    assert first != list(mutations(seeds, 200, 2))
    assert len(set(first)) > 100
    assert list(islice(mutations(seeds, 200, 1), 3)) == first[:3]


def broken_decoders() -> list[Harness]:
    def crash(data: bytes) -> None:
        raise IndexError(len(data))

    def wrong_code(_: bytes) -> None:
        raise QnetError(Code.INTERNAL, "something")

    def no_reason(_: bytes) -> None:
        raise QnetError(Code.MALFORMED, "x" * 2_000)

    return [Harness(f.__name__, f, lambda: [b"x"]) for f in (crash, wrong_code, no_reason)]


@pytest.mark.parametrize("harness", broken_decoders(), ids=lambda harness: harness.name)
def test_a_broken_decoder_is_noticed(harness: Harness) -> None:
    with pytest.raises(Broken):
        harness.takes(b"x")
