"""Where the client finds its gateway and its keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

URL_VARIABLE: Final = "QNET_URL"
HOME_VARIABLE: Final = "QNET_HOME"
URL_DEFAULT: Final = "http://127.0.0.1:8080"


def default_url(environment: Mapping[str, str] | None = None) -> str:
    """QNET_URL, or the gateway of a development network on this machine."""
    environment = os.environ if environment is None else environment
    return environment.get(URL_VARIABLE) or URL_DEFAULT


def home_directory(environment: Mapping[str, str] | None = None) -> Path:
    """QNET_HOME, or `~/.qnet`."""
    environment = os.environ if environment is None else environment
    name = environment.get(HOME_VARIABLE)
    return Path(name) if name else Path.home() / ".qnet"
