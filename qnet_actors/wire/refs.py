"""The name of a batch, apart from batches: whoever reads blocks alone needs no numpy."""

from __future__ import annotations

from qnet_actors.wire.codec import U8, Digest, Struct, Unsigned


class BatchRef(Struct, frozen=True):
    """A batch as a DAG block names it."""

    shard: U8
    sequence: Unsigned
    digest: Digest
