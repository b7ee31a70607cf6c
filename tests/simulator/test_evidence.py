"""An equivocator ends up with proofs against it at every honest validator."""

import pytest

from qnet_actors.crypto import BatchVerifier, simulator_provider
from qnet_actors.simulator.adversary import Attack
from qnet_actors.simulator.faults import Fault
from qnet_actors.simulator.result import Verdict
from qnet_actors.simulator.rooms import RealRooms
from qnet_actors.simulator.simulation import SimConfig, Simulation
from qnet_actors.validators.checks import BlockRules

LIES = SimConfig(
    faults=frozenset({Fault.BYZANTINE}),
    fault_start_ms=500,
    fault_end_ms=4_000,
    virtual_ms_min=6_000,
    rounds_min=20,
)


@pytest.mark.parametrize("seed", [3, 5])
def test_every_honest_validator_holds_proofs_against_an_equivocator(seed: int, monkeypatch):
    simulation = Simulation(seed, LIES, RealRooms)
    (adversary,) = simulation.adversaries

    def equivocate() -> None:
        adversary.active = [Attack.EQUIVOCATE]
        adversary._favoured = [(adversary.index + 1) % 4]

    monkeypatch.setattr(adversary, "choose", equivocate)
    result = simulation.run()
    assert result.verdict == Verdict.PASS, result.reason
    assert result.attacks["equivocate"] > 0
    (liar,) = simulation.checks.byzantine
    for index in simulation.checks.honest:
        proofs = simulation.consensus[index].evidence.equivocations()
        assert [proof.author for proof in proofs] == [liar, liar]
        committee = simulation.genesis.committee()
        chain_id = simulation.genesis.chain_id()
        rules = BlockRules(committee, BatchVerifier(simulator_provider()), chain_id)
        assert rules.proven(proofs) == list(proofs)
