"""The application: routes, WebSocket, health, metrics and documentation over one gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, Response

from qnet_actors import __version__
from qnet_actors.gateway.backend import Backend
from qnet_actors.gateway.explorer import add_explorer
from qnet_actors.gateway.front import Front
from qnet_actors.gateway.history import create_history_router
from qnet_actors.gateway.openapi import docs_page, openapi_document
from qnet_actors.gateway.problems import problem_response
from qnet_actors.gateway.proofs import create_proof_router
from qnet_actors.gateway.routes import create_router, json_response
from qnet_actors.gateway.service import Gateway
from qnet_actors.gateway.settings import Settings, check_settings
from qnet_actors.gateway.sockets import create_socket_router
from qnet_actors.wire.codes import Code, QnetError

DESCRIPTION: Final = (
    "The front door of a QNet network. u64 stand as decimal strings, times in ms since 1970, bytes "
    "in base64, ids in lower-case hex, addresses in bech32m. A refusal is a problem document "
    "(RFC 9457) whose `code` is stable."
)


def create_app(backends: Sequence[Backend], settings: Settings | None = None) -> FastAPI:
    """The application of a gateway in front of `backends`; its `state.gateway` is the `Gateway`.

    Raises `QnetError(CONFIGURATION_INVALID)`.
    """
    settings = settings or Settings()
    check_settings(settings)
    gateway = Gateway(backends, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await gateway.start()
        try:
            yield
        finally:
            await gateway.close()

    app = FastAPI(
        title="QNet gateway",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # Our own metrics are cheaper, and nothing is to leave the process by itself.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.state.gateway = gateway
    app.include_router(create_router(gateway))
    app.include_router(create_proof_router(gateway))
    app.include_router(create_history_router(gateway))
    app.include_router(create_socket_router(gateway))
    _add_operations(app, gateway)
    _add_documentation(app)
    add_explorer(app)
    _add_refusals(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Content-Type"],
            expose_headers=["RateLimit", "RateLimit-Policy", "Retry-After", "Location"],
        )
    app.add_middleware(Front, gateway=gateway)
    return app


def _add_operations(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return json_response({"status": "ok"})

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        return json_response({"status": "ready", "height": str(await gateway.ready_height())})

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        await gateway.read_verifiers()
        return Response(
            generate_latest(gateway.metrics.registry),
            headers={"Content-Type": CONTENT_TYPE_LATEST},
        )


def _add_documentation(app: FastAPI) -> None:
    cached: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not cached:
            cached.update(openapi_document(app))
        return cached

    app.openapi = document  # type: ignore[method-assign]

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(msgspec.json.encode(document()), media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(document()))


def _add_refusals(app: FastAPI) -> None:
    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, QnetError)
        return problem_response(error)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "request"
        return problem_response(QnetError(Code.INVALID_PARAMETER, f"{where}: {first['msg']}"[:300]))

    async def unmatched(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED}.get(
            error.status_code, Code.MALFORMED
        )
        response = problem_response(QnetError(code))
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(QnetError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, unmatched)
