"""`qnet bench`: measurements, each against a limit of the same run."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from qnet_actors.commands.options import RATE_MAX, SECONDS_MAX, JsonOption, ProviderOption
from qnet_actors.commands.output import FAILED, emit, fields, reported, say

if TYPE_CHECKING:
    from qnet_actors.experiments.bench import BenchResult
    from qnet_actors.experiments.overload.excess import ExcessResult

Lines = Callable[[], Iterator[tuple[str, Any]]]

app = typer.Typer(help="Measure the network against the limits of this machine.")


@contextmanager
def _scratch(as_json: bool) -> Iterator[Path]:
    """A directory for a measurement, of which it is reported how it ends."""
    with reported(as_json), tempfile.TemporaryDirectory(prefix="qnet-bench-") as directory:
        yield Path(directory)


def _show(result: Any, as_json: bool, lines: Lines | None = None, *, good: bool = True) -> None:
    """Prints a result, by its fields or as `lines` has it; exit code 1 where it is not good."""
    emit(result, as_json, lines or (lambda: fields(result, *result.__struct_fields__)))
    if not good:
        raise typer.Exit(FAILED)


@app.callback(invoke_without_command=True)
def network(
    context: typer.Context,
    senders: Annotated[int, typer.Option(min=16, max=65_536, help="How many accounts.")] = 1_024,
    seconds: Annotated[
        float, typer.Option(min=5, max=SECONDS_MAX, help="Of each of the two phases.")
    ] = 20.0,
    validators: Annotated[int, typer.Option(min=1, max=16, help="How many validators.")] = 4,
    provider: ProviderOption = "auto",
    rate: Annotated[
        float,
        typer.Option(
            min=0, max=RATE_MAX, help="Offered in the second phase; 0: half of the maximum."
        ),
    ] = 0.0,
    workload: Annotated[
        Literal["uniform", "zipf", "hot"],
        typer.Option(help="Whom accounts pay: anybody, a few most of all, or one."),
    ] = "uniform",
    costs_out: Annotated[
        Path | None,
        typer.Option(
            help="Write what each stage costs there, for `qnet sim --cost-model`.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a local network: first as fast as it takes transactions, then at half of that.

    Transactions are signed ahead and kept in QNET_CACHE (~/.cache/qnet).  Latency counts from the
    time at which a transaction was meant to be sent.  Exit code 1 where anything was lost or
    failed, roots differ, or the second phase could not be offered as meant.
    """
    if context.invoked_subcommand is not None:
        return
    with _scratch(as_json) as directory:
        from qnet_actors.experiments.bench import BenchOptions, run_bench

        options = BenchOptions(
            senders=senders,
            seconds=seconds,
            validators=validators,
            provider=provider,
            rate=rate,
            workload=workload,
            costs_out=costs_out,
        )
        result = run_bench(options, directory, say)
        _show(result, as_json, lambda: _lines(result), good=result.good)


SendersOption = Annotated[int, typer.Option(min=1, max=65_536, help="How many keys sign.")]


@app.command("verify")
def verify(senders: SendersOption = 1_024, as_json: JsonOption = False) -> None:
    """Measure ML-DSA-65 verification: the compiled kernel beside OpenSSL and liboqs."""
    with reported(as_json):
        from qnet_actors.experiments.verify_bench import VerifyOptions, run_verify_bench

        result = run_verify_bench(VerifyOptions(senders=senders), say)
        _show(result, as_json)


@app.command("validate")
def validate(senders: SendersOption = 1_024, as_json: JsonOption = False) -> None:
    """Measure admission with its load in memory: from bytes to batches that are held."""
    with reported(as_json):
        from qnet_actors.experiments.validate_bench import ValidateOptions, run_validate_bench

        result = run_validate_bench(ValidateOptions(senders=senders), say)
        _show(result, as_json)


@app.command("recovery")
def recovery(
    senders: SendersOption = 1_024,
    seconds: Annotated[float, typer.Option(min=15, max=SECONDS_MAX, help="Of the load.")] = 30.0,
    provider: ProviderOption = "auto",
    rate: Annotated[
        float, typer.Option(min=0, max=RATE_MAX, help="Offered; 0: half of the maximum.")
    ] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Kill a validator of four under load, and measure the latency of the others' clients."""
    with _scratch(as_json) as directory:
        from qnet_actors.experiments.recovery import RecoveryOptions, run_recovery

        options = RecoveryOptions(senders=senders, seconds=seconds, provider=provider, rate=rate)
        # Ray prints a death of its processes to standard output, which is the result's.
        with redirect_stdout(sys.stderr):
            result = run_recovery(options, directory, say)
        _show(result, as_json, good=not result.lost)


@app.command("turnover")
def turnover(
    joiners: Annotated[int, typer.Option(min=1, max=12, help="How many come and go.")] = 3,
    seconds: Annotated[
        float, typer.Option(min=1, max=SECONDS_MAX, help="Of each committee.")
    ] = 10.0,
    provider: ProviderOption = "auto",
    profile: Annotated[
        Literal["packed", "split"], typer.Option(help="A process a validator, or one a room.")
    ] = "packed",
    as_json: JsonOption = False,
) -> None:
    """Let validators join a network of four under load, and leave it again.

    Exit code 1 where anything acknowledged was lost, roots differ, or the committee did not change.
    """
    with _scratch(as_json) as directory:
        from qnet_actors.experiments.turnover import TurnoverOptions, run_turnover

        options = TurnoverOptions(
            joiners=joiners, seconds=seconds, provider=provider, profile=profile
        )
        result = run_turnover(options, directory, say)
        _show(result, as_json, good=result.good)


@app.command("lagging")
def lagging(
    seconds: Annotated[
        float, typer.Option(min=8, max=SECONDS_MAX, help="Before, and while slowed.")
    ] = 20.0,
    stopped_share: Annotated[
        float, typer.Option(min=0.1, max=0.95, help="Of each second, in which it is stopped.")
    ] = 0.8,
    provider: ProviderOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Slow one validator of four, and measure what is executed for the others' clients."""
    with _scratch(as_json) as directory:
        from qnet_actors.experiments.overload.lagging import LaggingOptions, run_lagging

        options = LaggingOptions(seconds=seconds, stopped_share=stopped_share, provider=provider)
        result = run_lagging(options, directory, say)
        _show(result, as_json, good=result.good)


@app.command("overload")
def overload(
    seconds: Annotated[float, typer.Option(min=6, max=SECONDS_MAX, help="Of the overload.")] = 60.0,
    factor: Annotated[float, typer.Option(min=1.5, max=10, help="Times the maximum.")] = 3.0,
    provider: ProviderOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Offer a network more than it can take: refusals, memory, and how soon it is usual again.

    Exit code 1 where anything taken was lost, a refusal does not say when to come again, memory
    grows, or the network is not back to normal within five seconds.
    """
    with _scratch(as_json) as directory:
        from qnet_actors.experiments.overload.excess import ExcessOptions, run_excess

        options = ExcessOptions(seconds=seconds, factor=factor, provider=provider)
        result = run_excess(options, directory, say)
        _show(result, as_json, lambda: _overload_lines(result), good=result.good)


def _overload_lines(result: ExcessResult) -> Iterator[tuple[str, Any]]:
    yield "maximum a second", f"{result.maximum_per_second:.0f}"
    yield "offered, executed", f"{result.offered_per_second:.0f}, {result.executed_per_second:.0f}"
    yield "refused", f"{result.refused_share:.0%}"
    yield "without Retry-After", f"{result.without_retry_after}"
    yield "latency", f"p50 {result.latency_ms_p50:.0f} ms, p99 {result.latency_ms_p99:.0f} ms"
    yield "usual latency", f"p50 {result.normal_latency_ms_p50:.0f} ms"
    yield "normal again after", f"{result.recovery_seconds:.1f} s"
    yield (
        "memory",
        f"{result.memory_bytes_early / 2**20:.0f} to {result.memory_bytes_late / 2**20:.0f} MiB",
    )
    yield "lost, failed", f"{result.lost}, {result.failed}"
    yield "state roots", "equal" if result.roots_equal else "DIFFERENT"


@app.command("state")
def state(
    accounts: Annotated[
        int, typer.Option(min=20_000, max=10_000_000, help="How many accounts.")
    ] = 1_000_000,
    keys: Annotated[int, typer.Option(min=1, max=10_000, help="Changed by a commit.")] = 1_000,
    commits: Annotated[int, typer.Option(min=100, help="How many commits.")] = 2_000,
    as_json: JsonOption = False,
) -> None:
    """Measure reads and durable writes of accounts beside a dictionary and a keyed table."""
    with _scratch(as_json) as directory:
        from qnet_actors.experiments.state_bench import StateOptions, run_state_bench

        options = StateOptions(accounts=accounts, keys=keys, commits=commits)
        result = run_state_bench(options, directory, say)
        _show(result, as_json)


@app.command("prune")
def prune(
    blocks: Annotated[int, typer.Option(min=200, help="Before pruning.")] = 1_000,
    transfers: Annotated[int, typer.Option(min=1, max=5_000, help="Of a block.")] = 500,
    as_json: JsonOption = False,
) -> None:
    """Measure commits beside the pruning of old blocks, and what each retention leaves on disk."""
    with _scratch(as_json) as directory:
        from qnet_actors.experiments.prune_bench import PruneOptions, run_prune_bench

        options = PruneOptions(blocks=blocks, transfers=transfers)
        result = run_prune_bench(options, directory, say)
        _show(result, as_json)


@app.command("execute")
def execute(
    accounts: Annotated[
        int, typer.Option(min=16, max=1_000_000, help="How many accounts.")
    ] = 10_000,
    blocks: Annotated[int, typer.Option(min=1, help="Of 4,000 transfers.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Measure the execution of transfers among many accounts, a few, and to one alone."""
    with reported(as_json):
        from qnet_actors.experiments.execute_bench import ExecuteOptions, run_execute_bench

        result = run_execute_bench(ExecuteOptions(accounts=accounts, blocks=blocks), say)
        _show(result, as_json)


def _lines(result: BenchResult) -> Iterator[tuple[str, Any]]:
    latency, half = result.latency_ms, result.half_load
    yield "workload", result.workload
    yield "executed a second", f"{result.executed_per_second:.0f}"
    yield "raw verifications a second", f"{result.raw_verifications_per_second:.0f}"
    yield "ratio to the verifier's limit", f"{result.ratio_to_verify_limit:.2f}"
    yield "latency at the limit", f"p50 {latency.p50:.0f} ms, p99 {latency.p99:.0f} ms"
    yield (
        f"latency at {half.offered_per_second:.0f} a second",
        f"p50 {half.latency_ms.p50:.0f} ms, p90 {half.latency_ms.p90:.0f} ms, "
        f"p99 {half.latency_ms.p99:.0f} ms" + ("" if half.valid else " (VOID: not all offered)"),
    )
    yield "lost, failed", f"{result.lost + half.lost}, {result.failed + half.failed}"
    yield "state roots", "equal" if result.roots_equal else "DIFFERENT"
    yield "memory", f"{result.memory_bytes / 2**20:.0f} MiB"
    yield "bytes a transaction", f"{result.bytes_per_transaction:.0f}"
    for name, microseconds in result.cpu_us_per_transaction.items():
        yield f"CPU us a transaction, {name}", f"{microseconds:.0f}"


@app.command("join")
def join(
    accounts: Annotated[
        int, typer.Option(min=1_000, max=100_000_000, help="How many accounts the ledger has.")
    ] = 1_000_000,
    kill: Annotated[
        bool, typer.Option(help="Kill the joiner when it has half of the snapshot.")
    ] = True,
    provider: ProviderOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Let an empty validator join a ledger with many accounts from a snapshot.

    It is killed half-way and goes on with what it has.  Exit code 1 where its state is not the
    certified one.
    """
    with _scratch(as_json) as directory:
        from qnet_actors.experiments.join_bench import JoinOptions, run_join_bench

        options = JoinOptions(accounts=accounts, kill=kill, provider=provider)
        result = run_join_bench(options, directory, say)
        _show(result, as_json, good=result.good)
