"""What the shards of one validator share: batches, public keys, and which batches are wanted."""

from __future__ import annotations

from typing import Final

from qnet_actors.mempool.keys import KeyStore
from qnet_actors.mempool.settings import MempoolSettings
from qnet_actors.mempool.store import BatchStore, Recovered


class Holdings:
    """Made once a validator, from what its store recovered, and given to each of its shards."""

    def __init__(
        self,
        store: BatchStore,
        recovered: Recovered | None = None,
        settings: MempoolSettings | None = None,
    ) -> None:
        recovered = Recovered() if recovered is None else recovered
        keys_max = (MempoolSettings() if settings is None else settings).keys_max
        self.store: Final = store
        self.recovered: Final = recovered
        self.keys: Final = KeyStore(keys_max, recovered.keys)
        # A batch that one shard asks for may be another shard's to take in.
        self.wanted: Final[set[bytes]] = set()
        # Those among them that a commit names: without them this validator stands still.
        self.committed: Final[set[bytes]] = set()
