"""`qnet sim`: the network in simulation, from seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qnet_actors.commands.options import JsonOption
from qnet_actors.commands.output import reported


def sim(
    seeds: Annotated[int, typer.Option(min=1, help="How many runs.")] = 200,
    first_seed: Annotated[int, typer.Option(min=0, help="The seed of the first.")] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Run this one alone.", show_default=False)
    ] = None,
    validators: Annotated[int, typer.Option(min=1, help="How many validators.")] = 4,
    faults: Annotated[
        str, typer.Option(help="Which faults: all, none, or names separated by commas.")
    ] = "all",
    joiners: Annotated[
        int, typer.Option(min=0, help="So many validators more join under load, and leave.")
    ] = 0,
    approve: Annotated[
        bool, typer.Option("--approve", help="Validators approve other rules, and then the first.")
    ] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Print the timeline of --seed.")] = False,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Look for the smallest run of --seed that fails alike.")
    ] = False,
    episodes: Annotated[
        str | None,
        typer.Option(
            help="Of the planned faults only these: numbers, or none.", show_default=False
        ),
    ] = None,
    calm_ms: Annotated[
        int | None, typer.Option(min=1, help="Load after the faults.", show_default=False)
    ] = None,
    transactions: Annotated[
        int | None, typer.Option(min=1, help="Submit no more than these.", show_default=False)
    ] = None,
    accounts: Annotated[
        int | None, typer.Option(min=1, help="How many accounts.", show_default=False)
    ] = None,
    regions: Annotated[
        str, typer.Option(help="Delays between places: world.", show_default=False)
    ] = "",
    cost_model: Annotated[
        Path | None,
        typer.Option(
            help="Predict throughput and latency from this file of `qnet bench --costs-out`,"
            " instead of checking runs.",
            show_default=False,
        ),
    ] = None,
    cores: Annotated[
        int | None,
        typer.Option(min=1, help="With --cost-model: of a machine.", show_default=False),
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="With --cost-model: all validators on one machine.")
    ] = False,
    bandwidth_mbps: Annotated[
        float,
        typer.Option(min=1, max=1e9, help="With --cost-model: of each validator, outgoing."),
    ] = 1_000.0,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Default: one a core.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run whole networks on a virtual clock, with faults and liars, and check what must hold.

    Equal seeds give equal runs. Exit code 1 where a seed failed; the message says how to see it.
    """
    with reported(as_json):
        if cost_model is not None:
            from qnet_actors.simulator.command import run_prediction

            run_prediction(
                cost_model,
                validators=validators,
                regions=regions,
                cores=cores,
                shared=shared,
                bandwidth_mbps=bandwidth_mbps,
                as_json=as_json,
            )
            return
        from qnet_actors.simulator.command import Asked, run_sim

        asked = Asked(
            seeds=seeds,
            first_seed=first_seed,
            seed=seed,
            validators=validators,
            faults=faults,
            joiners=joiners,
            approves=approve,
            trace=trace,
            shrunk=shrink,
            episodes=episodes,
            calm_ms=calm_ms,
            transactions=transactions,
            accounts=accounts,
            regions=regions,
        )
        status = run_sim(asked, as_json=as_json, processes=processes)
        if status:
            raise typer.Exit(status)
