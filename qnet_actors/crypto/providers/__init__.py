"""Signature providers behind one seam.

`provider("auto")` takes the fastest library present; `select_provider` also says which and why.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from qnet_actors.crypto.providers.seam import (
    CONTEXT_BYTES_MAX,
    Buffer,
    Provider,
    SchemeEngine,
    SigningKey,
)
from qnet_actors.wire.codes import Code, QnetError

PROVIDER_NAMES: Final = ("auto", "liboqs", "openssl")


class Selection(NamedTuple):
    """A provider, and a line that says why it was taken."""

    provider: Provider
    reason: str


def openssl_provider() -> Provider:
    """The provider over the `cryptography` wheel, one a process.

    Raises `QnetError(PROVIDER_MISSING)` when that build has no ML-DSA.
    """
    from qnet_actors.crypto.providers import openssl

    return openssl.openssl_provider()


def liboqs_provider() -> Provider:
    """The provider over liboqs, one a process.

    Raises `QnetError(PROVIDER_MISSING)`.
    """
    from qnet_actors.crypto.providers import liboqs

    return liboqs.liboqs_provider()


def select_provider(name: str = "auto") -> Selection:
    """The provider of this name ("auto", "liboqs" or "openssl"), and why.

    Raises `QnetError` with PROVIDER_MISSING, or SCHEME_REFUSED for the simulator's keyed hash.
    """
    if name == "keyed-hash":
        raise QnetError(Code.SCHEME_REFUSED, "the keyed hash protects nothing; simulator only")
    if name == "openssl":
        chosen = openssl_provider()
        return Selection(chosen, f"openssl: asked for, {chosen.version}")
    if name == "liboqs":
        chosen = liboqs_provider()
        return Selection(chosen, f"liboqs: asked for, {chosen.version}")
    if name != "auto":
        raise QnetError(
            Code.PROVIDER_MISSING, f"providers are {', '.join(PROVIDER_NAMES)}, not {name[:32]!r}"
        )
    try:
        fastest = liboqs_provider()
    except QnetError as missing:
        chosen = openssl_provider()
        return Selection(chosen, f"openssl: {chosen.version}; {missing.detail}")
    return Selection(fastest, f"liboqs: the fastest present, {fastest.version}")


def provider(name: str = "auto") -> Provider:
    """`select_provider` without the reason."""
    return select_provider(name).provider


__all__ = [
    "CONTEXT_BYTES_MAX",
    "PROVIDER_NAMES",
    "Buffer",
    "Provider",
    "SchemeEngine",
    "Selection",
    "SigningKey",
    "liboqs_provider",
    "openssl_provider",
    "provider",
    "select_provider",
]
