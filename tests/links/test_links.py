"""Links between honest validators."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
import uvloop

from qnet_actors.crypto import Signer, development_key, provider
from qnet_actors.links import LinkSettings, PeerKey, Reason, Roster, TcpTransport
from qnet_actors.links.handshake import prove_dialler
from qnet_actors.links.stream import Ended
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import FRAME_SIZE_BYTES_MAX
from qnet_actors.wire.messages import Batches, DagBlocks
from qnet_actors.wire.schemes import Scheme
from tests.links.peers import (
    HOST,
    PEER_KEYS,
    Validator,
    big,
    ended,
    identity,
    network,
    proved,
    read_payload,
    roster,
    signer,
    status,
    stranger,
    write_frame,
    write_message,
)


async def test_messages_arrive_in_order_both_ways():
    a, b = Validator(0), Validator(1)
    async with network(a, b):
        for number in range(200):
            assert a.links.send(1, status(number))
            assert b.links.send(0, status(1_000 + number))
        assert await b.received(200) == [status(n) for n in range(200)]
        assert await a.received(200) == [status(1_000 + n) for n in range(200)]
        assert a.links.up == (1,)
        assert b.links.up == (0,)


async def test_a_broadcast_reaches_every_peer():
    validators = [Validator(index) for index in range(4)]
    async with network(*validators):
        for validator in validators:
            assert validator.links.up == tuple(i for i in range(4) if i != validator.index)
            assert validator.links.broadcast(status(validator.index)) == 3
        for validator in validators:
            got = [await validator.inbox.get() for _ in range(3)]
            assert sorted(peer for peer, _ in got) == list(validator.links.up)
            assert all(message == status(peer) for peer, message in got)


async def test_only_the_lower_index_dials():
    validators = [Validator(index) for index in range(3)]
    async with network(*validators):
        dials = {
            (validator.index, peer): counters.dials
            for validator in validators
            for peer, counters in validator.links.counters.items()
            if counters.dials
        }
        assert dials == {(0, 1): 1, (0, 2): 1, (1, 2): 1}


async def knock(validator: Validator, index: int) -> None:
    """A handshake with the key of `index`, in the eyes of whoever holds it."""
    keys = Roster(PEER_KEYS[index], PEER_KEYS)
    async with stranger(validator.address) as stream:
        with identity(index, roster=keys) as own:
            await prove_dialler(stream, own, validator.index)


async def test_a_newcomer_is_let_in_once_it_is_known_and_dials_everybody():
    a, b = Validator(0), Validator(1)
    newcomer = Validator(4, roster=Roster(PEER_KEYS[4], PEER_KEYS[:4]), signer=signer(4))
    async with network(a, b), network(newcomer, connect=False):
        with pytest.raises(Ended):
            await knock(a, 4)
        assert a.links.strangers.ends == {Reason.WRONG_PEER: 1}
        for validator in (a, b):
            assert validator.links.set_keys([*PEER_KEYS[:4], PEER_KEYS[4]]) == (4,)
        newcomer.links.set_peers({0: a.address, 1: b.address})
        for validator in (a, b):
            assert await validator.ups.get() == 4
        assert {await newcomer.ups.get(), await newcomer.ups.get()} == {0, 1}
        # Dialled from the other end too, a link that stands is left as it is.
        a.links.set_peers({1: b.address, 4: newcomer.address})
        assert a.links.send(4, status(5))
        assert await newcomer.received(1) == [status(5)]
        assert a.links.counters[4].dials == 0
        assert a.links.counters[4].ups == 1


async def test_who_is_known_no_more_is_let_go_and_not_let_in_again():
    a, b = Validator(0), Validator(1, settings=LinkSettings(backoff_ms=1, backoff_ms_max=1))
    async with network(a, b):
        assert b.links.set_keys(PEER_KEYS[1:4]) == ()
        with pytest.raises(Ended):
            await knock(b, 0)
        assert b.links.strangers.ends[Reason.WRONG_PEER] >= 1
        assert b.links.up == ()
        assert not b.links.send(0, status(1))
        assert set(b.links.counters) == {2, 3}


async def test_megabytes_pass_whole():
    a, b = Validator(0), Validator(1)
    messages: list[Any] = [big(5 * 1024 * 1024), big(3), big(12 * 1024 * 1024), status(4)]
    async with network(a, b):
        for message in messages:
            assert a.links.send(1, message)
        assert await b.received(4) == messages
        assert a.links.counters[1].bytes_out == b.links.counters[0].bytes_in
        assert a.links.counters[1].frames_out == b.links.counters[0].frames_in == 4


async def test_what_is_over_the_limit_of_a_frame_is_refused_and_counted(caplog):
    a, b = Validator(0), Validator(1)
    async with network(a, b):
        # Two blobs, since one of such a size would be refused by nothing else.
        huge = Batches((bytes(FRAME_SIZE_BYTES_MAX // 2),) * 2)
        assert not a.links.send(1, huge)
        assert a.links.broadcast(huge) == 0
        assert a.links.counters[1].refused_frames == 2
        assert a.links.send(1, status(1))
        assert await b.received(1) == [status(1)]
    assert "over the limit of a frame" in caplog.text


async def test_nothing_is_queued_for_a_peer_without_a_link():
    a = Validator(0)
    async with network(a):
        assert not a.links.send(1, status(1))
        assert a.links.broadcast(status(1)) == 0
        assert a.links.counters[1].refused_frames == 2
        assert not a.links.send(0, status(1))


async def test_a_peer_that_restarts_is_found_again_at_its_new_address():
    a, b = Validator(0), Validator(1)
    async with network(a, b):
        await b.links.close()
        again = Validator(1)
        async with network(again, connect=False):
            a.links.set_peers({1: again.address})
            assert await a.ups.get() == 1
            assert await again.ups.get() == 0
            assert a.links.send(1, status(7))
            assert await again.received(1) == [status(7)]
            assert a.links.counters[1].ups == 2
            assert a.links.counters[1].ends[Reason.LOST] == 1


async def test_a_peer_that_cannot_be_reached_is_dialled_until_it_can():
    class Unreachable:
        """A network that is down for the first three dials."""

        def __init__(self) -> None:
            self.failures = 3
            self.listen = TcpTransport().listen

        async def open(self, host, port):
            if self.failures:
                self.failures -= 1
                raise ConnectionRefusedError
            return await TcpTransport().open(host, port)

    a, b = Validator(0, transport=Unreachable()), Validator(1)
    async with network(a, b):
        assert a.links.counters[1].dials == 4
        assert a.links.counters[1].ends == {Reason.UNREACHABLE: 3}


async def test_a_peer_taken_off_the_list_is_let_go():
    a, b = Validator(0), Validator(1)
    async with network(a, b):
        dialler = a.links._diallers[1]
        a.links.set_peers({})
        with pytest.raises(asyncio.CancelledError):
            await dialler
        assert a.links.up == ()
        assert a.links.counters[1].ends == {Reason.CLOSED: 1}
        # It may still come back.
        a.links.set_peers({1: b.address})
        assert await a.ups.get() == 1


async def test_a_newer_connection_replaces_the_older_one():
    b = Validator(1, settings=LinkSettings(backoff_ms=0))
    async with network(b), proved(b.address, 0, 1) as older:
        assert await b.ups.get() == 0
        async with proved(b.address, 0, 1) as newer:
            assert await b.ups.get() == 0
            await ended(older)
            assert b.links.counters[0].ends == {Reason.REPLACED: 1}
            write_message(newer, status(2))
            assert await b.received(1) == [status(2)]
            b.links.send(0, status(3))
            assert await read_payload(newer) == encode(status(3))
            assert b.links.up == (0,)


async def test_a_peer_that_comes_back_too_soon_is_turned_away():
    b = Validator(1, settings=LinkSettings(backoff_ms=600_000, backoff_ms_max=600_000))
    async with network(b), proved(b.address, 0, 1) as first:
        await b.ups.get()
        async with proved(b.address, 0, 1) as second:
            await ended(second)
            assert b.links.counters[0].ends == {Reason.TOO_SOON: 1}
        write_message(first, status(1))
        assert await b.received(1) == [status(1)]


async def test_a_slow_consumer_holds_its_peer_back_and_the_queue_drops_the_oldest():
    release = asyncio.Event()
    taken: asyncio.Queue = asyncio.Queue()

    async def consume(peer, message):
        await taken.put(message)
        await release.wait()

    size = 1024 * 1024
    settings = LinkSettings(queue_frames_max=8, read_ahead_bytes=64 * 1024)
    a, b = Validator(0, settings=settings), Validator(1, consume, settings=settings)
    async with network(a, b):
        messages = [DagBlocks((number.to_bytes(8, "big"), bytes(size))) for number in range(64)]
        assert a.links.send(1, messages[0])
        assert await taken.get() == messages[0]
        # The consumer has not let go of the first; the buffers of the system take a few more.
        for message in messages[1:]:
            assert a.links.send(1, message)
            await asyncio.sleep(0)
        counters = a.links.counters[1]
        assert counters.dropped_frames > 0
        assert b.links.counters[0].frames_in == 1
        release.set()
        got: list[Any] = []
        while not got or got[-1] != messages[-1]:
            got.append(await taken.get())
        assert len(got) == 63 - counters.dropped_frames
        order = [messages.index(message) for message in got]
        assert order == sorted(order)
        assert order[-8:] == list(range(56, 64))


async def test_an_exception_of_the_consumer_is_a_fault_and_is_told():
    def consume(peer, message):
        raise ZeroDivisionError

    told: asyncio.Queue = asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.put_nowait(context))
    b = Validator(1, consume)
    async with network(b), proved(b.address, 0, 1) as stream:
        write_message(stream, status(1))
        await ended(stream)
        assert isinstance((await told.get())["exception"], ZeroDivisionError)
        assert b.links.counters[0].ends == {Reason.FAULT: 1}
        assert b.links.up == ()


async def test_a_fault_of_the_signer_is_told_and_the_dialler_goes_on():
    class Broken:
        def sign(self, message, context):
            raise ZeroDivisionError

    told: asyncio.Queue = asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.put_nowait(context))
    a, b = Validator(0, signer=Broken()), Validator(1)
    async with network(a, b, connect=False):
        a.links.set_peers({1: b.address})
        for _ in range(2):
            assert isinstance((await told.get())["exception"], ZeroDivisionError)
        assert a.links.counters[1].ends[Reason.FAULT] >= 1


async def test_a_link_without_traffic_is_kept_alive():
    settings = LinkSettings(keepalive_ms=10)
    b = Validator(1, settings=settings)
    async with network(b), proved(b.address, 0, 1) as stream:
        for _ in range(3):
            assert await stream.read_frame(0) == b""


async def test_close_ends_everything():
    a, b = Validator(0), Validator(1)
    async with network(a, b), stranger(b.address) as idle:
        before = asyncio.all_tasks()
        await b.links.close()
        await ended(idle)
        assert not any(task.get_name() == "accept" for task in asyncio.all_tasks())
        assert b.links.up == ()
        await a.links.close()
        left = {task.get_name() for task in asyncio.all_tasks() - before}
        assert not any(name.startswith(("link", "dial", "accept")) for name in left)
        with pytest.raises(ConnectionError):
            async with stranger(b.address):
                pass


async def test_a_taken_port_has_a_stable_code():
    a, b = Validator(0), Validator(1)
    async with network(a, b):
        other = Validator(2)
        with pytest.raises(QnetError) as caught:
            await other.links.start(*a.address)
        assert caught.value.code is Code.PORT_IN_USE
        await other.links.close()


async def test_links_prove_themselves_with_ml_dsa_65():
    real = provider()
    keys = [development_key("validator", index, Scheme.ML_DSA_65, real) for index in range(2)]
    peers = [PeerKey(Scheme.ML_DSA_65, key.public_key) for key in keys]
    a, b = (
        Validator(i, roster=roster(i, peers), signer=Signer(keys[i], real), provider=real)
        for i in range(2)
    )
    async with network(a, b):
        assert a.links.send(1, status(9))
        assert await b.received(1) == [status(9)]


async def test_links_are_started_once():
    a = Validator(0)
    async with network(a):
        with pytest.raises(RuntimeError):
            await a.links.start(HOST)


def test_links_work_on_uvloop():
    async def exchange() -> None:
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        a, b = Validator(0), Validator(1)
        async with network(a, b):
            messages: list[Any] = [big(4 * 1024 * 1024), status(1)]
            for message in messages:
                assert a.links.send(1, message)
            assert await b.received(2) == messages
            async with proved(b.address, 0, 1) as stream:
                await b.ups.get()
                write_frame(stream, b"garbage")
                await ended(stream)
            assert b.links.counters[0].ends[Reason.BAD_MESSAGE] == 1

    uvloop.run(exchange())


def test_ray_is_not_imported():
    code = "import sys; from qnet_actors.links import Links; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
