"""Which machine each split validator lives on, and how Ray is held to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from qnet_actors.wire.codes import Code, QnetError

CORES_PER_VALIDATOR: Final = 2
_SHARE: Final = 0.01
_NODE_LABEL: Final = "ray.io/node-id"


@dataclass(frozen=True, slots=True)
class Placement:
    """A machine a validator, by index."""

    machines: tuple[str, ...]
    roomy: bool
    """Whether each machine has at least two cores for every validator on it."""


def place(machines: Sequence[tuple[str, float]], validators: int) -> Placement:
    """Spreads validators over machines, each (name, cores), the emptiest first.

    Raises `QnetError(CONFIGURATION_INVALID)` where there is no machine.
    """
    if not machines:
        raise QnetError(Code.CONFIGURATION_INVALID, "the Ray cluster has no machine")
    placed = [0] * len(machines)
    names: list[str] = []
    for _ in range(validators):
        best = max(range(len(machines)), key=lambda n: (machines[n][1] / (placed[n] + 1), -n))
        placed[best] += 1
        names.append(machines[best][0])
    roomy = all(
        cores >= CORES_PER_VALIDATOR * count
        for (_, cores), count in zip(machines, placed, strict=True)
    )
    return Placement(tuple(names), roomy)


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
        bundle_label_selector=[{_NODE_LABEL: placement.machines[index]}],
    )
    return PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)


def alive_nodes() -> list[dict[str, Any]]:
    """The machines of the cluster."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
