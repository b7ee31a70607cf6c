"""What a peer may cost, and that it is made to wait for more, and nobody else is."""

from __future__ import annotations

import pytest

from qnet_actors.network.budget import (
    BLOCK_SECONDS,
    BURST_SECONDS,
    SHARE_MAX,
    WAIT_SECONDS_MAX,
    PeerBudgets,
)
from qnet_actors.wire.messages import BatchRequest, DagBlocks, Message

ASK = BatchRequest((bytes(32),))
BURST = SHARE_MAX * BURST_SECONDS


class Time:
    """Both clocks: what passes, and what is spent."""

    def __init__(self) -> None:
        self.now = 100.0
        self.spent = 3.0

    def budgets(self, peers: int = 3) -> PeerBudgets:
        return PeerBudgets(peers, lambda: self.now, lambda: self.spent)

    def charge(
        self, budgets: PeerBudgets, seconds: float, peer: int = 1, message: Message = ASK
    ) -> float:
        def handle() -> None:
            self.spent += seconds

        return budgets.charge(peer, message, handle)


def test_a_peer_within_its_budget_never_waits() -> None:
    time = Time()
    budgets = time.budgets()
    for _ in range(1_000):
        assert time.charge(budgets, 0.004) == 0.0
        time.now += 0.01
    assert budgets.pauses == 0


def test_a_peer_over_its_budget_waits_until_it_is_within_it() -> None:
    time = Time()
    budgets = time.budgets()
    assert time.charge(budgets, BURST) == 0.0
    wait = time.charge(budgets, 0.1)
    assert wait == pytest.approx(0.1 / SHARE_MAX)
    assert time.charge(budgets, 0.01, peer=2) == 0.0
    time.now += wait
    assert time.charge(budgets, 0.0) == pytest.approx(0.0, abs=1e-9)
    assert time.charge(budgets, 0.05) == pytest.approx(0.05 / SHARE_MAX)
    assert budgets.pauses >= 2


def test_the_share_follows_how_many_may_link_and_a_debt_stays() -> None:
    time = Time()
    budgets = time.budgets()
    assert time.charge(budgets, BURST) == 0.0
    assert time.charge(budgets, 0.1) > 0.0
    time.charge(budgets, 0.0, peer=2)
    budgets.resize(40)
    assert set(budgets._levels) == {1}
    assert time.charge(budgets, 0.0) == pytest.approx(0.1 / (2.0 / 40))
    assert time.charge(budgets, 0.06, peer=3) == pytest.approx(0.01 / (2.0 / 40))
    assert budgets.pauses == 3


def test_quiet_time_gives_a_burst_and_no_more() -> None:
    time = Time()
    budgets = time.budgets()
    time.charge(budgets, BURST)
    time.now += 1_000.0
    assert time.charge(budgets, BURST) == 0.0
    assert time.charge(budgets, 0.01) > 0.0


def test_a_wait_is_bounded_and_its_debt_with_it() -> None:
    time = Time()
    budgets = time.budgets()
    assert time.charge(budgets, 10_000.0) == pytest.approx(WAIT_SECONDS_MAX)
    time.now += WAIT_SECONDS_MAX + 0.1
    assert time.charge(budgets, 0.0) == 0.0


def test_dag_blocks_cost_their_signatures_too() -> None:
    time = Time()
    budgets = time.budgets()
    blocks = DagBlocks((b"junk",) * 100)
    messages = int(BURST / (100 * BLOCK_SECONDS))
    for _ in range(messages - 1):
        assert time.charge(budgets, 0.0, message=blocks) == 0.0
    time.charge(budgets, 0.0, message=blocks)
    assert time.charge(budgets, 0.0, message=blocks) > 0.0


def test_in_a_large_committee_all_peers_together_take_two_cores() -> None:
    time = Time()
    budgets = time.budgets(100)
    waits = [time.charge(budgets, 1.0, peer) for peer in range(100)]
    assert all(wait == pytest.approx(WAIT_SECONDS_MAX) for wait in waits)
    small = time.budgets(100)
    assert time.charge(small, 2.0 / 100 * BURST_SECONDS) == 0.0
    assert time.charge(small, 0.001) == pytest.approx(0.001 * 50)


async def test_a_pause_is_there_only_where_it_is_owed() -> None:
    budgets = Time().budgets()
    assert budgets.pause(0.0) is None
    pause = budgets.pause(1e-6)
    assert pause is not None
    await pause
