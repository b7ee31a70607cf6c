"""Fixtures for the tests of ML-DSA-65."""

from __future__ import annotations

import pytest

from tests.crypto.mldsa import material


@pytest.fixture
def published():
    """The hundred published signatures."""
    return material.published()
