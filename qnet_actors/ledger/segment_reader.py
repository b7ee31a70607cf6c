"""What a block log on disk is asked: records, headers, certificates, and where things stand.

Any thread may ask.  Reads wait for one another, and never for a write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qnet_actors.ledger.segments import Segments
from qnet_actors.ledger.writes import Place, receipt_id
from qnet_actors.wire.blocks import BLOCK_RECORD_CODEC, Certificate

_CERTIFICATE_SEGMENTS: Final = 8


def newer(one: Certificate | None, other: Certificate | None) -> Certificate | None:
    """The certificate of the higher block."""
    if one is None or other is None:
        return one or other
    return one if one.checkpoint.height >= other.checkpoint.height else other


class SegmentReader:
    """Reads over the segments of a log; see `BlockReader` and `BlockQueries`."""

    def __init__(self, segments: Segments) -> None:
        self._segments: Final = segments

    def first_height(self) -> int:
        with self._segments.tables:
            return self._segments.ranges.first_height()

    def first_header_height(self) -> int:
        with self._segments.tables:
            return self._segments.ranges.first_header_height()

    def records(self, first_height: int, count_max: int, size_bytes_max: int) -> list[bytes]:
        segments = self._segments
        records: list[bytes] = []
        size = 0
        while len(records) < count_max:
            height = first_height + len(records)
            with segments.files:
                with segments.tables:
                    # What has no blocks is not worth the reading of a whole file of headers.
                    if segments.ranges.is_pruned(height):
                        break
                segment = segments.at(height)
                count = 0
                for one in segment.sizes(height, count_max - len(records)) if segment else ():
                    if (records or count) and size + one > size_bytes_max:
                        break
                    size += one
                    count += 1
                if segment is None or not count:
                    break
                records.extend(segment.records(height, count))
        return records

    def headers(self, first_height: int, count_max: int) -> list[bytes]:
        segments = self._segments
        headers: list[bytes] = []
        while len(headers) < count_max:
            height = first_height + len(headers)
            with segments.files:
                segment = segments.at(height)
                more = segment.headers(height, count_max - len(headers)) if segment else []
            if not more:
                break
            headers.extend(more)
        return headers

    def certificate_within(self, first_height: int, last_height: int) -> Certificate | None:
        """See `BlockReader`; a certificate may stand in the segment after its block's."""
        segments = self._segments
        with segments.tables:
            end = segments.ranges.position(last_height) + 2
            start = max(0, segments.ranges.position(first_height), end - _CERTIFICATE_SEGMENTS)
            sequences = segments.ranges.sequences(start, end)
        best: Certificate | None = None
        for sequence in sequences:
            with segments.files:
                found = segments.segment(sequence).certificate_within(first_height, last_height)
            best = newer(best, found)
        return best

    def certificate_from(self, height: int) -> Certificate | None:
        """See `BlockQueries`; certificates are written by rising height, so the first will do."""
        segments = self._segments
        with segments.tables:
            sequences = segments.ranges.sequences(max(0, segments.ranges.position(height)))
        for sequence in sequences[:_CERTIFICATE_SEGMENTS]:
            with segments.files:
                found = segments.segment(sequence).certificate_from(height)
            if found is not None:
                return found
        return None

    def height_of(self, block_hash: bytes) -> int | None:
        segments = self._segments
        with segments.tables:
            unindexed = sorted(segments.recent, reverse=True)
        for sequence in unindexed:
            with segments.files:
                height = segments.segment(sequence).height_of(block_hash)
            if height is not None:
                return height
        for height in segments.index.heights_of(block_hash):
            with segments.files:
                segment = segments.at(height)
                if segment is not None and segment.height_of(block_hash) == height:
                    return height
        return None

    def find_transaction(self, id_: bytes) -> Place | None:
        segments = self._segments
        with segments.tables:
            places = [place for recent in segments.recent.values() for place in recent.find(id_)]
        places += segments.index.find(id_)
        for place in places:
            for data in self.records(place.height, 1, 0):
                receipts = BLOCK_RECORD_CODEC.decode(data).receipts
                if place.position < len(receipts) and receipt_id(receipts[place.position]) == id_:
                    return place
        with segments.tables:
            return next(
                (place for place in places if segments.ranges.is_pruned(place.height)), None
            )

    def newest_certificate(self, sequences: Sequence[int]) -> Certificate | None:
        """Of all the segments; looked for once, when the log is opened."""
        for sequence in reversed(sequences[-_CERTIFICATE_SEGMENTS:]):
            with self._segments.files:
                found = self._segments.segment(sequence).certificate_within(0, 2**63)
            if found is not None:
                return found
        return None
