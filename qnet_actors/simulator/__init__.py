"""A whole network on a virtual clock, with faults, from one seed.  See docs/concepts/simulator.md.

Names are loaded when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qnet_actors.simulator.command import run_sim, simulate
    from qnet_actors.simulator.faults import Fault, parse_faults
    from qnet_actors.simulator.result import SimResult, Verdict
    from qnet_actors.simulator.simulation import SimConfig, Simulation

_HOME = {
    "Fault": "faults",
    "SimConfig": "simulation",
    "SimResult": "result",
    "Simulation": "simulation",
    "Verdict": "result",
    "parse_faults": "faults",
    "run_sim": "command",
    "simulate": "command",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


__all__ = [
    "Fault",
    "SimConfig",
    "SimResult",
    "Simulation",
    "Verdict",
    "parse_faults",
    "run_sim",
    "simulate",
]
