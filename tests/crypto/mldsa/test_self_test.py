"""The self-test notices a verifier that is wrong, whichever way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qnet_actors.crypto.mldsa import reference, self_test
from qnet_actors.crypto.mldsa.verifier import MlDsaVerifier


def test_cases_are_what_they_say():
    cases = self_test.cases()
    assert len(cases) >= 24
    assert sum(case.valid for case in cases) == 3
    for case in cases:
        given = reference.verify(case.public_key, case.message, case.signature, case.context)
        assert given == case.valid, case.name


def test_the_kernel_passes():
    assert self_test.failure(MlDsaVerifier(cache_mb=0)) is None


class Spoilt(MlDsaVerifier):
    """Right but for the rows of one lane, or for verdicts of one kind."""

    def __init__(self, spoil: Callable[[Any], Any]) -> None:
        super().__init__(cache_mb=0)
        self._spoil = spoil

    def verify_columns(self, *arguments):
        return self._spoil(super().verify_columns(*arguments))


def one_lane_refuses(verdicts):
    return verdicts & (np.arange(len(verdicts)) % 8 != 5)


@pytest.mark.parametrize("spoil", [np.ones_like, np.zeros_like, np.logical_not, one_lane_refuses])
def test_wrong_verdicts_are_noticed(spoil):
    assert self_test.failure(Spoilt(spoil)) is not None
