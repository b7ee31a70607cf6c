"""Refusals as problem documents (RFC 9457), from the one table of codes."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.responses import Response

from qnet_actors.gateway.settings import RETRY_AFTER_S
from qnet_actors.wire.codes import Code, QnetError

PROBLEM_TYPE: Final = "application/problem+json"
_RETRYABLE_STATUS: Final = frozenset({429, 503})


class Refused(QnetError):
    """A `QnetError` with what the problem document and its headers say besides.

    `members` are extension members of the document, such as the transaction's id.
    """

    def __init__(
        self,
        code: Code,
        detail: str = "",
        *,
        members: dict[str, Any] | None = None,
        retry_after_s: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(code, detail)
        self.members = members or {}
        self.retry_after_s = retry_after_s
        self.headers = headers or {}


def problem(error: QnetError) -> dict[str, Any]:
    """The problem document of a refusal."""
    return {
        "type": f"urn:qnet:problem:{error.code.label}",
        "title": error.code.description,
        "status": error.code.http_status,
        "detail": error.detail,
        "code": error.code.label,
        **getattr(error, "members", {}),
    }


def problem_response(error: QnetError) -> Response:
    """The answer to a request that is refused; 429 and 503 say when to come again."""
    status = error.code.http_status
    headers = dict(getattr(error, "headers", {}))
    if status in _RETRYABLE_STATUS:
        retry_after_s = getattr(error, "retry_after_s", None) or RETRY_AFTER_S
        headers["Retry-After"] = str(retry_after_s)
    return Response(
        msgspec.json.encode(problem(error)),
        status_code=status,
        media_type=PROBLEM_TYPE,
        headers=headers,
    )
