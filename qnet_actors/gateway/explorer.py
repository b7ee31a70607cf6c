"""The explorer: a page of our own files that reads the API as any client does."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final, NamedTuple

import msgspec
from fastapi import FastAPI, Request
from starlette.responses import Response

from qnet_actors import __version__
from qnet_actors.gateway.routes import API
from qnet_actors.wire.codes import Code, QnetError

PREFIX: Final = "/explorer"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PAGE: Final = "index.html"
SECURITY_HEADERS: Final = {
    # Trusted types: a script that tried to write markup would be stopped, not only reviewed.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_RANGES_MAX: Final = 64


class Asset(NamedTuple):
    """A file of the page as it is served."""

    content: bytes
    media_type: str
    etag: str


def load_assets() -> dict[str, Asset]:
    """The files of the explorer by name, from the package's data."""
    assets = {}
    for item in files("qnet_actors.gateway").joinpath("web").iterdir():
        media_type = _TYPES.get("." + item.name.rpartition(".")[2])
        if media_type is None:
            continue
        content = item.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        assets[item.name] = Asset(content, media_type, etag)
    return assets


def prefers_html(accept: str) -> bool:
    """Whether an `Accept` header (RFC 9110, section 12.5.1) names HTML above JSON.

    Browsers name `text/html`.  Programs name JSON, or only `*/*`, and are given the index.
    """
    html = json = 0.0
    for item in accept.split(",")[:_RANGES_MAX]:
        media_range, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = _quality(parameters)
        if media_range in ("text/html", "text/*"):
            html = max(html, quality)
        elif media_range in ("application/json", "application/*"):
            json = max(json, quality)
    return html > json


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0


def add_explorer(app: FastAPI) -> None:
    """Serves the page at `/` to browsers, the index in JSON to others, and the page's files."""
    assets = load_assets()
    index = Asset(
        msgspec.json.encode(
            {"name": app.title, "version": __version__, "api": API, "docs": "/docs"}
        ),
        "application/json",
        f'"{__version__}"',
    )

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def front_page(request: Request) -> Response:
        html = prefers_html(",".join(request.headers.getlist("accept")))
        return _respond(request, assets[_PAGE] if html else index, vary=True)

    @app.api_route(PREFIX + "/{name}", methods=["GET", "HEAD"], include_in_schema=False)
    async def file(request: Request, name: str) -> Response:
        asset = assets.get(name)
        if asset is None or name == _PAGE:
            raise QnetError(Code.NOT_FOUND)
        return _respond(request, asset, vary=False)


def _respond(request: Request, asset: Asset, *, vary: bool) -> Response:
    headers = {
        **SECURITY_HEADERS,
        # Kept, but asked for again each time: the files of two versions never meet in one page.
        "Cache-Control": "no-cache",
        "ETag": asset.etag,
    }
    if vary:
        headers["Vary"] = "Accept"
    if _matches(request.headers.get("if-none-match", ""), asset.etag):
        return Response(status_code=304, headers=headers)
    # As a header of our own: the framework would add a charset where there is one already.
    headers["Content-Type"] = asset.media_type
    return Response(asset.content, headers=headers)


def _matches(condition: str, etag: str) -> bool:
    """`If-None-Match` (RFC 9110, section 13.1.2), by weak comparison."""
    tags = {tag.strip().removeprefix("W/") for tag in condition.split(",")}
    return etag in tags or tags == {"*"}
