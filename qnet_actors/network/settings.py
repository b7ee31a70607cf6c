"""What an operator decides about a network, apart from its genesis."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

LOOPBACK: Final = "127.0.0.1"


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one validator is run."""

    index: int
    directory: Path
    provider: Literal["auto", "openssl", "liboqs"] = "auto"
    link_host: str = LOOPBACK
    link_port: int = 0
    """0: the port it had last, or any free one."""


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a network of one operator is placed on one Ray cluster."""

    directory: Path
    validators: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4
    provider: Literal["auto", "openssl", "liboqs"] = "auto"
    gateways: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    gateway_host: str = LOOPBACK
    gateway_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8080
    """Of the first gateway; others follow.  0: any free port."""
