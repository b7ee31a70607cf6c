"""The Ray that a network stands on: one started for it, or a cluster that runs already."""

from __future__ import annotations

import logging
import os
import socket
from typing import Final

import ray
from ray.exceptions import RayError

from qnet_actors.wire.codes import Code, QnetError

# The actors move batches of a few megabytes at most; the default would reserve a third of memory.
OBJECT_STORE_BYTES: Final = 96 * 1024 * 1024

CONNECT_TIMEOUT_SECONDS: Final = 5.0
PORT_MAX: Final = 65_535

# Set before Ray starts its processes: workers would otherwise run at nice 15, and statistics of
# use would be sent out.
_ENVIRONMENT: Final = {
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # An event of every call would be kept for a dashboard that does not run.
    "RAY_task_events_report_interval_ms": "0",
    "RAY_metrics_report_interval_ms": "60000",
}
# Ray's processes ask for a token, which it keeps in ~/.ray; it warns at each start that they do.
_TOKEN_LOGGER: Final = "ray._private.authentication.authentication_token_setup"


def start_ray(namespace: str) -> None:
    """Starts a Ray of this machine alone, which ends with this process.

    Raises `QnetError(NOT_READY)` where it does not come up.
    """
    os.environ.update(_ENVIRONMENT)
    logging.getLogger(_TOKEN_LOGGER).setLevel(logging.ERROR)
    try:
        ray.init(
            # A bare start could join a cluster that is not ours.
            address="local",
            namespace=namespace,
            include_dashboard=False,
            num_cpus=os.cpu_count(),
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except Exception as error:
        # Ray tells what it waited for in vain by a bare Exception.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise QnetError(Code.NOT_READY, f"Ray did not start; try again: {reason}") from error


def join_cluster(address: str, namespace: str) -> None:
    """Connects to a Ray cluster at HOST:PORT, one machine of which is this one.

    Raises `QnetError`: NODE_UNREACHABLE, or CONFIGURATION_INVALID where `address` is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > PORT_MAX:
        raise QnetError(Code.CONFIGURATION_INVALID, f"{address!r} is not HOST:PORT")
    try:
        # Ray itself tries for minutes.
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or "no answer"
        raise QnetError(Code.NODE_UNREACHABLE, f"no Ray cluster at {address}: {reason}") from None
    logging.getLogger(_TOKEN_LOGGER).setLevel(logging.ERROR)
    try:
        ray.init(
            address=address,
            namespace=namespace,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise QnetError(
            Code.NODE_UNREACHABLE,
            f"{address} is no Ray cluster that this machine is of and has the token for: {reason}",
        ) from None
