"""Providers and KEMs as fixtures; what needs liboqs says why it is skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import settings

from qnet_actors.crypto import liboqs_kem, openssl_kem, provider, select_provider
from qnet_actors.wire.codes import QnetError

T = TypeVar("T")

settings.register_profile("crypto", derandomize=True, deadline=None, database=None)
settings.load_profile("crypto")


def pytest_report_header() -> str:
    return f"signatures by {select_provider().reason}"


def _open(load: Callable[[], T]) -> T:
    try:
        return load()
    except QnetError as missing:
        pytest.skip(missing.detail)


@pytest.fixture(params=["openssl", "liboqs"])
def signatures(request):
    """Each provider that is there."""
    return _open(lambda: provider(request.param))


@pytest.fixture
def openssl():
    return provider("openssl")


@pytest.fixture
def liboqs():
    return _open(lambda: provider("liboqs"))


@pytest.fixture(params=[openssl_kem, liboqs_kem], ids=["openssl", "liboqs"])
def kem(request):
    """Each KEM that is there."""
    return _open(request.param)
