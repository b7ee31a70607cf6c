"""Snapshots of the state, as one validator hands them to another.

A snapshot is divided into sections: the accounts whose key hash begins with the same bits, so that
a section is a subtree of the state tree.  The manifest names the sections from left to right with
the roots of their subtrees; combined, those are the state root that a quorum signed.  So the
manifest proves itself, and each section is proved by itself, before the next one is asked for.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from qnet_actors.wire.blocks import Certificate, WriteSet
from qnet_actors.wire.codec import U8, U16, Codec, Digest, Struct
from qnet_actors.wire.dag import Commit
from qnet_actors.wire.limits import (
    BLOCK_RECORD_SIZE_BYTES_MAX,
    SNAPSHOT_COMMITS_MAX,
    SNAPSHOT_PART_SIZE_BYTES_MAX,
    SNAPSHOT_SECTIONS_MAX,
)


class SnapshotSection(Struct, frozen=True):
    """A subtree of the state tree `depth` levels below the root."""

    depth: U16
    kind: U8
    """`state.Kind`: 0 empty, 1 a single leaf, 2 a node."""
    hash: Digest
    """The root of the subtree; zeros where it is empty."""


class SnapshotManifest(Struct, frozen=True):
    """What a snapshot consists of; all of it follows from the certificate."""

    certificate: Certificate
    record: Annotated[bytes, msgspec.Meta(max_length=BLOCK_RECORD_SIZE_BYTES_MAX)]
    """The certified block, canonical."""
    commits: Annotated[tuple[Commit, ...], msgspec.Meta(max_length=SNAPSHOT_COMMITS_MAX)]
    """The commits up to the checkpoint's, oldest first, back to gc_round."""
    sections: Annotated[
        tuple[SnapshotSection, ...], msgspec.Meta(min_length=1, max_length=SNAPSHOT_SECTIONS_MAX)
    ]
    """From left to right, without a gap."""


SNAPSHOT_MANIFEST_CODEC: Final = Codec[SnapshotManifest](
    SnapshotManifest, SNAPSHOT_PART_SIZE_BYTES_MAX
)
SECTION_ACCOUNTS_CODEC: Final = Codec[WriteSet](WriteSet, SNAPSHOT_PART_SIZE_BYTES_MAX)
"""The accounts of a section, sorted by address."""
