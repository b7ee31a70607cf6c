"""Public keys by key id, bounded; the least recently used leave first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qnet_actors.wire.messages import PublicKey
from qnet_actors.wire.schemes import SCHEME_SIZES, Scheme, key_id


@dataclass(frozen=True, slots=True)
class KeyTable:
    """Distinct keys, and for each row which of them is its own."""

    keys: tuple[bytes, ...]
    index: npt.NDArray[np.intp]

    def part(self, start: int, end: int) -> KeyTable:
        """The rows from `start` to `end`."""
        return KeyTable(self.keys, self.index[start:end])


class KeyStore:
    """Shared by the shards of one validator."""

    def __init__(self, keys_max: int, keys: Iterable[PublicKey] = ()) -> None:
        self._keys_max = keys_max
        self._keys: OrderedDict[bytes, PublicKey] = OrderedDict()
        for key in keys:
            self.add(key)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: PublicKey) -> bool:
        """Keeps a key of a known scheme and its size; False: it was here already, or is neither."""
        if _SIZES.get(key.scheme) != len(key.public_key):
            return False
        id_ = key_id(key.scheme, key.public_key)
        if id_ in self._keys:
            self._keys.move_to_end(id_)
            return False
        self._keys[id_] = key
        if len(self._keys) > self._keys_max:
            self._keys.popitem(last=False)
        return True

    def get(self, id_: bytes) -> PublicKey | None:
        """The key of `id_`, which counts as used."""
        key = self._keys.get(id_)
        if key is not None and self._is_filling:
            self._keys.move_to_end(id_)
        return key

    @property
    def _is_filling(self) -> bool:
        # Who was used last matters only once some will have to leave.
        return 2 * len(self._keys) > self._keys_max

    def public_keys(self, scheme: int, ids: Sequence[bytes]) -> list[bytes]:
        """The keys of `ids`, all of `scheme`, which count as used; empty where there is none."""
        found = list(map(self._keys.get, ids))
        keys = [b"" if key is None or key.scheme != scheme else key.public_key for key in found]
        if self._is_filling:
            for id_ in ids:
                if id_ in self._keys:
                    self._keys.move_to_end(id_)
        return keys

    def table(
        self, scheme: int, key_ids: Sequence[bytes], brought: dict[bytes, bytes]
    ) -> KeyTable | list[bytes]:
        """The keys of `key_ids`, one a row, out of those `brought` and those held.

        Where some are missing, the list of their key ids instead.
        """
        places: dict[bytes, int] = {}
        index = [places.setdefault(id_, len(places)) for id_ in key_ids]
        keys: list[bytes] = []
        missing: list[bytes] = []
        for id_ in places:
            key = brought.get(id_)
            if key is None:
                held = self.get(id_)
                # The key id is a hash over the scheme too: another scheme's key is another key.
                key = held.public_key if held is not None and held.scheme == scheme else None
            if key is None:
                missing.append(id_)
            else:
                keys.append(key)
        if missing:
            return missing
        return KeyTable(tuple(keys), np.array(index, dtype=np.intp))


_SIZES = {int(scheme): SCHEME_SIZES[scheme].public_key for scheme in Scheme}
