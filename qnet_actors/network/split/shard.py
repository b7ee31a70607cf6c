"""A mempool shard of a validator in a process of its own.  Knows no Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qnet_actors.mempool import BatchStore, Entry, Holdings, MempoolShard
from qnet_actors.network.driver import Driver
from qnet_actors.network.node import GATEWAY, LEDGER, VALIDATOR, Node, RoomKey
from qnet_actors.network.present import Present
from qnet_actors.network.split.events import SendToPeers, Stopped
from qnet_actors.rooms import AccountColumns, BlockExecuted, Room
from qnet_actors.state import AccountReplica
from qnet_actors.wire.genesis import Genesis
from qnet_actors.wire.messages import Message


class ShardRoom:
    """Belongs to one event loop.  `forward` gets what is for other rooms.

    It has a batch store of its own, and a copy of the accounts that follows the executed blocks,
    so that admission never waits for another process.
    """

    def __init__(
        self,
        genesis: Genesis,
        present: Present,
        own: int,
        shard: int,
        shards: int,
        verifier: Any,
        store: BatchStore,
        accounts: AccountReplica,
        forward: Callable[[RoomKey, Any], None],
        leftovers: Sequence[Entry] = (),
    ) -> None:
        """`own`: the validator's place in the committee; `leftovers`: what waited in this shard in
        the epoch before."""
        self._key: Final = RoomKey(Room.MEMPOOL, shard)
        # Tells the validator which shard a message to peers is from.
        self._here: Final = RoomKey(Room.VALIDATOR, shard)
        self._accounts: Final = accounts
        self._forward = forward
        self._core = MempoolShard(
            genesis=genesis,
            committee=present.committee,
            own_index=own,
            holdings=Holdings(store, store.load()),
            verifier=verifier,
            reader=accounts,
            shard=shard,
            shard_count=shards,
            height=accounts.height,
            previous=present.previous,
        )
        self._core.take_over(leftovers)
        others = (RoomKey(Room.MEMPOOL, other) for other in range(shards) if other != shard)
        self._driver = Driver(
            Node({self._key: self._core}, [VALIDATOR, LEDGER, *others]),
            {self._key: store},
            lambda event: forward(GATEWAY, event),
            lambda reason: forward(VALIDATOR, Stopped(reason)),
            self._pass_on,
        )

    def start(self) -> None:
        self._driver.start(self)

    def handle(self, event: Any) -> None:
        """Takes an event for this shard."""
        if isinstance(event, BlockExecuted):
            self._accounts.apply(event.record.header.height, event.record.write_set)
        self._driver.handle(Room.MEMPOOL, event, self._key.shard)

    def send(self, peer: int, message: Message) -> None:
        """See `driver.Peers`: the validator holds the links."""
        self._forward(self._here, SendToPeers(message, (peer,)))

    def broadcast(self, message: Message) -> None:
        self._forward(self._here, SendToPeers(message, None))

    def read_at(self, addresses: npt.NDArray[np.uint8]) -> tuple[int, AccountColumns]:
        """(height, accounts of `addresses`) as of the newest block heard of."""
        return self._accounts.height, self._accounts.read(addresses)

    def next_nonce(self, address: bytes, nonce: int) -> int:
        """See `MempoolShard.next_nonce`."""
        return self._core.next_nonce(address, nonce)

    def leftovers(self) -> list[Entry]:
        """See `MempoolShard.leftovers`."""
        return self._core.leftovers()

    @property
    def pool_transactions(self) -> int:
        return self._core.metrics.pool_transactions

    async def close(self) -> None:
        await self._driver.close()

    def _pass_on(self, key: RoomKey, event: Any) -> None:
        # The ledger puts the bodies of a commit together, and wants to know whose these are.
        self._forward(RoomKey(Room.LEDGER, self._key.shard) if key == LEDGER else key, event)
