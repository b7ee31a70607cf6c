"""The order of effects: FIFO, held behind writes, with `Run` exempt and waiting writes gathered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.network.effects import EffectQueue
from qnet_actors.rooms import Effect, Halt, Persist, Room, Run, ToRoom


def send(name: object) -> ToRoom:
    return ToRoom(Room.GATEWAY, name)


def run() -> Run:
    return Run(lambda: None, lambda result, now_ms: [])


def test_effects_without_a_write_pass_at_once_in_order():
    queue = EffectQueue()
    job = run()
    assert queue.add([send(1), job, send(2)]) == [send(1), job, send(2)]
    assert queue.add([Halt("why")]) == [Halt("why")]


def test_a_write_holds_back_what_follows_it_in_later_returns_too():
    queue = EffectQueue()
    assert queue.add([send(1), Persist(("a",)), send(2)]) == [send(1), Persist(("a",))]
    assert queue.add([send(3)]) == []
    assert queue.persisted() == [send(2), send(3)]
    assert not queue.writing


def test_a_job_starts_at_once_behind_a_write():
    queue = EffectQueue()
    queue.add([Persist(("a",))])
    job = run()
    assert queue.add([send(1), job]) == [job]


def test_waiting_writes_become_one_and_release_all_that_stood_between():
    queue = EffectQueue()
    first = queue.add([Persist(("a",)), send(1), Persist(("b",)), send(2)])
    assert first == [Persist(("a", "b"))]
    assert queue.add([send(3), Persist(("c",)), send(4), Persist(("d",))]) == []
    assert queue.persisted() == [send(1), send(2), send(3), Persist(("c", "d"))]
    assert queue.persisted() == [send(4)]


def test_a_write_reported_twice_is_refused():
    queue = EffectQueue()
    queue.add([Persist(())])
    queue.persisted()
    with pytest.raises(RuntimeError):
        queue.persisted()


@given(st.lists(st.sampled_from(["send", "persist", "run", "done"]), max_size=60))
def test_any_interleaving_keeps_order_and_never_sends_ahead_of_its_write(steps: list[str]):
    queue, durable, names = EffectQueue(), -1, []
    written: list[int] = []
    carried: list[int] = []

    def carry(effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                written.extend(effect.writes)
            elif isinstance(effect, ToRoom):
                # Every write that was returned before this send is durable by now.
                assert all(write <= durable for write in writes if write < effect.event)
                carried.append(effect.event)

    writes: list[int] = []
    for number, step in enumerate(steps):
        if step == "send":
            names.append(number)
            carry(queue.add([send(number)]))
        elif step == "persist":
            writes.append(number)
            carry(queue.add([Persist((number,))]))
        elif step == "run":
            assert len(queue.add([run()])) == 1
        elif queue.writing:
            durable = written[-1]
            carry(queue.persisted())
    while queue.writing:
        durable = written[-1]
        carry(queue.persisted())
    assert carried == names
    assert written == writes
    assert queue.waiting == 0
