"""`pointsman experiments`: several training runs, compared in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts.places import ROOT, config_path


def experiments(
    name: Annotated[str, typer.Argument(help="Name under configs/experiments, or a YAML file.")],
    files: Annotated[list[Path], typer.Argument(help="Files of decision records to measure on.")],
    corpora: Annotated[
        Path | None, typer.Option(envvar="POINTSMAN_CORPORA", help="Folder of the corpora.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of runs and reports.")] = None,
    into: Annotated[
        Path | None, typer.Option(help="Markdown file whose marked part the table replaces.")
    ] = None,
) -> None:
    """Make each row's data, train and measure it, and print the table; goes on where it ended.

    Benchmarks are kept out of the data. Reports that are there already are not made again.
    """
    from scripts.experiments import load_experiments, run_experiments

    chosen = load_experiments(config_path("experiments", name))
    folder = output or ROOT / "runs" / "experiments" / chosen.name
    print(run_experiments(chosen, files, folder, corpora, into))
