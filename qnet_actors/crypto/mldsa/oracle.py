"""A second opinion while running: some verdicts of the kernel are checked by a provider.

A kernel and a library that disagree about one signature would split the network, so a disagreement
is a fault of the node and ends it.  The share of CPU that this may take is bounded, since a peer
chooses how many bad signatures it sends.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from qnet_actors.crypto.providers.seam import Provider
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.schemes import Scheme

CPU_SHARE: Final = 0.01
# What may be saved up while nothing is checked: enough for a few checks by the slowest provider.
_SAVED_SECONDS_MAX: Final = 0.02
_CHECK_SECONDS_FIRST: Final = 0.0005

_log = logging.getLogger(__name__)


class VerifierDisagreement(QnetError):
    """The kernel and a provider differ about a signature: one of them is wrong."""

    def __init__(self, detail: str) -> None:
        super().__init__(Code.INTERNAL, detail)

    def __reduce__(self) -> tuple[type[VerifierDisagreement], tuple[str]]:  # type: ignore[override]
        return (VerifierDisagreement, (self.detail,))


@dataclass(frozen=True, slots=True)
class OracleCounters:
    """Verdicts that were checked."""

    accepts: int
    rejects: int
    seconds: float


class SampledOracle:
    """Checks verdicts picked at random, accepts and rejects alike; safe for several threads."""

    def __init__(self, provider: Provider, cpu_share: float = CPU_SHARE) -> None:
        """`cpu_share`: seconds of checking for each second of the kernel, 0 to 1."""
        if not 0 <= cpu_share <= 1:
            raise ValueError("the share of CPU for checks is 0 to 1")
        self._provider = provider
        self._cpu_share = cpu_share
        self._lock = threading.Lock()
        # Accepts and rejects save up apart, so that neither starves the other.
        self._saved = {True: 0.0, False: 0.0}
        self._checked = {True: 0, False: 0}
        self._seconds = 0.0
        self._check_seconds = _CHECK_SECONDS_FIRST
        self._disagreement: VerifierDisagreement | None = None

    def counters(self) -> OracleCounters:
        """How much was checked so far."""
        with self._lock:
            return OracleCounters(self._checked[True], self._checked[False], self._seconds)

    def watch(
        self,
        scheme: Scheme,
        table: Sequence[bytes],
        index: npt.NDArray[np.intp],
        messages: npt.NDArray[np.uint8],
        signatures: npt.NDArray[np.uint8],
        context: bytes,
        verdicts: npt.NDArray[np.bool_],
        kernel_seconds: float,
    ) -> None:
        """Checks as many of the verdicts of `verify_columns` as `kernel_seconds` of work allow.

        Raises `VerifierDisagreement`, and does so for ever after.
        """
        for verdict in (True, False):
            rows = np.flatnonzero(verdicts == verdict)
            for _ in range(self._allowance(verdict, kernel_seconds / 2, len(rows))):
                # An attacker must not know which signatures are looked at twice.
                row = int(rows[secrets.randbelow(len(rows))])
                key = table[index[row]]
                message, signature = messages[row].tobytes(), signatures[row].tobytes()
                started = time.thread_time()
                opinion = self._provider.verify(scheme, key, message, signature, context)
                self._account(verdict, time.thread_time() - started)
                if opinion != verdict:
                    self._disagree(
                        verdict,
                        f"key {key.hex()}, message {message.hex()}, context {context.hex()}, "
                        f"signature {signature.hex()}",
                    )

    def _allowance(self, verdict: bool, seconds: float, rows: int) -> int:
        """How many checks are paid for, out of `rows` verdicts."""
        with self._lock:
            if self._disagreement is not None:
                raise self._disagreement
            if not rows:
                return 0
            saved = self._saved[verdict] + seconds * self._cpu_share
            count = min(int(saved / self._check_seconds), rows)
            self._saved[verdict] = min(saved - count * self._check_seconds, _SAVED_SECONDS_MAX)
            return count

    def _account(self, verdict: bool, seconds: float) -> None:
        with self._lock:
            self._checked[verdict] += 1
            self._seconds += seconds
            # The cost of a check is learned; what was paid too much or too little evens out.
            self._saved[verdict] += self._check_seconds - seconds
            self._check_seconds += (seconds - self._check_seconds) / 16

    def _disagree(self, verdict: bool, material: str) -> None:
        said = "accepts" if verdict else "refuses"
        _log.critical("the kernel %s what %s does not: %s", said, self._provider.name, material)
        with self._lock:
            self._disagreement = VerifierDisagreement(
                f"the kernel {said} a signature and {self._provider.name} disagrees; "
                "the log has it. Start with the kernel switched off, and report it"
            )
            raise self._disagreement
