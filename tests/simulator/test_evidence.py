"""An equivocator ends up with proofs against it at every honest validator."""

from dataclasses import replace

import pytest

from qnet_actors.crypto import BatchVerifier, simulator_provider
from qnet_actors.network.reporting import Reporter
from qnet_actors.simulator.adversary import Attack
from qnet_actors.simulator.faults import Fault
from qnet_actors.simulator.result import Verdict
from qnet_actors.simulator.rooms import RealRooms
from qnet_actors.simulator.simulation import SimConfig, Simulation
from qnet_actors.validators.checks import BlockRules
from qnet_actors.wire.transactions import BODY_CODEC, ReportEquivocation

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


def with_an_equivocator(
    monkeypatch: pytest.MonkeyPatch, seed: int, config: SimConfig
) -> tuple[Simulation, int]:
    """A run whose liar does nothing but equivocate, and which validator that is."""
    simulation = Simulation(seed, config, RealRooms)
    (adversary,) = simulation.adversaries
    liar = adversary.index

    def equivocate() -> None:
        adversary.active = [Attack.EQUIVOCATE]
        adversary._favoured = [(liar + 1) % 4]

    monkeypatch.setattr(adversary, "choose", equivocate)
    return simulation, liar


@pytest.mark.parametrize("seed", [3, 5])
def test_an_equivocator_is_punished_and_leaves_without_a_client(
    monkeypatch: pytest.MonkeyPatch, seed: int
):
    config = replace(LIES, epochs=True, virtual_ms_min=25_000)
    simulation, liar = with_an_equivocator(monkeypatch, seed, config)
    result = simulation.run()
    assert result.verdict == Verdict.PASS, result.reason
    reports = [
        (body.sender, body.action)
        for index in simulation.checks.honest[:1]
        for record in simulation._rooms.records(index, 1)
        for body in map(BODY_CODEC.decode, record.bodies)
        if isinstance(body.action, ReportEquivocation)
    ]
    members = simulation.genesis.members
    # Once a turn at most, by the honest, and only until it is done.
    assert 1 <= len(reports) <= 2
    for sender, action in reports:
        assert sender in {members[index].reward for index in simulation.checks.honest}
        assert action.public_key == members[liar].public_key
    for index in simulation.checks.honest:
        committee = simulation.committee_of(index)
        assert committee.epoch >= 1
        assert members[liar].public_key not in {m.public_key for m in committee.members}


@pytest.mark.parametrize("seed", [3, 5])
def test_an_equivocator_is_punished_though_its_epoch_is_over(
    monkeypatch: pytest.MonkeyPatch, seed: int
):
    """Nobody reports in the epoch itself; the others do, also who has restarted since."""
    config = replace(LIES, approves=True, virtual_ms_min=25_000)
    simulation, liar = with_an_equivocator(monkeypatch, seed, config)
    monkeypatch.setattr(Reporter, "_present", lambda self: [])
    for index in simulation.checks.honest:
        host = simulation.hosts[index]
        simulation.scheduler.at(5_000 + 300 * index, host.crash, 200)
    result = simulation.run()
    assert result.verdict == Verdict.PASS, result.reason
    reports = [
        (record.header.epoch, body.action)
        for record in simulation._rooms.records(simulation.checks.honest[0], 1)
        for body in map(BODY_CODEC.decode, record.bodies)
        if isinstance(body.action, ReportEquivocation)
    ]
    members = simulation.genesis.members
    assert reports
    for epoch, action in reports:
        assert epoch > action.equivocation.epoch
        assert action.public_key == members[liar].public_key
    for index in simulation.checks.honest:
        committee = simulation.committee_of(index)
        assert members[liar].public_key not in {m.public_key for m in committee.members}
