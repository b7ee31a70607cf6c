"""What an operator may set of a gateway; the defaults suit a development network."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.limits import SUBMISSION_TRANSACTIONS_MAX

Positive = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
Milliseconds = Annotated[int, msgspec.Meta(ge=1, le=3_600_000)]


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token bucket: `per_s` tokens a second, at most `burst` of them kept."""

    per_s: Positive
    burst: Positive


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds and times of one gateway."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8080
    """0: a free one."""
    cors_origins: tuple[str, ...] = ()
    """Web pages of these origins may call; none by default."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses whose X-Forwarded-For is believed."""

    connections_max: Positive = 1_024
    header_bytes_max: Positive = 16 * 1024
    header_timeout_ms: Milliseconds = 5_000
    """For the whole head of a request, from the connection's or its own first byte."""
    first_byte_timeout_ms: Milliseconds = 5_000
    """For the first byte of a body, from the end of the head."""
    body_timeout_ms: Milliseconds = 20_000
    """For the whole body."""
    bodies_size_bytes_max: Positive = 256 * 1024 * 1024
    """Of all bodies being read at one time."""

    client_requests: Rate = Rate(200, 400)
    client_transactions: Rate = Rate(2_000, 10_000)
    sender_transactions: Rate = Rate(200, 2_000)
    """Transactions of one sender that a pool took; others do not count, see `admission`."""
    limited_keys_max: Positive = 20_000
    """Clients, and senders, that are remembered; the longest unseen are forgotten."""
    limit_loopback: bool = False
    """Whether the limits hold for clients on this machine too."""

    call_timeout_ms: Milliseconds = 3_000
    """For a call to a validator; one that does not answer in time is held for dead."""
    queue_transactions_max: Positive = 20_000
    """Waiting for one validator; more are told `busy`."""
    queue_size_bytes_max: Positive = 128 * 1024 * 1024
    queue_wait_ms_max: Milliseconds = 250
    """While the oldest of them has waited for so long, more are told `busy` too,"""
    queue_waiting_min: Positive = SUBMISSION_TRANSACTIONS_MAX
    """unless fewer than so many wait: what one call takes is no queue, but a stall."""
    busy_pause_ms: Milliseconds = 100
    """For so long a validator that was busy for a whole call is offered only what pays more."""
    retry_first_ms: Milliseconds = 100
    """Back-off before a dead validator is tried again; it doubles up to the next."""
    retry_last_ms: Milliseconds = 5_000
    poll_timeout_ms: Milliseconds = 500
    """How long a validator without events keeps a poll; one held for dead is heard of by then."""
    silence_timeout_ms: Milliseconds = 1_000
    """So much later a poll is given up, and with it whatever else the validator was asked."""
    start_timeout_ms: Milliseconds = 15_000
    """The same for one that is held for dead: it may be about to be started again."""

    waits_max: Positive = 20_000
    """Transactions that are waited for at one time."""
    wait_timeout_ms: Milliseconds = 10_000
    """Where a request does not say."""
    wait_timeout_ms_max: Milliseconds = 60_000

    sockets_max: Positive = 256
    socket_queue_max: Positive = 256
    """Messages waiting for one subscriber; one more and it is dropped."""
    socket_queue_bytes_max: Positive = 16 * 1024 * 1024
    socket_subscriptions_max: Positive = 256
    socket_send_timeout_ms: Milliseconds = 5_000


RETRY_AFTER_S: Final = 1


def check_settings(settings: Settings) -> None:
    """Raises `QnetError(CONFIGURATION_INVALID)` with the field that is wrong."""
    try:
        msgspec.convert(msgspec.to_builtins(settings), Settings)
    except msgspec.ValidationError as error:
        raise QnetError(Code.CONFIGURATION_INVALID, f"gateway: {error}") from None
    if settings.retry_first_ms > settings.retry_last_ms:
        raise QnetError(
            Code.CONFIGURATION_INVALID, "gateway: retry_first_ms is above retry_last_ms"
        )
