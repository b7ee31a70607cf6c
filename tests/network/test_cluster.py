"""A network over several Ray nodes: where validators go, and a node that dies and comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qnet_actors.crypto import provider
from qnet_actors.network.development import VALIDATOR, development_genesis, development_keys
from qnet_actors.network.directory import known_machines
from qnet_actors.network.launch import Network
from qnet_actors.network.placement import MACHINE_LABEL, place_for_good
from qnet_actors.network.settings import NetworkSettings
from qnet_actors.wire.codes import Code, QnetError
from tests.network.test_split_running import run


def a_node(name: str | None, cores: float = 4.0, alive: bool = True) -> dict[str, Any]:
    labels = {"ray.io/node-id": f"id of {name}"} | ({MACHINE_LABEL: name} if name else {})
    return {"Alive": alive, "Labels": labels, "Resources": {"CPU": cores}}


def test_validators_go_to_the_machines_that_have_a_name(tmp_path: Path) -> None:
    nodes = [a_node("b"), a_node(None, 64.0), a_node("a"), a_node("c", alive=False)]
    placement = place_for_good(nodes, 3, tmp_path)
    assert placement.machines == ("a", "b", "a")
    assert placement.label == MACHINE_LABEL


def test_a_validator_stays_where_its_data_is(tmp_path: Path) -> None:
    first = place_for_good([a_node("a"), a_node("b")], 2, tmp_path)
    # Emptier ones joined; who is new goes there, who was there before does not.
    nodes = [a_node("b"), a_node("0", 32.0), a_node("a")]
    assert place_for_good(nodes, 2, tmp_path) == first
    assert place_for_good(nodes, 3, tmp_path).machines == ("a", "b", "0")
    # Fewer are started once: the others' places are not forgotten.
    assert place_for_good(nodes, 1, tmp_path).machines == ("a",)
    assert known_machines(tmp_path) == ("a", "b", "0")


def test_without_the_machine_of_its_data_no_validator_starts(tmp_path: Path) -> None:
    place_for_good([a_node("a"), a_node("b")], 2, tmp_path)
    with pytest.raises(QnetError, match="validator 1 is on machine b") as caught:
        place_for_good([a_node("a"), a_node("b", alive=False), a_node("c")], 2, tmp_path)
    assert caught.value.code == Code.CONFIGURATION_INVALID
    assert known_machines(tmp_path) == ("a", "b")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([a_node(None)], "no machine of the cluster has a name"),
        ([a_node("a", alive=False)], "no machine of the cluster has a name"),
        ([a_node("a"), a_node("b"), a_node("a")], "two machines are named a"),
    ],
)
def test_names_of_machines_are_there_and_differ(
    nodes: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(QnetError, match=message) as caught:
        place_for_good(nodes, 1, tmp_path)
    assert caught.value.code == Code.CONFIGURATION_INVALID
    assert known_machines(tmp_path) == ()


def test_damaged_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "machines").write_bytes(b"\x91\x91\xa1")
    with pytest.raises(QnetError) as caught:
        place_for_good([a_node("a")], 1, tmp_path)
    assert caught.value.code == Code.DATA_CORRUPT


@pytest.mark.network
@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["packed", "split", "frozen"])
def test_a_node_dies_and_its_validator_comes_back_with_it_alone(how: str) -> None:
    found = run("cluster_network", how)
    assert found["places"] == ["a", "b", "c", "d"]
    assert found["executed"] == [12, 6, 6]
    assert found["answered_without"] == 3
    assert found["back_on"] == "c"
    assert found["roots_equal"]
    assert found["equivocations"] == [0] * 4


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("127.0.0.1:1", Code.NODE_UNREACHABLE),
        ("auto", Code.CONFIGURATION_INVALID),
        (":6379", Code.CONFIGURATION_INVALID),
        ("127.0.0.1:65536", Code.CONFIGURATION_INVALID),
    ],
)
def test_a_cluster_that_is_not_there_is_told_at_once(
    address: str, code: Code, tmp_path: Path
) -> None:
    keys = development_keys(VALIDATOR, 1, provider("auto"))
    settings = NetworkSettings(directory=tmp_path, address=address, validators=1, gateway_port=0)
    with (
        pytest.raises(QnetError) as caught,
        Network(development_genesis(keys, []), settings, lambda _: None),
    ):
        pass
    assert caught.value.code == code
    assert not list(tmp_path.iterdir())
