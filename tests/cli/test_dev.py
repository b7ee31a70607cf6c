"""The settings of `qnet dev`: from a file, and in their place what stands on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from qnet_actors.cli import app
from qnet_actors.commands import dev
from qnet_actors.experiments import local
from qnet_actors.gateway.settings import Rate, Settings
from qnet_actors.network.settings import KeepSettings, NetworkSettings
from qnet_actors.wire.codes import Code, QnetError
from qnet_actors.wire.genesis import Parameters

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"
FILE = """
[network]
directory = "kept"
validators = 7
gateways = 2
keep = { retention = "full", retention_blocks = 5000 }
[gateway]
waits_max = 9
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch):
    """Runs `qnet dev` up to where a network would start: (its settings, its gateway's)."""

    def run(*arguments: str) -> tuple[NetworkSettings, Settings | None]:
        seen: list[tuple[NetworkSettings, Settings | None]] = []

        def network(settings: NetworkSettings, _: Any, gateway: Settings | None) -> None:
            seen.append((settings, gateway))
            raise QnetError(Code.PORT_IN_USE, "a test")

        monkeypatch.setattr(local, "LocalNetwork", network)
        result = CliRunner().invoke(app, ["dev", *arguments])
        assert result.exit_code, result.output
        assert seen, result.output
        (found,) = seen
        return found

    return run


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "net.toml"
    path.write_text(FILE)
    return str(path)


def test_without_a_file_the_options_count_and_the_past_is_kept(started):
    settings, gateway = started("--validators", "5", "--retention", "light")
    assert (settings.validators, settings.keep.retention) == (5, "light")
    assert settings.history_blocks == dev.HISTORY_BLOCKS
    assert not settings.directory.exists()
    assert gateway is None


def test_what_a_file_says_counts(started, file):
    settings, gateway = started("--config", file)
    assert settings == NetworkSettings(
        directory=Path("kept"),
        validators=7,
        gateways=2,
        keep=KeepSettings(retention="full", retention_blocks=5_000),
    )
    assert gateway == Settings(waits_max=9)


def test_an_option_that_is_given_counts_before_the_file_even_if_it_is_the_default(
    started, file, tmp_path
):
    options = ["--validators", "4", "--retention-blocks", "3000", "--data", str(tmp_path)]
    settings, _ = started("--config", file, *options, "--port", "9000")
    assert (settings.validators, settings.gateways, settings.gateway_port) == (4, 2, 9_000)
    assert settings.keep == KeepSettings(retention="full", retention_blocks=3_000)
    assert settings.directory == tmp_path


def test_a_network_on_a_cluster_has_a_directory_that_is_the_same_on_each_machine(started, file):
    settings, _ = started("--config", file, "--address", "10.0.0.1:6379")
    assert settings.address == "10.0.0.1:6379"
    assert settings.directory == Path.cwd() / "kept"
    refused = CliRunner().invoke(app, ["dev", "--address", "10.0.0.1:6379", "--json"])
    assert refused.exit_code == 2
    assert "--address needs --data" in refused.output


def test_a_file_that_is_wrong_is_refused_with_the_field(tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text(FILE + "cors_orgins = []\n")
    result = CliRunner().invoke(app, ["dev", "--config", str(bad)])
    assert result.exit_code == 2
    assert "cors_orgins" in result.stderr


@pytest.mark.parametrize("table", [NetworkSettings, KeepSettings, Settings, Parameters])
def test_the_page_names_every_setting_with_its_default(table):
    page = PAGE.read_text()
    for field in msgspec.structs.fields(table):
        assert f"| `{field.name}` | {shown(field.default)} |" in page, field.name


def shown(default: Any) -> str:
    if default is msgspec.NODEFAULT:
        return ""
    if isinstance(default, KeepSettings):
        return "see below"
    if isinstance(default, Rate):
        return f"{default.per_s:,} a second, {default.burst:,} at once"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, int):
        power = default.bit_length() - 1
        return f"2^{power}" if power > 13 and default == 1 << power else f"{default:,}"
    return f'`"{default}"`' if isinstance(default, str) else "none"
