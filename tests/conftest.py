"""What all rooms' tests share: the property-based ones are the same at every run."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No deadline: the machine may be busy, and a first call may compile.
settings.register_profile(
    "qnet",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("qnet")
