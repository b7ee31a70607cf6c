"""What a shard of the tests sends to its peers and its validator, and is sent by them."""

from __future__ import annotations

from typing import Any

from qnet_actors.kernels.expand import expand
from qnet_actors.rooms import (
    BatchReady,
    FromPeer,
    Room,
    StatusChanged,
)
from qnet_actors.wire.batches import Batch, BatchRef, build_batch, decode_batch
from qnet_actors.wire.codes import Code
from qnet_actors.wire.messages import BatchAcks, Batches
from tests.mempool.world import (
    CHAIN_ID,
    ZERO,
    Client,
    Driver,
)


def pushed(driver: Driver) -> list[Batch]:
    """Own batches as they were pushed, each once."""
    made = [decode_batch(data) for m in driver.messages(Batches) for data in m.batches]
    return list({each.digest: each for each in made if each.header.author == 0}.values())


def pushed_ids(driver: Driver) -> list[bytes]:
    """The transactions of own batches as they were pushed, in order."""
    return [row.tobytes() for each in pushed(driver) for row in expand(each).ids]


def offered(driver: Driver) -> list[BatchRef]:
    return [event.ref for event in driver.sent.events(Room.VALIDATOR, BatchReady)]


def batched_ids(driver: Driver) -> list[bytes]:
    events = driver.sent.events(Room.GATEWAY, StatusChanged)
    return [id_ for event in events if event.status == "batched" for id_ in event.ids]


def batch(
    sequence: int = 1,
    author: int = 1,
    *,
    client: Client | None = None,
    count: int = 3,
    bad: bool = False,
    with_key: bool = True,
    start: int = 0,
    **fields: Any,
) -> Batch:
    client = client or Client(1)
    terms: dict[str, Any] = {"chain_id": CHAIN_ID, "epoch": 0, "shard": 0} | fields
    transactions = [
        client.transaction(
            n,
            with_key=with_key,
            chain_id=terms["chain_id"],
            signature=ZERO if bad and n == start + count - 1 else None,
        )
        for n in range(start, start + count)
    ]
    return build_batch(transactions, author=author, sequence=sequence, **terms)


def give(driver: Driver, peer: int, *made: Batch) -> None:
    driver.give(FromPeer(peer, Batches(tuple(each.encode() for each in made))))


def acknowledged(driver: Driver, *transactions: bytes) -> Batch:
    """Submits transactions, and gives the batch that they end in with its quorum."""
    assert driver.submit(*transactions) == [Code.SUCCESS] * len(transactions)
    driver.advance(300)
    made = pushed(driver)[-1]
    for peer in (1, 2):
        driver.give(FromPeer(peer, BatchAcks((made.digest,))))
    return made
