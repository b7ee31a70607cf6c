"""Batches that are missing are asked for until they come, from one peer after the other."""

from __future__ import annotations

from qnet_actors.mempool.fetching import Fetching
from qnet_actors.rooms import Effect, ToPeers
from qnet_actors.wire.messages import BatchRequest
from tests.mempool.world import digest_of, settings

NONE: frozenset[bytes] = frozenset()


def fetching(**fields) -> tuple[Fetching, set[bytes]]:
    wanted: set[bytes] = set()
    made = Fetching(validators=4, own_index=0, wanted=wanted, settings=settings(**fields))
    return made, wanted


def asked(effects: list[Effect]) -> list[tuple[int, list[bytes]]]:
    found = []
    for effect in effects:
        assert isinstance(effect, ToPeers)
        assert isinstance(effect.message, BatchRequest)
        assert effect.peers is not None
        (peer,) = effect.peers
        found.append((peer, list(effect.message.digests)))
    return found


def test_the_sender_first_then_the_author_then_the_others() -> None:
    made, wanted = fetching()
    digest = digest_of(1)
    order = asked(made.start([digest], (2, 3), NONE, 0))
    for _ in range(4):
        wake = made.wake_ms()
        assert wake is not None
        assert made.tick(wake - 1) == []
        order += asked(made.tick(wake))
    assert order == [(peer, [digest]) for peer in (2, 3, 1, 2, 3)]
    assert wanted == {digest}


def test_the_wait_doubles_with_every_turn_up_to_a_bound() -> None:
    made, _ = fetching(fetch_ms_min=100, fetch_ms_max=350)
    made.start([digest_of(1)], (1,), NONE, 0)
    times = []
    for _ in range(13):
        wake = made.wake_ms()
        assert wake is not None
        made.tick(wake)
        times.append(wake)
    steps = [b - a for a, b in zip([0, *times], times, strict=False)]
    # A turn of three peers: the wait that follows the last of it is the longer one already.
    assert steps == [100, 100, 100, 200, 200, 200, 350, 350, 350, 350, 350, 350, 350]


def test_asked_once_and_forgotten_when_obtained() -> None:
    made, wanted = fetching()
    digests = [digest_of(n) for n in range(3)]
    assert asked(made.start(digests, (1,), NONE, 0)) == [(1, digests)]
    assert made.start(digests, (2,), NONE, 0) == []
    assert made.obtained(digests[0])
    assert not made.obtained(digests[0])
    assert wanted == set(digests[1:])
    assert len(made) == 2


def test_a_peer_that_is_no_peer_is_not_asked() -> None:
    made, _ = fetching()
    ((peer, _),) = asked(made.start([digest_of(1)], (0, 9), NONE, 0))
    assert peer in (1, 2, 3)


def test_the_load_is_spread_where_nobody_is_named() -> None:
    made, _ = fetching()
    digests = [bytes([n]) + bytes(31) for n in range(6)]
    assert dict(asked(made.start(digests, (), NONE, 0))) == {
        1: [digests[0], digests[3]],
        2: [digests[1], digests[4]],
        3: [digests[2], digests[5]],
    }


def test_requests_hold_no_more_than_an_answer_may() -> None:
    made, _ = fetching()
    digests = [digest_of(n) for n in range(130)]
    assert [len(part) for _, part in asked(made.start(digests, (1,), NONE, 0))] == [64, 64, 2]


def test_what_is_coming_is_asked_for_only_after_a_while() -> None:
    made, wanted = fetching()
    assert made.start([digest_of(1)], (1,), {digest_of(1)}, 0) == []
    assert wanted == {digest_of(1)}
    assert made.tick(4_999) == []
    assert asked(made.tick(5_000)) == [(1, [digest_of(1)])]


def test_what_failed_is_asked_of_the_next_peer_soon() -> None:
    made, _ = fetching()
    made.start([digest_of(1)], (1,), {digest_of(1)}, 0)
    made.failed(digest_of(1), 100)
    assert asked(made.tick(300)) == [(1, [digest_of(1)])]
    made.failed(digest_of(2), 100)


def test_a_peer_that_comes_up_is_asked_for_everything() -> None:
    made, _ = fetching()
    digests = [digest_of(n) for n in range(3)]
    made.start(digests, (1,), NONE, 0)
    assert asked(made.peer_up(3, 10)) == [(3, digests)]
    assert made.peer_up(0, 10) == []


def test_the_number_and_the_age_of_fetches_are_bounded() -> None:
    made, wanted = fetching(fetches_max=3, fetch_lifetime_ms=1_000)
    for n in range(5):
        made.start([digest_of(n)], (1,), NONE, n)
    assert wanted == {digest_of(n) for n in (2, 3, 4)}
    made.tick(1_003)
    assert wanted == {digest_of(n) for n in (3, 4)}
    made.tick(3_000)
    assert (len(made), wanted) == (0, set())


def test_alone_there_is_nobody_to_ask() -> None:
    made = Fetching(validators=1, own_index=0, wanted=set(), settings=settings())
    assert made.start([digest_of(1)], (), NONE, 0) == []
    assert made.wake_ms() is None
