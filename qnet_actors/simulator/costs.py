"""What each stage of the work costs on a machine, as `qnet bench --costs-out` measures it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from qnet_actors.wire.codes import Code, QnetError

Cost = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
COSTS_VERSION = 1


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the network reached from which the costs are: all of it on one machine."""

    executed_per_second: Cost
    latency_ms_p50: Cost
    latency_ms_p99: Cost
    """At half of what it reached."""


class StageCosts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Microseconds of one core, but for sizes."""

    version: Annotated[int, msgspec.Meta(ge=COSTS_VERSION, le=COSTS_VERSION)] = COSTS_VERSION
    validators: Annotated[int, msgspec.Meta(ge=2, le=128)]
    """Of the network that was measured."""
    cores: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    """Of its machine."""
    verify_us: Cost
    """A transaction's signature, by the verifier alone; part of the two below."""
    admit_us: Cost
    """A client's transaction, from its bytes to the pool."""
    hold_us: Cost
    """A transaction in another validator's batch, from its bytes until the batch is held."""
    hold_batch_us: Cost
    """Such a batch, whatever is in it."""
    hash_kib_us: Cost
    """Of 1,024 bytes."""
    execute_us: Cost
    """A transaction, from held batches to an encoded block."""
    sign_block_us: Cost
    check_block_us: Cost
    """Another's DAG block: form, rules, signature; with no ancestors."""
    check_ancestor_us: Cost
    """More for each ancestor."""
    core_peer_us: Cost
    """What the rooms do in a round for each peer, besides that."""
    message_us: Cost
    """A message over a link, at its two ends together."""
    round_us: Cost
    """All that a validator of the measured network spent in a round with next to no load."""
    host_us: Cost
    """What a validator spends on a transaction besides: loop, threads, links, disk, events for the
    gateway.  The difference between what its process was seen to take and all of the above."""
    load_us: Cost
    """A transaction in what offers the load; counts only where that is on the same machine."""
    gateway_us: Cost
    """A transaction in the gateway and in Ray's processes."""
    transaction_bytes: Cost
    """Sent for a transaction to each other validator."""
    measured: Measured


def read_costs(path: Path) -> StageCosts:
    """Raises `QnetError(INVALID_PARAMETER)` where the file is none of `qnet bench --costs-out`."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=StageCosts)
    except OSError as error:
        raise QnetError(Code.INVALID_PARAMETER, f"{path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise QnetError(Code.INVALID_PARAMETER, f"{path}: {error}") from None
