"""The reference says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

from qnet_actors.cli import app as command
from qnet_actors.commands import output
from qnet_actors.gateway.app import create_app
from qnet_actors.gateway.settings import Settings
from qnet_actors.gateway.tracker import REFUSALS, STAGES
from tests.gateway.fakes import make_backends

DOCS = Path(__file__).parents[2] / "docs" / "reference"
API = (DOCS / "api.md").read_text()
CLI = (DOCS / "cli.md").read_text()


def test_every_route_is_described_and_nothing_else():
    described = {
        (method, re.split(r"[?]", path)[0])
        for method, path in re.findall(r"^\| (GET|POST) `(/\S*?)`", API, re.M)
    }
    paths = create_app(make_backends()).openapi()["paths"]
    served = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    operations = {("GET", path) for path in ("/", "/healthz", "/readyz", "/metrics")}
    assert described == served | operations


def test_every_status_is_described():
    for status in (*STAGES, *REFUSALS):
        assert f"`{status}`" in API


def test_the_limits_are_those_of_the_settings():
    settings = Settings()
    for number in (
        settings.connections_max,
        settings.sockets_max,
        settings.socket_queue_max,
        settings.client_requests.per_s,
        settings.client_requests.burst,
        settings.client_transactions.per_s,
        settings.client_transactions.burst,
        settings.sender_transactions.per_s,
        settings.sender_transactions.burst,
    ):
        assert f"{number:,}" in API
    assert f"{settings.wait_timeout_ms // 1_000} s where it is absent" in API
    assert f"at most {settings.wait_timeout_ms_max // 1_000} s" in API


def test_every_command_and_exit_code_is_described():
    names = get_command(command).commands.keys()  # type: ignore[attr-defined]
    for name in names:
        assert f"`qnet {name}" in CLI
    for code in (
        output.OK,
        output.FAILED,
        output.USAGE,
        output.UNREACHABLE,
        output.TIMED_OUT,
        output.BAD_KEY,
    ):
        assert f"\n| {code} | " in CLI
