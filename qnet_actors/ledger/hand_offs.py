"""How one epoch's committee handed over to the next, made when the next begins and kept for good.

The block that shows it may be pruned later, and the members of an older committee are overwritten
in the state, so a validator keeps what light clients need: a file an epoch.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from qnet_actors.durable import write_whole
from qnet_actors.ledger.outcome import Reader
from qnet_actors.ledger.registry import committee_of, ends_epoch, read_epoch
from qnet_actors.ledger.writes import BlockQueries
from qnet_actors.light import HAND_OFF_CODEC, HandOff
from qnet_actors.wire.blocks import BLOCK_HEADER_CODEC, BLOCK_RECORD_CODEC, BlockHeader
from qnet_actors.wire.codec import encode
from qnet_actors.wire.codes import QnetError
from qnet_actors.wire.genesis import Genesis

logger = logging.getLogger(__name__)


def make_hand_off(log: BlockQueries, reader: Reader, genesis: Genesis) -> HandOff | None:
    """How the epoch before the present one ended.

    None where there was none, its last block is not in the log, or nobody certified that one yet.
    """
    present = read_epoch(reader).number
    height = _last_height(log, present - 1) if present else None
    if height is None:
        return None
    certificate = log.certificate_from(height)
    if certificate is None or certificate.checkpoint.height != height:
        return None
    record = BLOCK_RECORD_CODEC.decode(log.records(height, 1, 0)[0])
    if not ends_epoch(present - 1, record.write_set):
        return None
    committee = committee_of(reader, genesis, present)
    return HandOff(certificate, record.header, record.write_set, committee.seed, committee.members)


def _last_height(log: BlockQueries, epoch: int) -> int | None:
    """Of the blocks of an epoch; None where the log has none of them."""
    low, high = log.first_height(), log.last_height()
    if not 0 < low <= high:
        return None
    # Epochs never fall from block to block.
    while low < high:
        middle = (low + high + 1) // 2
        if _header(log, middle).epoch <= epoch:
            low = middle
        else:
            high = middle - 1
    return low if _header(log, low).epoch == epoch else None


def _header(log: BlockQueries, height: int) -> BlockHeader:
    return BLOCK_HEADER_CODEC.decode(log.headers(height, 1)[0])


class HandOffs:
    """The ends of epochs in a directory; safe to call from any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory: Final = directory

    def read(self, epoch: int) -> HandOff | None:
        """How an epoch ended; None where it is not kept here, or the file is damaged."""
        try:
            return HAND_OFF_CODEC.decode(self._file(epoch).read_bytes())
        except (FileNotFoundError, QnetError):
            return None

    def keep(self, log: BlockQueries, reader: Reader, genesis: Genesis) -> None:
        """Keeps how the epoch before the present one ended, if that can be shown and is not yet."""
        before = read_epoch(reader).number - 1
        if before < 0 or self.read(before) is not None:
            return
        hand_off = make_hand_off(log, reader, genesis)
        if hand_off is None:
            return
        encoded = encode(hand_off)
        if len(encoded) > HAND_OFF_CODEC.size_bytes_max:
            logger.warning(
                "the end of epoch %d takes %d bytes and cannot be kept: light clients go no further"
                " by this validator",
                before,
                len(encoded),
            )
            return
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(self._file(before), [encoded])

    def _file(self, epoch: int) -> Path:
        return self._directory / f"{epoch}"
