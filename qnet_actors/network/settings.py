"""What an operator decides about a network, apart from its genesis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from qnet_actors.ledger import Retention, RetentionMode
from qnet_actors.links import PeerKey
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import SHARDS_MAX

if TYPE_CHECKING:
    from qnet_actors.ledger import SnapshotSettings

LOOPBACK: Final = "127.0.0.1"
OBSERVERS_MAX: Final = 16
OBSERVERS_FROM: Final = 32
"""The index of the first observer of a network; no validator that one operator runs has it."""

Profile = Literal["packed", "split", "auto"]
Shards = Annotated[int, msgspec.Meta(ge=1, le=SHARDS_MAX)]
Partitions = Annotated[int, msgspec.Meta(ge=1, le=64)]
Executors = Annotated[int, msgspec.Meta(ge=1, le=64)]


class KeepSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a validator keeps, and when it takes over what others keep."""

    snapshot_every_bytes: Annotated[int, msgspec.Meta(ge=1)] = 128 * 1024 * 1024
    """After so many bytes of blocks a snapshot of the state is made."""
    join_ahead_blocks: Annotated[int, msgspec.Meta(ge=1)] = 2_048
    """So far behind, it takes over a snapshot of its peers in the place of blocks."""
    retention: RetentionMode = "archive"
    """`archive` keeps all blocks.  `full` keeps the newest whole, and of the others the headers and
    where transactions stood.  `light` keeps the newest whole, and of the others the headers."""
    retention_blocks: Annotated[int, msgspec.Meta(ge=0)] = 0
    """How many are kept whole, at least `join_ahead_blocks`; 0: what is usual for the mode."""
    disk_free_bytes_min: Annotated[int, msgspec.Meta(ge=0)] = 512 * 1024 * 1024
    """With less room on its disk a validator takes no transactions; 0: it is not looked."""

    @property
    def blocks(self) -> Retention:
        """What the block log is told."""
        return Retention(self.retention, self.retention_blocks)

    @property
    def snapshots(self) -> SnapshotSettings:
        """What the ledger is told of them."""
        # Here, since with it comes all of the ledger, and processes without one have settings too.
        from qnet_actors.ledger import SnapshotSettings

        return SnapshotSettings(self.snapshot_every_bytes, self.join_ahead_blocks)


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one validator is run."""

    index: int
    directory: Path
    provider: Literal["auto", "openssl", "liboqs"] = "auto"
    history_blocks: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of how many blocks a history is kept for questions about the past; 0: none."""
    link_host: str = LOOPBACK
    """Empty: the address that its machine has in the Ray cluster."""
    link_port: int = 0
    """0: the port it had last, or any free one."""
    keep: KeepSettings = KeepSettings()
    observer: bool = False
    """It follows and answers readers, and never takes part, whoever its key belongs to."""
    observers: tuple[PeerKey, ...] = ()
    """Who may link besides validators, to read the ledger; at most 16."""
    split: bool = False
    """Each room in a process of its own; what follows is for that alone."""
    shards: Shards = 1
    """Mempool shards; their number stays as it was when the directory was made."""
    partitions: Partitions = 1
    """State partitions, a power of two."""
    executors: Executors = 1
    """With one, the ledger executes itself."""
    executor_rows_min: Annotated[int, msgspec.Meta(ge=1)] = 512
    """A block of fewer transactions is executed by the ledger: a call costs more than they do."""


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a network of one operator is placed on one Ray cluster."""

    directory: Path
    """With a folder a validator, on the machine that it lives on."""
    address: str | None = None
    """Of a Ray cluster that runs already, HOST:PORT; validators go to those of its machines that
    have the label `qnet/machine`.  None: a Ray of this machine alone, started for the network."""
    validators: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4
    joiners: Annotated[int, msgspec.Meta(ge=0, le=16)] = 0
    """So many more may be added while it runs; its gateways take them in once they are of the
    committee."""
    observers: Annotated[int, msgspec.Meta(ge=0, le=OBSERVERS_MAX)] = 0
    """So many observers may be added while it runs, each with a gateway of its own."""
    provider: Literal["auto", "openssl", "liboqs"] = "auto"
    history_blocks: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of how many blocks validator 0 keeps a history for its gateways; 0: none."""
    keep: KeepSettings = KeepSettings()
    """Of every validator."""
    gateways: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    gateway_host: str = LOOPBACK
    gateway_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8080
    """Of the first gateway; others follow.  0: any free port."""
    profile: Profile = "packed"
    """`packed`: a process a validator.  `split`: a process a room.  `auto`: `split` where the
    machines have at least two cores for each validator on them."""
    shards: Shards = 1
    """Of a split validator, as the two that follow: its mempool shards,"""
    partitions: Partitions = 1
    """its state partitions, a power of two,"""
    executors: Executors = 1
    """and its executors."""
    executor_rows_min: Annotated[int, msgspec.Meta(ge=1)] = 512
    """Transactions of a block from which on they are handed to executors."""


def check_shape(settings: NetworkSettings) -> None:
    """Raises `QnetError(CONFIGURATION_INVALID)` for a shape or retention that cannot be."""
    counts = (settings.shards, settings.partitions, settings.executors)
    if settings.profile == "packed" and counts != (1, 1, 1):
        raise QnetError(
            Code.CONFIGURATION_INVALID,
            "shards, partitions and executors are of the split profile; a packed validator has "
            "one of each",
        )
    if settings.partitions & (settings.partitions - 1):
        raise QnetError(
            Code.CONFIGURATION_INVALID,
            f"{settings.partitions} state partitions; a power of two to 64",
        )
    kept, ahead = settings.keep.blocks.kept_blocks, settings.keep.join_ahead_blocks
    if settings.keep.retention != "archive" and kept < ahead:
        raise QnetError(
            Code.CONFIGURATION_INVALID,
            f"{kept} blocks are kept and snapshots are joined from {ahead} behind; who is less "
            "behind needs the blocks: raise retention_blocks or lower join_ahead_blocks",
        )
