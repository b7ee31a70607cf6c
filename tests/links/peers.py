"""Validators and strangers for the tests of links, over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from qnet_actors.crypto import BatchVerifier, Signer, simulator_provider
from qnet_actors.links import Links, LinkSettings, PeerKey, Roster, Stream, TcpTransport
from qnet_actors.links.handshake import Identity, prove_dialler
from qnet_actors.links.stream import Ended, Payload
from qnet_actors.wire.codec import encode
from qnet_actors.wire.limits import FRAME_SIZE_BYTES_MAX
from qnet_actors.wire.messages import Batches, Message, PeerStatus
from qnet_actors.wire.schemes import Scheme

HOST = "127.0.0.1"
CHAIN = b"c" * 32
PROVIDER = simulator_provider()
KEYS = [PROVIDER.generate(Scheme.KEYED_HASH, bytes((i,)) * 32) for i in range(5)]
PEER_KEYS = tuple(PeerKey(Scheme.KEYED_HASH, key.public_key) for key in KEYS)
FAST = LinkSettings(backoff_ms=1, backoff_ms_max=4)


def signer(index: int) -> Signer:
    return Signer(KEYS[index], PROVIDER)


def roster(index: int, keys: Sequence[PeerKey] = PEER_KEYS[:4]) -> Roster:
    """That of validator `index`; the fifth key is nobody's."""
    return Roster(keys[index], keys)


def status(number: int) -> PeerStatus:
    return PeerStatus(0, number, 0, 0, 0, 0)


def big(size_bytes: int) -> Batches:
    return Batches((os.urandom(16) * (size_bytes // 16),))


class Validator:
    """Links with what they handed over."""

    def __init__(self, index: int, consume: Any = None, **options: Any) -> None:
        self.inbox: asyncio.Queue[tuple[int, Message]] = asyncio.Queue()
        self.ups: asyncio.Queue[int] = asyncio.Queue()
        self.index = index
        options = {"settings": FAST} | options
        on_message = consume or (lambda peer, message: self.inbox.put_nowait((peer, message)))
        self.links = Links(
            options.pop("roster", None) or roster(index),
            options.pop("chain_id", CHAIN),
            options.pop("signer", None) or signer(index),
            BatchVerifier(options.pop("provider", PROVIDER)),
            on_message,
            self.ups.put_nowait,
            **options,
        )
        self.address = (HOST, 0)

    async def received(self, count: int) -> list[Message]:
        return [(await self.inbox.get())[1] for _ in range(count)]


@asynccontextmanager
async def network(*validators: Validator, connect: bool = True) -> AsyncIterator[None]:
    """Starts the validators, tells each of the others, and closes them at the end."""
    try:
        async with asyncio.timeout(20):
            for validator in validators:
                validator.address = await validator.links.start(HOST)
            if connect:
                addresses = {v.index: v.address for v in validators}
                for validator in validators:
                    validator.links.set_peers(addresses)
                for validator in validators:
                    for _ in range(len(validators) - 1):
                        await validator.ups.get()
            yield
    finally:
        for validator in validators:
            await validator.links.close()


@contextmanager
def identity(index: int, **options: Any) -> Iterator[Identity]:
    """The identity of a validator that is driven by hand."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        yield Identity(
            options.pop("roster", None) or roster(index),
            options.pop("chain_id", CHAIN),
            options.pop("signer", None) or signer(index),
            BatchVerifier(PROVIDER),
            executor,
            **options,
        )


@asynccontextmanager
async def stranger(address: tuple[str, int]) -> AsyncIterator[Stream]:
    """A connection on which nothing was said."""
    stream = await TcpTransport().open(*address)
    try:
        yield stream
    finally:
        await stream.close()


@asynccontextmanager
async def proved(address: tuple[str, int], index: int, peer: int) -> AsyncIterator[Stream]:
    """A connection of validator `index` to `peer` on which the handshake is over."""
    async with stranger(address) as stream:
        with identity(index) as own:
            await prove_dialler(stream, own, peer)
        yield stream


def write_frame(stream: Stream, payload: bytes) -> None:
    stream.write((payload,))


def write_raw(stream: Stream, data: bytes) -> None:
    """Bytes that may be no frame."""
    transport(stream).write(data)


def transport(stream: Stream) -> asyncio.Transport:
    assert stream._transport is not None
    return stream._transport


def write_message(stream: Stream, message: Message) -> None:
    write_frame(stream, encode(message))


async def read_payload(stream: Stream) -> Payload:
    """The next frame that is no keep-alive."""
    while True:
        payload = await stream.read_frame(FRAME_SIZE_BYTES_MAX)
        if payload:
            return payload


async def ended(stream: Stream) -> None:
    """Waits until the other side has closed."""
    with contextlib.suppress(Ended):
        while True:
            await stream.read_frame(FRAME_SIZE_BYTES_MAX)


@asynccontextmanager
async def hostile_server(
    behave: Callable[[Stream], Any],
) -> AsyncIterator[tuple[str, int]]:
    """Listens, and lets `behave` treat whoever comes."""
    tasks: set[asyncio.Task] = set()
    streams: list[Stream] = []

    def accept(stream: Stream) -> None:
        streams.append(stream)
        tasks.add(asyncio.get_running_loop().create_task(behave(stream)))

    listener = await TcpTransport().listen(HOST, 0, accept)
    try:
        yield listener.address
    finally:
        await listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in streams:
            await stream.close()
