"""One validator on the virtual clock."""

from collections import Counter
from random import Random

from qnet_actors.rooms import Effect, Halt, Persist, Room, Run, ToPeers, ToRoom
from qnet_actors.simulator.faults import Fault
from qnet_actors.simulator.host import Host
from qnet_actors.simulator.links import Links
from qnet_actors.simulator.scheduler import Scheduler
from qnet_actors.simulator.trace import Trace
from qnet_actors.validators import SnapshotEntry
from qnet_actors.wire.dag import BlockRef
from qnet_actors.wire.hashing import ZERO_DIGEST
from qnet_actors.wire.messages import PeerStatus
from tests.simulator.toys import Disk, Opener, Toy, Watcher

EPOCH_MS = 1_000_000


class World:
    def __init__(self, opener: Opener, hosts: int = 1, seed: int = 1) -> None:
        self.scheduler = Scheduler()
        self.opener = opener
        self.watcher = Watcher()
        rng, trace = Random(seed), Trace(self.scheduler)
        fired: Counter[Fault] = Counter()
        links = Links(self.scheduler, rng, trace, fired, (1, 5))
        self.hosts = [
            Host(i, self.scheduler, rng, trace, links, opener, self.watcher, EPOCH_MS)
            for i in range(hosts)
        ]
        links.attach(list(self.hosts))
        for host in self.hosts:
            host.start()
        self.scheduler.run_until(100)

    def run(self, ms: int) -> None:
        self.scheduler.run_until(self.scheduler.now_ms + ms)


def tell(what: object) -> ToRoom:
    return ToRoom(Room.GATEWAY, what)


def test_messages_go_from_core_to_core():
    status = PeerStatus(0, 7, 0, 0, 0, 0)
    opener = Opener(
        lambda index, disk: Toy(
            answer=lambda event, now_ms: [ToPeers(status)] if event == "go" else []
        )
    )
    world = World(opener, hosts=3)
    world.hosts[0].handle(Room.VALIDATOR, "go")
    world.run(50)
    for index in (1, 2):
        assert [e.message for _, e in opener.toys[index].seen if hasattr(e, "message")] == [status]


def test_jobs_come_back_and_ticks_come_in_time():
    times: list[int] = []

    def tick(now_ms: int) -> list[Effect]:
        if not times or now_ms >= times[-1] + 10:
            times.append(now_ms)
        return []

    def wake() -> int | None:
        return times[-1] + 10 if times else None

    def answer(event: object, now_ms: int) -> list[Effect]:
        if event != "go":
            return []
        return [Run(lambda: "done", lambda result, now_ms: [tell((result, now_ms))])]

    world = World(Opener(lambda index, disk: Toy(answer, tick, wake)))
    world.hosts[0].handle(Room.VALIDATOR, "go")
    world.run(100)
    assert times == list(range(EPOCH_MS, EPOCH_MS + 201, 10))
    ((_, (result, now_ms)),) = world.watcher.told
    assert result == "done"
    assert EPOCH_MS + 100 <= now_ms <= EPOCH_MS + 103


def writer(index: int, disk: Disk) -> Toy:
    return Toy(lambda event, now_ms: [Persist((event,)), tell(("durable", event))])


def test_what_is_told_behind_a_write_is_durable_whenever_it_dies():
    for seed in range(60):
        opener = Opener(writer)
        world = World(opener, seed=seed)
        host = world.hosts[0]
        host.crash_soon(1 + seed % 30, 130)
        for number in range(12):
            host.handle(Room.VALIDATOR, number)
            world.run(1)
        world.run(100)
        disk = opener.disks[0]
        told = [event[1] for _, event in world.watcher.told]
        assert host.alive
        assert set(told) <= set(disk.rows)
        assert disk.rows == sorted(set(disk.rows))
        assert world.watcher.failures == []


def test_a_crash_loses_what_was_not_written_and_a_start_reads_what_was():
    opener = Opener(writer)
    world = World(opener)
    host = world.hosts[0]
    host.timing.extra_write_ms = 50
    host.handle(Room.VALIDATOR, 1)
    world.run(60)
    host.handle(Room.VALIDATOR, 2)
    host.crash(10)
    host.handle(Room.VALIDATOR, 3)
    world.run(100)
    assert world.watcher.told == [(0, ("durable", 1))]
    assert opener.disks[0].rows in ([1], [1, 2])
    assert world.watcher.starts == [0, 0]
    assert host.crashes == 1


def test_a_new_segment_of_a_journal_is_kept_whole_or_not_at_all():
    left = set()
    own = BlockRef(0, 0, ZERO_DIGEST)
    snapshot = SnapshotEntry(1, ZERO_DIGEST, 0, 0, own, 0, 0, (), (), ())
    for seed in range(60):
        opener = Opener(lambda index, disk: Toy(lambda event, now_ms: [Persist(event)]))
        world = World(opener, seed=seed)
        world.hosts[0].timing.extra_write_ms = 50
        world.hosts[0].handle(Room.VALIDATOR, (snapshot, "a", "b"))
        world.hosts[0].crash(10)
        left.add(len(opener.disks[0].rows))
    assert left == {0, 3}


def test_a_halt_and_an_exception_stop_the_node_and_are_reported():
    opener = Opener(lambda index, disk: Toy(lambda event, now_ms: [Halt("because"), tell("no")]))
    world = World(opener)
    world.hosts[0].handle(Room.VALIDATOR, "go")
    assert world.watcher.failures == [(0, "halt", "because")]
    assert not world.hosts[0].alive

    def broken(event: object, now_ms: int) -> list[Effect]:
        return [Run(lambda: 1 // 0, lambda result, now_ms: [])]

    world = World(Opener(lambda index, disk: Toy(broken)))
    world.hosts[0].handle(Room.VALIDATOR, "go")
    ((_, invariant, reason),) = world.watcher.failures
    assert invariant == "exception"
    assert "ZeroDivisionError" in reason
    assert world.watcher.told == []


def test_a_core_that_asks_for_ticks_for_ever_is_found():
    world = World(Opener(lambda index, disk: Toy(wake=lambda: 0)))
    ((_, invariant, reason),) = world.watcher.failures
    assert invariant == "spinning"
    assert "VALIDATOR" in reason


def test_the_clock_of_a_host_may_leap_and_never_goes_back():
    world = World(Opener(writer))
    host = world.hosts[0]
    assert host.now_ms() == EPOCH_MS + 100
    host.skew_ms = 300
    assert host.now_ms() == EPOCH_MS + 400
    host.skew_ms = 0
    assert host.now_ms() == EPOCH_MS + 400
    world.run(350)
    assert host.now_ms() == EPOCH_MS + 450


def test_a_crash_comes_at_its_effect_and_ends_at_its_time_or_is_called_off():
    world = World(Opener(writer))
    host = world.hosts[0]
    host.crash_soon(2, 150)
    host.handle(Room.VALIDATOR, 1)
    assert host.alive
    world.run(10)
    assert not host.alive
    assert world.watcher.told == []
    world.run(39)
    assert not host.alive
    world.run(1)
    assert host.alive
    host.crash_soon(1, 500)
    host.spare()
    host.handle(Room.VALIDATOR, 2)
    assert host.alive


def test_a_crash_that_another_one_forestalled_comes_in_the_next_life():
    world = World(Opener(writer))
    host = world.hosts[0]
    host.crash_soon(1, 130)
    host.crash(10)
    world.run(20)
    assert host.alive
    host.handle(Room.VALIDATOR, 1)
    assert not host.alive
    assert host.crashes == 2


def test_who_dies_while_it_is_away_comes_back_after_the_later_of_both():
    world = World(Opener(writer))
    host = world.hosts[0]
    host.crash(50)
    world.run(20)
    host.crash(200)
    world.run(199)
    assert not host.alive
    world.run(1)
    assert host.alive
    host.crash(200)
    host.crash(50)
    world.run(199)
    assert not host.alive
    world.run(2)
    assert host.alive
    assert host.crashes == 2
    assert world.watcher.starts == [0, 0, 0]
