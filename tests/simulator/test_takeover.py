"""An author that dies once its clients are told `batched`, and never comes back."""

from dataclasses import replace
from typing import Any

import pytest

from qnet_actors.rooms import StatusChanged
from qnet_actors.simulator.checks import STATUS_BATCHED
from qnet_actors.simulator.rooms import RealRooms
from qnet_actors.simulator.simulation import SimConfig, Simulation

CONFIG = SimConfig(faults=frozenset())
DIES_MS = 3_000
WITHIN_MS = 5_000


class Dying(Simulation):
    """Validator 0 dies the moment in which it has told a gateway of a batch, and the load ends."""

    promised: frozenset[bytes] = frozenset()

    def delivered(self, index: int, event: Any) -> None:
        super().delivered(index, event)
        told = isinstance(event, StatusChanged) and event.status == STATUS_BATCHED
        if told and index == 0 and self.scheduler.now_ms >= DIES_MS and not self.promised:
            self.promised = frozenset(event.ids)
            self.workload.stop()
            self.scheduler.after(0, self.hosts[0].crash, None)

    def unkept(self) -> set[bytes]:
        """Promised transactions that are not executed, though nothing took their nonces."""
        return {
            id_
            for id_ in self.promised - self.checks.expected.executed.keys()
            if (body := self.workload.bodies[id_]).nonce
            >= self.checks.accounts.get(body.sender).nonce
        }


@pytest.mark.parametrize("validators", [4, 7])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_a_dead_author_promised_is_executed_within_seconds(seed: int, validators: int):
    simulation = Dying(seed, replace(CONFIG, validators=validators), RealRooms)
    for host in simulation.hosts:
        simulation.scheduler.at(0, host.start)
    simulation.scheduler.at(300, simulation.workload.start)
    while not simulation.promised:
        simulation.scheduler.run_until(simulation.scheduler.now_ms + 1)
    simulation.scheduler.run_until(simulation.scheduler.now_ms + 500)
    # Nobody has named the batch in a block, so it takes the others to bring it to execution.
    assert simulation.unkept() == simulation.promised
    simulation.scheduler.run_until(simulation.scheduler.now_ms + WITHIN_MS - 500)
    assert simulation.checks.violation is None
    assert simulation.unkept() == set()
