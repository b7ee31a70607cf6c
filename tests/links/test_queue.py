"""The bounds of a queue, and the pauses of a dialler."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qnet_actors.links.backoff import Backoff
from qnet_actors.links.queue import FrameQueue
from qnet_actors.links.settings import LinkSettings


@given(
    st.lists(st.none() | st.binary(max_size=20), max_size=40),
    st.integers(1, 6),
    st.integers(1, 60),
)
def test_a_queue_keeps_the_newest_within_its_bounds(steps, frames_max, bytes_max):
    queue = FrameQueue(frames_max, bytes_max)
    model: list[bytes] = []
    for step in steps:
        if step is None:
            assert queue.take() == model
            model = []
        else:
            before = len(model) + 1
            model.append(step)
            while len(model) > 1 and (len(model) > frames_max or sum(map(len, model)) > bytes_max):
                model.pop(0)
            assert queue.push(step) == before - len(model)
        assert len(queue) == len(model)
    assert queue.take() == model


def test_pauses_double_up_to_their_bound_and_chance_takes_up_to_half():
    settings = LinkSettings(backoff_ms=100, backoff_ms_max=1_000)
    least, most = Backoff(settings, lambda: 0.0), Backoff(settings, lambda: 1.0)
    assert [least.pause_ms(0) for _ in range(6)] == [50, 100, 200, 400, 500, 500]
    assert [most.pause_ms(0) for _ in range(6)] == [100, 200, 400, 800, 1_000, 1_000]


def test_a_link_that_stood_for_long_or_a_peer_that_moved_starts_over():
    backoff = Backoff(LinkSettings(backoff_ms=100, backoff_ms_max=1_000), lambda: 1.0)
    assert [backoff.pause_ms(0) for _ in range(3)] == [100, 200, 400]
    assert backoff.pause_ms(999) == 800
    assert backoff.pause_ms(1_000) == 100
    assert backoff.pause_ms(0) == 200
    backoff.reset()
    assert backoff.pause_ms(0) == 100
