"""The state as sections that prove themselves: see `wire.snapshots`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from qnet_actors.kernels.blake3 import hash_short
from qnet_actors.kernels.tree import account_messages
from qnet_actors.rooms import AccountColumns
from qnet_actors.state.accounts import split_rows
from qnet_actors.state.fast_tree import FastTree
from qnet_actors.state.partition import key_hashes, write_set_columns
from qnet_actors.state.ports import account_columns, column_bytes
from qnet_actors.state.tree import Kind, Subtree, combine
from qnet_actors.wire.blocks import WriteSet
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.hashing import STATE_VALUE, ZERO_DIGEST
from qnet_actors.wire.limits import SNAPSHOT_SECTION_ACCOUNTS_MAX
from qnet_actors.wire.snapshots import SnapshotSection

SECTION_DEPTH_MAX: Final = 64
"""A deeper one would take more accounts that share 64 bits of a hash than can be found."""
_KEY_BITS: Final = 256


def split_sections(
    accounts: WriteSet, accounts_max: int = SNAPSHOT_SECTION_ACCOUNTS_MAX
) -> Iterator[tuple[SnapshotSection, WriteSet]]:
    """All accounts, in whatever order they stand, as sections from left to right.

    A section has at most `accounts_max` accounts, sorted by address.  CPU work, 3 us an account.
    """
    addresses, values = account_columns(accounts)
    keys = key_hashes(addresses)
    prefixes = np.ascontiguousarray(keys[:, :8]).view(">u8").ravel().astype(np.uint64)
    order = np.argsort(prefixes, kind="stable")
    for depth, start, end in _cuts(prefixes[order], accounts_max):
        rows = order[start:end]
        part = addresses[rows]
        by_address = np.argsort(part.view("S32").ravel(), kind="stable")
        rows = rows[by_address]
        part = part[by_address]
        columns = AccountColumns(values.nonces[rows], values.balances[rows], values.key_ids[rows])
        root = _root(depth, keys[rows], columns)
        yield SnapshotSection(depth, int(root.kind), root.hash), column_bytes(part, columns)


def _cuts(prefixes: npt.NDArray[np.uint64], accounts_max: int) -> Iterator[tuple[int, int, int]]:
    """(depth, first row, last row + 1) of the sections of sorted key hashes."""
    # (depth, first prefix, first row, last row + 1), the leftmost on top.
    waiting = [(0, 0, 0, len(prefixes))]
    while waiting:
        depth, low, start, end = waiting.pop()
        if end - start <= accounts_max:
            yield depth, start, end
            continue
        if depth == SECTION_DEPTH_MAX:
            raise QnetError(Code.INTERNAL, "too many accounts share the first bits of a hash")
        middle = low + (1 << (SECTION_DEPTH_MAX - depth - 1))
        cut = start + int(np.searchsorted(prefixes[start:end], np.uint64(middle)))
        waiting.append((depth + 1, middle, cut, end))
        waiting.append((depth + 1, low, start, cut))


def section_prefixes(sections: Sequence[SnapshotSection]) -> list[int]:
    """The first `depth` bits of each section's keys, as a number.

    Raises `QnetError(DATA_CORRUPT)` where sections overlap or leave a gap.
    """
    prefixes: list[int] = []
    at = 0
    for section in sections:
        if section.depth > SECTION_DEPTH_MAX:
            raise _corrupt("a section lies too deep")
        width = 1 << (_KEY_BITS - section.depth)
        if at % width:
            raise _corrupt("sections overlap")
        prefixes.append(at // width)
        at += width
        if at > 1 << _KEY_BITS:
            raise _corrupt("sections overlap")
    if at != 1 << _KEY_BITS:
        raise _corrupt("sections leave a gap")
    return prefixes


def sections_root(sections: Sequence[SnapshotSection]) -> bytes:
    """The state root that sections combine to.

    What a section says of its kind is believed here, and shown by its accounts: see
    `check_section`.  Raises `QnetError(DATA_CORRUPT)` where they are no whole tree.
    """
    section_prefixes(sections)
    waiting: list[tuple[int, Subtree]] = []
    for section in sections:
        if section.kind > Kind.NODE or (section.kind == Kind.EMPTY) != (
            section.hash == ZERO_DIGEST
        ):
            raise _corrupt("a section has no such kind")
        depth, subtree = section.depth, Subtree(Kind(section.kind), section.hash)
        # Whatever stands to the left at the same depth is the sibling.
        while waiting and waiting[-1][0] == depth:
            subtree = combine(waiting.pop()[1], subtree)
            depth -= 1
        waiting.append((depth, subtree))
    return waiting[0][1].hash


def check_section(section: SnapshotSection, prefix: int, accounts: WriteSet) -> None:
    """Raises `QnetError(DATA_CORRUPT)` unless `accounts` are all of the section; CPU work."""
    addresses, values = write_set_columns(accounts)
    if len(addresses) > SNAPSHOT_SECTION_ACCOUNTS_MAX:
        raise _corrupt("a section has too many accounts")
    keys = key_hashes(addresses)
    if len(keys):
        rows = split_rows(keys)
        shift = _KEY_BITS - section.depth
        if any(int.from_bytes(key) >> shift != prefix for key in (min(rows), max(rows))):
            raise _corrupt("an account is of another section")
    root = _root(section.depth, keys, values)
    if (root.kind, root.hash) != (section.kind, section.hash):
        raise _corrupt("the accounts of a section have another root")


def _root(depth: int, keys: npt.NDArray[np.uint8], values: AccountColumns) -> Subtree:
    tree = FastTree(depth)
    if len(keys):
        rows, lengths = account_messages(values.nonces, values.balances, values.key_ids)
        tree.update(keys, hash_short(STATE_VALUE, rows, lengths))
    return tree.root()


def _corrupt(reason: str) -> QnetError:
    return QnetError(Code.DATA_CORRUPT, f"a snapshot does not hold: {reason}")
