"""`qnet dev`: a local network, shown at work."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import typer

from qnet_actors.commands.options import RATE_MAX, JsonOption, ProviderOption
from qnet_actors.commands.output import FAILED, emit, reported, say

if TYPE_CHECKING:
    from qnet_actors.experiments.local import LocalNetwork, Outcome
    from qnet_actors.gateway.settings import Settings as GatewaySettings
    from qnet_actors.network.settings import NetworkSettings

ACCOUNTS_SHOWN: Final = 4
HISTORY_BLOCKS: Final = 1_000_000
# Options whose names say it shorter than the settings that they are.
_FIELDS: Final = {"port": "gateway_port", "data": "directory"}


def dev(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Settings (.toml) to start from; options that are given count before them.",
        ),
    ] = None,
    validators: Annotated[int, typer.Option(min=1, max=16, help="How many validators.")] = 4,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The gateway's port; 0: any free one.")
    ] = 8080,
    data: Annotated[
        Path | None,
        typer.Option(help="Keep the ledger here; without it, it is gone at the end."),
    ] = None,
    transactions: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many the demonstration sends.")
    ] = 2_000,
    rate: Annotated[float, typer.Option(min=1, max=RATE_MAX, help="How many a second.")] = 400.0,
    provider: ProviderOption = "auto",
    profile: Annotated[
        Literal["packed", "split", "auto"],
        typer.Option(help="A process for a whole validator, or for each of its rooms."),
    ] = "packed",
    shards: Annotated[
        int, typer.Option(min=1, max=64, help="Mempool shards of a split validator.")
    ] = 1,
    partitions: Annotated[
        int, typer.Option(min=1, max=64, help="Its state partitions, a power of two.")
    ] = 1,
    executors: Annotated[int, typer.Option(min=1, max=64, help="Its executors.")] = 1,
    snapshot_every_bytes: Annotated[
        int, typer.Option(min=1, help="After so many bytes of blocks a snapshot is made.")
    ] = 128 * 1024 * 1024,
    join_ahead_blocks: Annotated[
        int, typer.Option(min=1, help="So far behind, a validator joins from a snapshot.")
    ] = 2_048,
    retention: Annotated[
        Literal["archive", "full", "light"],
        typer.Option(help="Which blocks validators keep: all; or the newest, and headers."),
    ] = "archive",
    retention_blocks: Annotated[
        int,
        typer.Option(
            min=0, help="How many they keep whole, at least --join-ahead-blocks; 0: what is usual."
        ),
    ] = 0,
    disk_free_bytes_min: Annotated[
        int, typer.Option(min=0, help="With less room on the disk no transactions are taken.")
    ] = 512 * 1024 * 1024,
    observers: Annotated[
        int,
        typer.Option(
            min=0, max=16, help="How many observers follow, each with a gateway for readers."
        ),
    ] = 0,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Of a running Ray cluster that this machine is of; needs --data. Validators go "
            "to its machines that have the label qnet/machine.",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End after the demonstration.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a local network of validators, send real transfers, and show what happens.

    Ctrl-C stops all that it started.  With --once it ends after the demonstration: exit code 1
    where a transaction was lost or state roots differ.
    """
    _stop_on_signals()
    with reported(as_json), tempfile.TemporaryDirectory(prefix="qnet-dev-") as temporary:
        from qnet_actors.experiments.local import LocalNetwork

        settings, gateway = _settings(context, config, Path(temporary))
        with LocalNetwork(settings, say, gateway) as local:
            # Ray has put handlers of its own in the meantime.
            _stop_on_signals()
            _introduce(local)
            outcome = local.demonstrate(transactions, rate)
            if not once:
                local.watch(as_json)
                return
            emit(outcome, as_json, lambda: _lines(outcome))
        if not outcome.good:
            raise typer.Exit(FAILED)


def _settings(
    context: typer.Context, file: Path | None, temporary: Path
) -> tuple[NetworkSettings, GatewaySettings | None]:
    """What the file says, and in its place what stands on the command line.

    Raises `QnetError(CONFIGURATION_INVALID)` with the field of the file that is wrong, or where
    the directory of a cluster is not named.
    """
    from qnet_actors.commands.config import Configuration, read_configuration
    from qnet_actors.network.settings import KeepSettings, NetworkSettings
    from qnet_actors.wire.codes import Code, QnetError

    found = Configuration(None, None) if file is None else read_configuration(file)
    base = found.network or NetworkSettings(directory=temporary, history_blocks=HISTORY_BLOCKS)
    given = {
        _FIELDS.get(name, name): value
        for name, value in context.params.items()
        if (source := context.get_parameter_source(name)) is None or source.name != "DEFAULT"
    }
    keep = {name: given.pop(name) for name in KeepSettings.__struct_fields__ if name in given}
    own = {name: given[name] for name in NetworkSettings.__struct_fields__ if name in given}
    kept = msgspec.structs.replace(base.keep, **keep)
    settings = msgspec.structs.replace(base, keep=kept, **own)
    if settings.address is None:
        return settings, found.gateway
    if settings.directory == temporary:
        raise QnetError(
            Code.CONFIGURATION_INVALID,
            "--address needs --data: a directory of that name is made on every machine, and "
            "nobody removes it",
        )
    # Processes on other machines have other working directories.
    directory = settings.directory.absolute()
    return msgspec.structs.replace(settings, directory=directory), found.gateway


def _stop_on_signals() -> None:
    """Ends in order at SIGTERM as at Ctrl-C; a shell may also have started this ignoring SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _introduce(local: LocalNetwork) -> None:
    say("")
    say(f"gateway    {local.url}   (API: {local.url}/docs)")
    for number, url in enumerate(local.observer_urls):
        say(f"observer {number} {url}   (answers readers, takes no transactions)")
    for number, address in enumerate(local.addresses[:ACCOUNTS_SHOWN]):
        say(f"dev:{number}      {address}")
    say("")
    say("in another terminal:")
    say(f"  export QNET_URL={local.url}")
    say("  ./scripts/qnet status")
    say("  ./scripts/qnet balance dev:0")
    say(f"  ./scripts/qnet send --from dev:0 {local.addresses[1]} 1.5")
    say("")


def _lines(outcome: Outcome) -> Any:
    yield "validators", outcome.validators
    yield "transactions", f"{outcome.transactions}, {outcome.executed} executed"
    yield "state roots", "equal" if outcome.roots_equal else "DIFFERENT"
    yield "a second", f"{outcome.tps:.0f}"
    yield "latency", f"p50 {outcome.latency_ms.p50:.0f} ms, p99 {outcome.latency_ms.p99:.0f} ms"
    yield "height", outcome.height
    yield "first receipt", f"{outcome.seconds_to_first_receipt:.1f} s"
