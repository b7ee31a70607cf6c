"""The virtual clock."""

import pytest

from qnet_actors.simulator import scheduler as module
from qnet_actors.simulator.scheduler import Scheduler, Stuck


def test_calls_come_by_time_and_then_by_order_of_scheduling():
    scheduler, seen = Scheduler(), []
    for name, time_ms in (("b", 5), ("a", 2), ("c", 5), ("late", 11)):
        scheduler.at(time_ms, lambda name: seen.append((scheduler.now_ms, name)), name)
    scheduler.run_until(10)
    assert seen == [(2, "a"), (5, "b"), (5, "c")]
    assert scheduler.now_ms == 10
    scheduler.run_until(11)
    assert seen[-1] == (11, "late")


def test_a_call_scheduled_for_the_past_comes_now():
    scheduler, seen = Scheduler(), []
    scheduler.run_until(10)
    scheduler.at(3, lambda: seen.append(scheduler.now_ms))
    scheduler.after(0, lambda: seen.append(scheduler.now_ms))
    scheduler.run_until(10)
    assert seen == [10, 10]


def test_stop_ends_the_run_where_it_stands():
    scheduler = Scheduler()
    scheduler.at(4, scheduler.stop)
    scheduler.at(5, pytest.fail)
    scheduler.run_until(10)
    assert scheduler.now_ms == 4


def test_work_that_never_leaves_the_present_is_found(monkeypatch):
    monkeypatch.setattr(module, "CALLS_PER_MS_MAX", 100)
    scheduler = Scheduler()

    def again() -> None:
        scheduler.after(0, again)

    scheduler.after(1, again)
    with pytest.raises(Stuck):
        scheduler.run_until(2)
