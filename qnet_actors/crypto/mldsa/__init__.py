"""ML-DSA-65 of our own: a slow reference, and a batched verifier over compiled kernels.

`select_kernel` gives the verifier where it works on this machine, and says why where it does not.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from qnet_actors.crypto.mldsa.verifier import MlDsaVerifier
    from qnet_actors.crypto.providers.seam import Provider

CACHE_MB_DEFAULT = 256
"""Room for 9,238 keys; memory is taken only as keys come."""

_log = logging.getLogger(__name__)


class KernelSelection(NamedTuple):
    """The compiled verifier, or None, and a line that says why."""

    kernel: MlDsaVerifier | None
    reason: str


def select_kernel(
    oracle: Provider | None, *, cache_mb: int = CACHE_MB_DEFAULT, threads: int = 1
) -> KernelSelection:
    """The compiled verifier of ML-DSA-65, tested on embedded vectors.

    `oracle` checks a sample of its verdicts while it runs; None: nobody does, for benchmarks.
    Compiles the kernels where their cache does not hold them, which takes half a minute; so
    `kernels.cache.warm` comes first.  Raises `QnetError(CONFIGURATION_INVALID)` where that cache
    cannot be used.
    """
    try:
        from numba.core.errors import NumbaError
    except ImportError as missing:
        return _fall_back(f"numba is not installed ({missing.name})")
    try:
        from qnet_actors.crypto.mldsa import self_test
        from qnet_actors.crypto.mldsa.oracle import SampledOracle
        from qnet_actors.crypto.mldsa.verifier import MlDsaVerifier
        from qnet_actors.kernels.vectors import instruction_set
    except (NumbaError, RuntimeError) as error:
        return _fall_back(f"the kernel does not compile ({error})")
    wrong = self_test.failure(MlDsaVerifier(cache_mb=0))
    if wrong is not None:
        return _fall_back(f"the kernel fails its self-test ({wrong})")
    sampled = None if oracle is None else SampledOracle(oracle)
    kernel = MlDsaVerifier(cache_mb=cache_mb, threads=threads, oracle=sampled)
    return KernelSelection(kernel, f"kernel: compiled for {instruction_set()}, self-test passed")


def _fall_back(why: str) -> KernelSelection:
    _log.warning("ML-DSA-65 is verified by the provider, several times slower: %s", why)
    return KernelSelection(None, f"provider: {why}")


__all__ = ["CACHE_MB_DEFAULT", "KernelSelection", "select_kernel"]
