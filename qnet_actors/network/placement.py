"""Which machine each validator lives on, and how Ray is held to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from qnet_actors.network.directory import known_machines, save_machines
from qnet_actors.wire.codes import Code, QnetError

CORES_PER_VALIDATOR: Final = 2
MACHINE_LABEL: Final = "qnet/machine"
"""Names a machine of a cluster, also after its Ray was started again; without it, it gets none."""
_SHARE: Final = 0.01
_NODE_LABEL: Final = "ray.io/node-id"


@dataclass(frozen=True, slots=True)
class Placement:
    """A machine a validator, by index."""

    machines: tuple[str, ...]
    roomy: bool
    """Whether each machine has at least two cores for every validator on it."""
    label: str = _NODE_LABEL
    """What names them."""


def place(
    machines: Sequence[tuple[str, float]], validators: int, before: Sequence[str] = ()
) -> Placement:
    """Spreads validators over machines, each (name, cores), the emptiest first.

    The first of them stay where they were `before`.

    Raises `QnetError(CONFIGURATION_INVALID)` where there is no machine, or one of `before` is away.
    """
    if not machines:
        raise QnetError(Code.CONFIGURATION_INVALID, "the Ray cluster has no machine")
    places = {name: at for at, (name, _) in enumerate(machines)}
    placed = [0] * len(machines)
    names: list[str] = []
    for index in range(validators):
        if index < len(before):
            if before[index] not in places:
                raise QnetError(
                    Code.CONFIGURATION_INVALID,
                    f"the data of validator {index} is on machine {before[index]}, which is not "
                    "in the cluster; start Ray there with that name",
                )
            best = places[before[index]]
        else:
            best = max(range(len(machines)), key=lambda n: (machines[n][1] / (placed[n] + 1), -n))
        placed[best] += 1
        names.append(machines[best][0])
    roomy = all(
        cores >= CORES_PER_VALIDATOR * count
        for (_, cores), count in zip(machines, placed, strict=True)
    )
    return Placement(tuple(names), roomy)


def place_here(validators: int) -> Placement:
    """Places validators on a Ray that was started for them alone."""
    return place([(node["NodeID"], _cores(node)) for node in _alive_nodes()], validators)


def place_for_good(
    nodes: Sequence[Mapping[str, Any]], validators: int, directory: Path
) -> Placement:
    """Places validators on the machines of a cluster, which `nodes` are as `ray.nodes` has them.

    Where each went is kept in `directory`, and holds from then on.

    Raises `QnetError(CONFIGURATION_INVALID)` where no machine has a name, two have the same, or one
    that holds a validator's data is away.
    """
    machines = sorted(
        (str(node["Labels"][MACHINE_LABEL]), _cores(node))
        for node in nodes
        if node["Alive"] and MACHINE_LABEL in node["Labels"]
    )
    if not machines:
        raise QnetError(
            Code.CONFIGURATION_INVALID,
            f"no machine of the cluster has a name; start Ray with --labels {MACHINE_LABEL}=NAME",
        )
    for (name, _), (other, _) in pairwise(machines):
        if name == other:
            raise QnetError(
                Code.CONFIGURATION_INVALID,
                f"two machines are named {name}; a validator could be started without its data",
            )
    before = known_machines(directory)
    placement = place(machines, validators, before)
    if len(placement.machines) > len(before):
        save_machines(directory, placement.machines)
    return Placement(placement.machines, placement.roomy, MACHINE_LABEL)


def place_on_cluster(validators: int, directory: Path) -> Placement:
    """As `place_for_good`, on the cluster that this process is connected to."""
    return place_for_good(_alive_nodes(), validators, directory)


def pinned(placement: Placement, index: int) -> PlacementGroupSchedulingStrategy:
    """How the actor of a validator is scheduled, and with it all the actors that it starts.

    All are on one machine, and on no other after a restart: its disk is there, and nobody may sign
    for it elsewhere.
    """
    cores = CORES_PER_VALIDATOR if placement.roomy else _SHARE
    group = placement_group(
        [{"CPU": cores}],
        strategy="STRICT_PACK",
        name=f"validator-{index}",
        bundle_label_selector=[{placement.label: placement.machines[index]}],
    )
    return PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)


def beside_driver() -> NodeAffinitySchedulingStrategy:
    """How an actor is scheduled on the machine of the process that asks for it."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _alive_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _cores(node: Mapping[str, Any]) -> float:
    return float(node["Resources"].get("CPU", 0.0))
