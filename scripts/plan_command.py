"""`pointsman plan`: what a recipe needs on given GPUs, before any of them is rented."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from scripts.places import CONFIGS, config_path


def plan(
    recipe: Annotated[str, typer.Argument(help="Name under configs/recipes, or a YAML file.")],
    gpus: Annotated[int | None, typer.Option(help="GPUs; default: the recipe's processes.")] = None,
    gpu: Annotated[str, typer.Option(help="h100, h200, b200, a100-80, l40s, cpu, ...")] = "h100",
    data: Annotated[
        Path | None, typer.Option(help="Folder that `pointsman data` wrote, for its counts.")
    ] = None,
    conversations: Annotated[int | None, typer.Option(help="Conversations, not --data.")] = None,
    decisions: Annotated[int | None, typer.Option(help="Decisions, not --data.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Tokens of an epoch, not --data.")] = None,
    tokens_per_pass: Annotated[
        int | None, typer.Option(help="Tokens of the largest pass; default: longest sequences.")
    ] = None,
    price: Annotated[float | None, typer.Option(help="Dollars a GPU and hour.")] = None,
    memory: Annotated[float | None, typer.Option(help="GiB free on a GPU.")] = None,
    mfu: Annotated[float | None, typer.Option(help="Share of the peak, as 0.15.")] = None,
    bandwidth: Annotated[float | None, typer.Option(help="GB/s between GPUs.")] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--with", help="Overrides: name under configs/recipes/with, or a YAML file."),
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Recipe value, as in --set packing=true.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether a recipe fits into memory, how fast it goes and what it costs; runs nothing.

    Ends with status 1 where it does not fit.
    """
    from scripts.cli import recipe_overrides
    from training.plan.hardware import gpu_named
    from training.plan.plan import plan as run
    from training.plan.workload import given_workload, read_workload
    from training.recipe import load_recipe

    chosen = load_recipe(
        config_path("recipes", recipe),
        recipe_overrides(override),
        [config_path("recipes/with", layer) for layer in layers or []],
    )
    given = given_workload(conversations, decisions, tokens)
    planned = run(
        chosen,
        gpu_named(gpu, memory, price),
        gpus,
        workload=read_workload(data) if data is not None else given,
        tokens_per_pass=tokens_per_pass,
        mfu=mfu,
        bandwidth=bandwidth,
        deepspeed=CONFIGS / "deepspeed",
    )
    if as_json:
        json.dump(planned.to_json(), sys.stdout, indent=1)
        print()
    else:
        from rich.console import Console

        from training.plan.table import show

        show(planned, Console(width=110, soft_wrap=True))
    if not planned.fits:
        raise typer.Exit(1)
