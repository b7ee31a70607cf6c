from __future__ import annotations

import asyncio

import pytest

from qnet_actors.gateway.backend import BackendFrames, FramedBackend
from qnet_actors.gateway.events import (
    EVENT_CODEC,
    POLL_EVENTS_MAX,
    Event,
    EventLog,
    MissedEvents,
    StatusEvent,
    block_event,
)
from qnet_actors.gateway.queries import (
    AccountQuery,
    BlockQuery,
    BlocksQuery,
    CheckpointQuery,
    EvidenceQuery,
    StatusQuery,
    TransactionQuery,
    ValidatorsQuery,
)
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from tests.gateway.fakes import make_backends
from tests.gateway.ledger import Wallet, id_of


def status(number: int) -> StatusEvent:
    return StatusEvent("batched", number.to_bytes(32, "big"))


def decoded(events: list[bytes]) -> list[Event]:
    return [EVENT_CODEC.decode(event) for event in events]


def test_a_log_is_read_from_a_cursor():
    log = EventLog(first=100)
    assert log.read(0) == (100, [])
    log.append(status(1))
    log.append(status(2))
    cursor, events = log.read(100)
    assert cursor == log.cursor == 102
    assert decoded(events) == [status(1), status(2)]
    assert log.read(101) == (102, [encode(status(2))])
    assert log.read(102) == (102, [])


def test_a_reader_too_far_behind_is_told_and_gets_what_is_left():
    size = len(encode(status(1)))
    log = EventLog(first=1, size_bytes_max=3 * size)
    for number in range(5):
        log.append(status(number))
    cursor, events = log.read(1)
    assert decoded(events) == [MissedEvents(), status(2), status(3), status(4)]
    assert cursor == 6


def test_a_reader_of_a_validator_that_restarted_is_told():
    before, after = EventLog(first=10), EventLog(first=1_000)
    before.append(status(1))
    after.append(status(2))
    cursor, _ = before.read(10)
    assert decoded(after.read(cursor)[1])[0] == MissedEvents()
    assert decoded(EventLog(first=5).read(cursor)[1]) == [MissedEvents()]


def test_an_answer_is_bounded_and_the_next_goes_on():
    log = EventLog()
    for number in range(POLL_EVENTS_MAX + 5):
        log.append(status(number))
    cursor, events = log.read(1)
    assert len(events) == POLL_EVENTS_MAX
    assert len(log.read(cursor)[1]) == 5


async def test_a_poll_waits_for_the_first_event_and_no_longer_than_it_should():
    log = EventLog()
    assert await log.poll(log.cursor, 0) == (1, [])
    polling = asyncio.create_task(log.poll(1, 60_000))
    await asyncio.sleep(0)
    log.append(status(1))
    assert await polling == (2, [encode(status(1))])
    assert await log.poll(0, 60_000) == (2, [])


def test_an_event_larger_than_the_log_does_not_stop_it():
    log = EventLog(size_bytes_max=10)
    log.append(status(1))
    assert log.read(1)[1] == [encode(MissedEvents())]


def test_a_block_event_has_the_columns_of_the_receipts():
    (backend,) = make_backends()
    ledger = backend.ledger
    alice = Wallet(0)
    data = [alice.transfer(0), alice.transfer(1, amount=5)]
    bodies = [backend.pool[id_] for id_ in (backend._admit(item)[1] for item in data)]
    event = block_event(*ledger.execute(bodies))
    assert event.ids == b"".join(id_of(item) for item in data)
    assert event.statuses == bytes(4)
    assert event.gas_used == 2 * (1_000).to_bytes(8, "little")
    assert EVENT_CODEC.decode(encode(event)) == event


async def test_frames_carry_every_query_submission_and_refusal():
    (backend,) = make_backends()
    frames = BackendFrames(backend)
    remote = FramedBackend(0, frames.answer)
    alice = Wallet(0)
    data = alice.transfer(0)
    assert await remote.submit([data, b"\x00"]) == [
        (0, id_of(data), ""),
        (int(Code.MALFORMED), b"", "Expected `array`, got `int`"),
    ]
    backend.execute()
    backend.certify()
    for query in (
        StatusQuery(),
        ValidatorsQuery(),
        AccountQuery(alice.address),
        TransactionQuery(id_of(data)),
        BlockQuery(None, 0, 10),
        BlockQuery(1),
        BlockQuery(backend.ledger.records[0][1]),
        BlocksQuery(None, 5),
        CheckpointQuery(),
        EvidenceQuery(),
    ):
        assert await remote.query(query) == await backend.query(query)
    with pytest.raises(QnetError) as refused:
        await remote.query(TransactionQuery(bytes(32)))
    assert refused.value.code == Code.NOT_FOUND
    assert await remote.poll(1, 0) == await backend.poll(1, 0)
    backend.fault = QnetError(Code.BUSY, "full")
    for call in (remote.submit([data]), remote.poll(1, 0)):
        with pytest.raises(QnetError, match="busy: full"):
            await call


async def test_frames_that_are_not_frames_are_refused_and_unknown_codes_are_internal():
    frames = BackendFrames(make_backends()[0])

    async def answer(*_: object) -> bytes:
        return b"\x93\x00\xcd\x27\x0f\xa1x"

    assert b"malformed" not in await frames.query(b"\x00")
    remote = FramedBackend(0, answer)
    for call in (remote.submit([b"x"]), remote.poll(0, 0)):
        with pytest.raises(QnetError) as refused:
            await call
        assert refused.value.code == Code.INTERNAL
    broken = FramedBackend(0, lambda call, _: frames.answer(call, b"\x00"))
    with pytest.raises(QnetError) as refused:
        await broken.query(StatusQuery())
    assert refused.value.code == Code.MALFORMED
    assert b"no call has the number 9" in await frames.answer(9, b"")
