"""What a node signs and verifies with, from one name in its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from qnet_actors.crypto.providers import Provider, select_provider
from qnet_actors.crypto.verify import BatchVerifier

if TYPE_CHECKING:
    from qnet_actors.crypto.mldsa.verifier import VerifierCounters


class Choice(NamedTuple):
    """A provider that signs, a verifier, and a line that says which and why."""

    provider: Provider
    verifier: BatchVerifier
    reason: str
    counters: Callable[[], VerifierCounters] | None = None
    """What the compiled verifier counts; None where there is none."""


def choose(name: str = "auto") -> Choice:
    """`auto`: the fastest provider, and the compiled verifier where it works on this machine.

    A provider's own name ("openssl", "liboqs") makes it verify as well, which is what
    measurements are compared with.  Raises `QnetError(PROVIDER_MISSING)`.
    """
    selection = select_provider(name)
    if name != "auto":
        return Choice(selection.provider, BatchVerifier(selection.provider), selection.reason)
    from qnet_actors.crypto.mldsa import select_kernel

    kernel, reason = select_kernel(selection.provider)
    verifier = BatchVerifier(selection.provider, kernel=kernel)
    counters = None if kernel is None else kernel.counters
    reason = f"{selection.reason}; verified by {reason}"
    return Choice(selection.provider, verifier, reason, counters)
