"""Jobs in order, results on the loop, many by one wake."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

from qnet_actors.network.worker import NICENESS_MAX, Completions, Done, Worker


def here(*what: Any) -> tuple[Any, ...]:
    """What it is given, and the thread that it is called on."""
    return (*what, threading.get_ident())


def nothing(result: Any, now_ms: int) -> Sequence[Any]:
    return ()


class Collector:
    """Gathers completions until so many are there."""

    def __init__(self, wanted: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.groups: list[list[Done]] = []
        self.threads: set[int] = set()
        self.enough = asyncio.Event()
        self.completions = Completions(self.loop, self.take)
        self.wanted = wanted

    def take(self, done: Sequence[Done]) -> None:
        self.groups.append(list(done))
        self.threads.add(threading.get_ident())
        if sum(map(len, self.groups)) >= self.wanted:
            self.enough.set()

    @property
    def results(self) -> list[Any]:
        return [one.result for group in self.groups for one in group]


async def test_jobs_are_done_in_order_off_the_loop_and_come_back_on_it():
    collector = Collector(100)
    worker = Worker("test", collector.completions)
    for number in range(100):
        worker.put(partial(here, number), nothing)
    await collector.enough.wait()
    worker.close()
    assert [number for number, _ in collector.results] == list(range(100))
    assert collector.threads == {threading.get_ident()}
    assert threading.get_ident() not in {thread for _, thread in collector.results}


async def test_what_is_done_while_the_loop_is_busy_comes_by_one_wake():
    collector = Collector(10)
    worker = Worker("test", collector.completions)
    for number in range(10):
        worker.put(partial(here, number), nothing)
    worker.close()  # the loop does not run meanwhile
    await collector.enough.wait()
    assert [len(group) for group in collector.groups] == [10]


async def test_a_job_that_raises_is_handed_over_and_the_next_one_is_done():
    collector = Collector(2)
    worker = Worker("test", collector.completions)
    worker.put(lambda: 1 // 0, nothing)
    worker.put(lambda: 5, nothing)
    await collector.enough.wait()
    worker.close()
    first, second = (one for group in collector.groups for one in group)
    assert isinstance(first.error, ZeroDivisionError)
    assert (second.result, second.error) == (5, None)


async def test_many_threads_lose_nothing():
    collector = Collector(4 * 500)
    workers = [Worker(f"test-{index}", collector.completions) for index in range(4)]
    for number in range(500):
        for index, worker in enumerate(workers):
            worker.put(partial(here, index, number), nothing)
    await collector.enough.wait()
    for worker in workers:
        worker.close()
    for index in range(4):
        assert [n for own, n, _ in collector.results if own == index] == list(range(500))


async def test_a_lower_priority_is_the_thread_s_alone():
    collector = Collector(1)
    worker = Worker("test", collector.completions, niceness=7)
    worker.put(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), nothing)
    await collector.enough.wait()
    worker.close()
    assert collector.results == [min(os.getpriority(os.PRIO_PROCESS, 0) + 7, NICENESS_MAX)]
