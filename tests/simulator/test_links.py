"""Messages between endpoints, with and without faults."""

from collections import Counter
from random import Random

import pytest

from qnet_actors.simulator.faults import Fault
from qnet_actors.simulator.links import Links
from qnet_actors.simulator.scheduler import Scheduler
from qnet_actors.simulator.trace import Trace
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.messages import BatchAcks, Keys, PeerStatus
from tests.simulator.toys import Ear


class World:
    def __init__(self, ends: int = 3, seed: int = 1) -> None:
        self.scheduler = Scheduler()
        self.fired: Counter[Fault] = Counter()
        self.links = Links(self.scheduler, Random(seed), Trace(self.scheduler), self.fired, (1, 20))
        self.ears = [Ear(self.scheduler) for _ in range(ends)]
        self.links.attach(list(self.ears))

    def up(self) -> None:
        for index in range(len(self.ears)):
            self.links.connect(index)
        self.scheduler.run_until(self.scheduler.now_ms + 100)

    def numbers(self, end: int) -> list[int]:
        """The numbered messages that an end heard, in order."""
        return [message.round for _, _, message in self.ears[end].heard]  # type: ignore[union-attr]

    def send(self, number: int) -> None:
        self.links.send(0, PeerStatus(0, number, 0, 0, 0, 0), (1,))


def test_both_ends_are_told_once_when_a_link_stands():
    world = World()
    world.up()
    assert [sorted(peer for _, peer in ear.ups) for ear in world.ears] == [[1, 2], [0, 2], [0, 1]]


def test_a_link_keeps_order_and_delays_everything():
    world = World()
    world.up()
    for number in range(200):
        world.send(number)
    world.scheduler.run_until(1_000)
    assert world.numbers(1) == list(range(200))
    assert all(time_ms > 100 for time_ms, _, _ in world.ears[1].heard)
    assert world.ears[2].heard == []


def test_to_all_reaches_all_others():
    world = World()
    world.up()
    world.links.send(0, Keys(()), None)
    world.scheduler.run_until(1_000)
    assert [len(ear.heard) for ear in world.ears] == [0, 1, 1]


@pytest.mark.parametrize("fault", [Fault.LOSS, Fault.DUPLICATE, Fault.REORDER, Fault.DELAY])
def test_each_fault_does_what_it_says_and_counts(fault: Fault):
    world = World()
    world.up()
    world.links.worsen(fault, 0.2)
    for number in range(200):
        world.send(number)
    world.scheduler.run_until(2_000)
    heard = world.numbers(1)
    count = world.fired[fault]
    assert 10 < count < 90
    expected = {Fault.LOSS: 200 - count, Fault.DUPLICATE: 200 + count}
    assert len(heard) == expected.get(fault, 200)
    if fault in (Fault.REORDER, Fault.DUPLICATE):
        assert heard != sorted(heard)
    else:
        assert heard == sorted(heard)


def test_a_cut_loses_what_is_under_way_and_healing_tells_both_ends():
    world = World()
    world.up()
    world.send(1)
    world.links.cut(0, 1)
    world.send(2)
    world.links.cut(0, 1)
    world.links.heal(0, 1)
    world.scheduler.run_until(500)
    assert world.numbers(1) == []
    assert not world.links.stands(0, 1)
    world.links.heal(0, 1)
    world.scheduler.run_until(1_000)
    assert world.links.stands(0, 1)
    assert [peer for _, peer in world.ears[1].ups].count(0) == 2
    world.send(3)
    world.scheduler.run_until(1_100)
    assert world.numbers(1) == [3]


def test_what_the_dead_had_sent_arrives_and_what_was_sent_to_them_does_not():
    world = World()
    world.up()
    world.send(1)
    world.links.send(1, PeerStatus(0, 2, 0, 0, 0, 0), (0,))
    world.ears[0].alive = False
    world.links.disconnect(0)
    world.ears[0].alive = True
    world.links.connect(0)
    world.scheduler.run_until(1_000)
    assert world.numbers(1) == [1]
    assert world.ears[0].heard == []


def test_a_message_that_the_codec_refuses_is_an_error_of_the_sender():
    world = World()
    world.up()
    with pytest.raises(QnetError):
        world.links.send(0, BatchAcks(()), (1,))


def test_a_fault_that_is_on_hits_the_first_message_however_rare_it_is():
    world = World()
    world.up()
    world.links.worsen(Fault.LOSS, 0.0)
    for number in range(5):
        world.send(number)
    world.scheduler.run_until(1_000)
    assert world.numbers(1) == [1, 2, 3, 4]
    assert world.fired[Fault.LOSS] == 1
