"""The rules of an epoch: the protocol's version and its parameters, as validators approve them.

A network begins with the genesis' parameters and version 1.  The validators of the present epoch
approve others for the next one; see `transactions.Approve`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from qnet_actors.wire.codec import U32, Struct, encode
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Parameters, check_parameters
from qnet_actors.wire.hashing import REGISTRY, RULES, hash32

PROTOCOL_VERSION: Final = 1
"""The newest protocol version that this software runs; it runs all before it, too."""
FIXED_PARAMETERS: Final = ("gc_depth", "commit_lag", "power_durability", "unbonding_epochs")
"""The genesis' for ever: a validator's stores and what it keeps of past commits hang on them, and
for how long who left can be punished."""
EPOCH_COMMITS_MAX: Final = 10_000_000
"""The most that an epoch may have at least: a few days of commits."""
_ROW_BYTES: Final = 32
_ROWS_MAX: Final = 5


class EpochRules(Struct, frozen=True):
    """What all validators go by in an epoch."""

    version: U32
    parameters: Parameters


def first_rules(parameters: Parameters) -> EpochRules:
    """Of a network that has approved nothing: version 1 and its genesis' parameters."""
    return EpochRules(1, parameters)


def check_change(present: EpochRules, proposed: EpochRules) -> None:
    """Holds rules to what may follow `present`.

    Raises `QnetError`: VERSION_REFUSED unless the version is the present one or the next;
    PARAMETERS_REFUSED for a value that a genesis may not have, for a change of one that is fixed,
    and for an epoch without an end.
    """
    if not present.version <= proposed.version <= present.version + 1:
        raise QnetError(Code.VERSION_REFUSED, f"version {proposed.version} after {present.version}")
    try:
        check_parameters(proposed.parameters)
    except QnetError as error:
        raise QnetError(Code.PARAMETERS_REFUSED, error.detail) from None
    for name in FIXED_PARAMETERS:
        if getattr(proposed.parameters, name) != getattr(present.parameters, name):
            raise QnetError(Code.PARAMETERS_REFUSED, f"{name} is the genesis' for ever")
    if not 1 <= proposed.parameters.epoch_commits_min <= EPOCH_COMMITS_MAX:
        raise QnetError(
            Code.PARAMETERS_REFUSED,
            f"epoch_commits_min is not 1-{EPOCH_COMMITS_MAX}: it would end all change",
        )


def check_known(epoch: int, version: int) -> None:
    """Raises `QnetError(UNSUPPORTED_VERSION)` where this software does not run the version."""
    if not 1 <= version <= PROTOCOL_VERSION:
        raise QnetError(
            Code.UNSUPPORTED_VERSION,
            f"epoch {epoch} goes by protocol version {version}, this software runs versions up to"
            f" {PROTOCOL_VERSION}; start a newer release on the same data",
        )


def approval_digest(epoch: int, rules: EpochRules) -> bytes:
    """What an approval for an epoch is kept as; in another epoch it counts for nothing."""
    return hash32(RULES, encode([epoch, rules]))


def rules_account(epoch: int, row: int) -> bytes:
    """The account that has a row of an epoch's rules in the place of its key id.

    Row 0 is written whenever the version rises, so who follows hand-offs learns of that.  The same
    account serves every other epoch.
    """
    return hash32(REGISTRY, b"rules", (epoch % 2).to_bytes(8, "big"), row.to_bytes(8, "big"))


def pack_rules(rules: EpochRules) -> list[bytes]:
    """Rows of 32 bytes: version and size of the parameters (u64 each), then their encoding."""
    data = encode(rules.parameters)
    head = rules.version.to_bytes(8, "big") + len(data).to_bytes(8, "big")
    pieces = [data[at : at + _ROW_BYTES] for at in range(0, len(data), _ROW_BYTES)]
    return [piece.ljust(_ROW_BYTES, b"\0") for piece in [head, *pieces]]


def unpack_head(row: bytes) -> tuple[int, int]:
    """(version, number of rows) in row 0.  Raises `QnetError(DATA_CORRUPT)`."""
    size = int.from_bytes(row[8:16], "big")
    rows = 1 + -(-size // _ROW_BYTES)
    if not 1 < rows <= _ROWS_MAX:
        raise QnetError(Code.DATA_CORRUPT, f"rules of {size} bytes")
    return int.from_bytes(row[:8], "big"), rows


def unpack_rules(rows: list[bytes]) -> EpochRules:
    """The rules in all of their rows.  Raises `QnetError(DATA_CORRUPT)`."""
    version, _ = unpack_head(rows[0])
    size = int.from_bytes(rows[0][8:16], "big")
    try:
        parameters = _PARAMETERS.decode(b"".join(rows[1:])[:size])
    except msgspec.DecodeError as error:
        raise QnetError(Code.DATA_CORRUPT, f"rules that do not decode: {error}") from None
    return EpochRules(version, parameters)


_PARAMETERS: Final[msgspec.msgpack.Decoder[Parameters]] = msgspec.msgpack.Decoder(Parameters)
