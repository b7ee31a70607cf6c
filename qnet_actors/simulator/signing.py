"""The signatures of a run: keyed hashes, or ML-DSA-65 in its deterministic variant.

A library's ML-DSA is hedged: it signs one message differently each time, and a run with it would
not replay.
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np

from qnet_actors.crypto import Provider, Signer, development_key, provider, simulator_provider
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.schemes import Scheme, key_id


class SimSigner(Protocol):
    """A loaded key of the simulation; all of them are development keys."""

    @property
    def scheme(self) -> Scheme: ...

    @property
    def public_key(self) -> bytes: ...

    @property
    def key_id(self) -> bytes: ...

    def sign(self, message: bytes, context: bytes) -> bytes: ...


class DeterministicSigner:
    """ML-DSA-65 with zeros for randomness (FIPS 204 section 3.4), by the benchmarks' kernel."""

    def __init__(self, role: str, index: int, crypto: Provider) -> None:
        from qnet_actors.crypto.mldsa.signer import DevelopmentSigner

        self._kernel = DevelopmentSigner(role, 1, crypto, genesis_is_dev=True, first=index)
        self._row = np.zeros(1, dtype=np.int64)
        self.scheme: Final = Scheme.ML_DSA_65
        self.public_key: Final = self._kernel.public_keys[0]
        self.key_id: Final = key_id(self.scheme, self.public_key)

    def sign(self, message: bytes, context: bytes) -> bytes:
        column = np.frombuffer(message, dtype=np.uint8).reshape(1, -1)
        return self._kernel.sign(self._row, column, context).tobytes()


class Signing:
    """Keys by role and number, and the provider that verifies what they sign.

    Raises `QnetError(UNKNOWN_SCHEME)` for other schemes than these two.
    """

    def __init__(self, scheme: Scheme) -> None:
        if scheme not in (Scheme.KEYED_HASH, Scheme.ML_DSA_65):
            raise QnetError(Code.UNKNOWN_SCHEME, f"no simulation signs with {scheme.name}")
        self.scheme: Final = scheme
        self.provider: Final[Provider] = (
            _keyed_hash() if scheme == Scheme.KEYED_HASH else provider("auto")
        )

    def signer(self, role: str, index: int) -> SimSigner:
        if self.scheme == Scheme.ML_DSA_65:
            return DeterministicSigner(role, index, self.provider)
        return Signer(development_key(role, index, self.scheme, self.provider), self.provider)

    def signers(self, role: str, count: int) -> list[SimSigner]:
        """The first `count` of a role."""
        return [self.signer(role, index) for index in range(count)]


def _keyed_hash() -> Provider:
    """The simulator's scheme, without the pauses by which a verifier lets other threads run."""
    crypto = simulator_provider()
    crypto.releases_gil = True
    return crypto
