"""`qnet config`: settings files and genesis files, checked before anything is started."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
import typer

from qnet_actors.commands.options import JsonOption
from qnet_actors.commands.output import emit, reported
from qnet_actors.wire.codes import Code, QnetError

if TYPE_CHECKING:
    from qnet_actors.gateway.settings import Settings
    from qnet_actors.network.settings import NetworkSettings

T = TypeVar("T")
FILE_SIZE_BYTES_MAX: Final = 1024 * 1024

app = typer.Typer(no_args_is_help=True, help="Settings: check a file.")


class Configuration(NamedTuple):
    """The tables of a settings file; None where one is absent."""

    network: NetworkSettings | None
    gateway: Settings | None


@app.command("check")
def check(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Settings (.toml) or a genesis in wire bytes.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Check a file of settings (tables `network` and `gateway`), or a genesis.

    A file that would be refused ends with exit code 2 and the field that is wrong.
    """
    with reported(as_json):
        if file.suffix == ".toml":
            configuration = read_configuration(file)
            tables = [name for name, table in configuration._asdict().items() if table is not None]
            result: dict[str, Any] = {"file": str(file), "kind": "settings", "tables": tables}
        else:
            result = {"file": str(file), "kind": "genesis", **_check_genesis(file)}

        def lines() -> Iterator[tuple[str, Any]]:
            for name, value in result.items():
                text = ", ".join(value) if isinstance(value, list) else value
                yield name.replace("_", " "), text

        emit(result, as_json, lines)


def read_configuration(file: Path) -> Configuration:
    """A settings file in TOML.

    Raises `QnetError(CONFIGURATION_INVALID)` with the field that is wrong.
    """
    from qnet_actors.gateway.settings import Settings, check_settings
    from qnet_actors.network.settings import NetworkSettings

    try:
        document = tomllib.loads(_read(file, FILE_SIZE_BYTES_MAX).decode())
    except (ValueError, RecursionError) as error:
        # Besides its own kinds of ValueError the parser lets out those of numbers without end.
        raise _invalid(file, str(error)[:300]) from None
    unknown = document.keys() - set(Configuration._fields)
    if unknown:
        raise _invalid(file, f"unknown table {min(unknown)}; there are network and gateway")
    table = document.get("gateway")
    if isinstance(table, dict) and (twice := table.keys() & {"host", "port"}):
        # Where gateways listen is the network's to say, since it may start several.
        raise _invalid(file, f"gateway: {min(twice)} is gateway_{min(twice)} of table network")
    network = _convert(file, "network", document.get("network"), NetworkSettings)
    gateway = _convert(file, "gateway", table, Settings)
    if gateway is not None:
        check_settings(gateway)
    return Configuration(network, gateway)


def _convert(file: Path, table: str, value: Any, type_: type[T]) -> T | None:
    if value is None:
        return None
    known = {field.encode_name for field in msgspec.structs.fields(type_)}  # type: ignore[arg-type]
    if isinstance(value, dict) and (unknown := value.keys() - known):
        raise _invalid(file, f"{table}: unknown field {min(unknown)}")
    try:
        return msgspec.convert(value, type_, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise _invalid(file, f"{table}: {error}") from None


def _path(type_: type, value: Any) -> Path:
    if type_ is not Path or not isinstance(value, str):
        raise ValueError(f"Expected a path, got `{type(value).__name__}`")
    if "\0" in value:
        raise ValueError("a path has no NUL")
    return Path(value)


def _check_genesis(file: Path) -> dict[str, Any]:
    from qnet_actors.wire.genesis import GENESIS_CODEC, check_genesis
    from qnet_actors.wire.limits import GENESIS_SIZE_BYTES_MAX

    try:
        genesis = GENESIS_CODEC.decode(_read(file, GENESIS_SIZE_BYTES_MAX))
    except QnetError as error:
        raise _invalid(file, f"not a genesis: {error.detail}") from None
    check_genesis(genesis)
    return {
        "name": genesis.name,
        "chain_id": genesis.chain_id().hex(),
        "development": genesis.development,
        "validators": len(genesis.members),
        "accounts": len(genesis.accounts),
    }


def _read(file: Path, size_bytes_max: int) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(size_bytes_max + 1)
    except OSError as error:
        raise _invalid(file, error.strerror or "cannot be read") from None
    if len(data) > size_bytes_max:
        raise _invalid(file, f"over {size_bytes_max} bytes")
    return data


def _invalid(file: Path, reason: str) -> QnetError:
    return QnetError(Code.CONFIGURATION_INVALID, f"{file}: {reason}")
