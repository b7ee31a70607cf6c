"""A whole network on a virtual clock, with faults, from one seed.  See docs/concepts/simulator.md.

Names are loaded when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qnet_actors.lazy import lazy

if TYPE_CHECKING:
    from qnet_actors.simulator.command import Asked, run_sim, simulate
    from qnet_actors.simulator.faults import Fault, parse_faults
    from qnet_actors.simulator.result import SimResult, Verdict
    from qnet_actors.simulator.simulation import SimConfig, Simulation
else:
    __getattr__ = lazy(
        __name__,
        {
            "command": ("Asked", "run_sim", "simulate"),
            "faults": ("Fault", "parse_faults"),
            "result": ("SimResult", "Verdict"),
            "simulation": ("SimConfig", "Simulation"),
        },
    )

__all__ = [
    "Asked",
    "Fault",
    "SimConfig",
    "SimResult",
    "Simulation",
    "Verdict",
    "parse_faults",
    "run_sim",
    "simulate",
]
