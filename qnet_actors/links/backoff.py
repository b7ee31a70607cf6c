"""How long a dialler waits before it tries again."""

from __future__ import annotations

from collections.abc import Callable

from qnet_actors.links.settings import LinkSettings


class Backoff:
    """Pauses that double from `backoff_ms` to `backoff_ms_max`.

    Half of a pause is left to chance, so that the diallers of a restarted peer do not all come at
    once: `jitter` gives numbers in [0, 1).
    """

    def __init__(self, settings: LinkSettings, jitter: Callable[[], float]) -> None:
        self._settings = settings
        self._jitter = jitter
        self._next_ms = settings.backoff_ms

    def reset(self) -> None:
        """Starts over: the peer has moved, so that earlier failures say nothing."""
        self._next_ms = self._settings.backoff_ms

    def pause_ms(self, stood_ms: float) -> float:
        """The pause after an attempt, and the link that came of it, lasted `stood_ms` in all.

        Only a link that stood for long starts over: a peer that proves itself and then breaks the
        protocol is not dialled ever faster.
        """
        if stood_ms >= self._settings.backoff_ms_max:
            self.reset()
        pause = self._next_ms * (1 + self._jitter()) / 2
        self._next_ms = min(2 * self._next_ms, self._settings.backoff_ms_max)
        return pause
