"""Blocks as a gateway announces them, for a generator that wants to know what was executed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec


class Executed(msgspec.Struct, frozen=True, gc=False):
    """A transaction of a block, as far as a generator looks at it."""

    id: str
    code: str


class _Told(msgspec.Struct, frozen=True):
    type: str
    transactions: list[Executed] = []


_TOLD: Final = msgspec.json.Decoder(_Told)


async def follow_blocks(
    url: str, subscribed: asyncio.Event, executed: Callable[[list[Executed]], None]
) -> None:
    """Gives `executed` the transactions of each block, until the gateway ends the subscription.

    `subscribed` is set once no block is missed any more.  Raises what `websockets` raises where the
    connection is lost.
    """
    from websockets.asyncio.client import connect

    address = url.replace("http", "ws", 1) + "/api/v1/ws"
    async with connect(address, max_size=None, compression=None) as socket:
        await socket.send('{"type":"subscribe","to":"blocks","transactions":true}')
        async for text in socket:
            message = _TOLD.decode(text)
            if message.type == "subscribed":
                subscribed.set()
            elif message.type == "block":
                executed(message.transactions)
