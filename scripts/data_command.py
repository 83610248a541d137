"""`pointsman data`: making, estimating, sampling and importing routing data."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from scripts.places import CONFIGS, ROOT, config_path

if TYPE_CHECKING:
    from data_synthesis.build import Inputs
    from data_synthesis.compose import Composer
    from data_synthesis.recipe import DataRecipe

app = typer.Typer(help="Make routing data, and look at it.", no_args_is_help=True)

Recipe = Annotated[str, typer.Argument(help="Name under configs/data, or a YAML file.")]
Corpora = Annotated[
    Path | None, typer.Option(envvar="POINTSMAN_CORPORA", help="Folder of the corpora.")
]
Library = Annotated[Path, typer.Option(help="Folder of the authored library.")]
Taxonomy = Annotated[Path, typer.Option(help="Folder of the taxonomy's domain files.")]
Wordings = Annotated[Path, typer.Option(help="Further wordings of the corpora's tasks.")]
LIBRARY, TAXONOMY = CONFIGS / "authored", CONFIGS / "taxonomy"
WORDINGS = CONFIGS / "data" / "wordings.yaml"


@app.command()
def make(
    recipe: Recipe,
    corpora: Corpora = None,
    output: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Benchmark file, or folder of such, to keep out of the data."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one a core.")] = None,
    library: Library = LIBRARY,
    taxonomy: Taxonomy = TAXONOMY,
    wordings: Wordings = WORDINGS,
) -> None:
    """Make conversation records for training and validation; a cut-off run goes on.

    The same recipe and inputs give the same bytes, whatever the number of processes.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
    from rich.table import Table

    from data_synthesis.build import build
    from data_synthesis.card import figures_table

    chosen, inputs = _inputs(recipe, corpora, library, taxonomy, wordings, against, workers)
    folder = output or ROOT / "data" / chosen.name
    console = Console(stderr=True)
    console.print(_estimate(chosen, inputs))
    start = time.monotonic()
    with Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        bars: dict[str, Any] = {}

        def progress(part: str, done: int, total: int) -> None:
            if part not in bars:
                bars[part] = bar.add_task(f"{part}, shards", total=total)
            bar.update(bars[part], completed=done)

        manifest = build(chosen, inputs, folder, progress)
    heading, *rows = figures_table(manifest)
    table = Table(*heading, title=f"{chosen.name}, {time.monotonic() - start:.0f} s")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    print(folder)


@app.command()
def sample(
    recipe: Recipe,
    count: Annotated[int, typer.Option(help="Conversations to print.")] = 30,
    seed: Annotated[int, typer.Option(help="Which conversations.")] = 0,
    corpora: Corpora = None,
    library: Library = LIBRARY,
    taxonomy: Taxonomy = TAXONOMY,
    wordings: Wordings = WORDINGS,
) -> None:
    """Print random conversations of a recipe as a person would read them."""
    from data_synthesis.sampling import transcript

    composer = composer_of(recipe, corpora, library, taxonomy, wordings)
    for number in range(count):
        print(transcript(composer.record(f"sample-{seed}-{number}")))


def composer_of(
    recipe: str,
    corpora: Path | None = None,
    library: Path = LIBRARY,
    taxonomy: Path = TAXONOMY,
    wordings: Path = WORDINGS,
) -> Composer:
    """What draws the conversations of a recipe, one by one."""
    from data_synthesis.compose import Composer
    from data_synthesis.stage import Stage

    chosen, inputs = _inputs(recipe, corpora, library, taxonomy, wordings, None, 1)
    weights = {name: choice.weight for name, choice in chosen.sources.items()}
    return Composer(chosen, Stage(inputs.sources, weights, inputs.library))


@app.command()
def teach(
    recipe: Annotated[str, typer.Argument(help="Name under configs/teacher, or a YAML file.")],
    output: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    ray: Annotated[bool, typer.Option(help="Run on Ray Data, for more than one machine.")] = False,
) -> None:
    """Have a language model write dialogues, and a second pass judge them; goes on where it ended.

    Finished calls are kept in a ledger and never paid for twice.
    """
    from rich.console import Console

    from data_synthesis.teacher.estimate import estimate
    from data_synthesis.teacher.recipe import load_teacher_recipe
    from data_synthesis.teacher.run import run_teacher

    path = config_path("teacher", recipe)
    folder = output or ROOT / "data" / path.stem
    console = Console(stderr=True)
    for name, value in estimate(path).items():
        console.print(f"{name}: {value}")
    driver = None
    if ray:
        from data_synthesis.teacher.ray_stage import RayDriver

        driver = RayDriver(load_teacher_recipe(path))
    with console.status("") as status:
        facts = run_teacher(
            path,
            folder,
            lambda s: status.update(
                f"{s.phase}: {s.done} of {s.total}, {s.calls} calls, {s.tokens} tokens, "
                f"{s.money:.2f} spent"
            ),
            driver,
        )
    for name in ("counts", "turned_down", "spend"):
        console.print(f"{name}: {facts[name]}")
    if facts["stopped"]:
        console.print(facts["stopped"])
        raise typer.Exit(1)
    print(folder)


@app.command(name="import-logs")
def import_logs(
    files: Annotated[
        list[Path], typer.Argument(help="Files of OpenAI chat JSONL, gzipped or not.")
    ],
    tasks: Annotated[Path, typer.Option(help="The team's tasks (YAML), or a router (JSON).")],
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    licence: Annotated[str, typer.Option(help="Licence of the traffic.")] = "internal",
    replacement: Annotated[
        Literal["placeholders", "surrogates"], typer.Option(help="What stands for scrubbed text.")
    ] = "placeholders",
    pii_model: Annotated[
        str | None, typer.Option(help="spaCy model that finds names, where it is installed.")
    ] = None,
    skip_malformed: Annotated[
        bool, typer.Option(help="Count bad lines instead of failing.")
    ] = False,
    drop_undecided: Annotated[bool, typer.Option(help="Leave out talk without labels.")] = False,
) -> None:
    """Make a team's own traffic a source of data, with personal data and secrets scrubbed first."""
    from data_synthesis.logs.importing import import_logs as run

    facts = run(
        files,
        tasks,
        output,
        licence=licence,
        replacement=replacement,
        pii_model=pii_model,
        skip_malformed=skip_malformed,
        drop_undecided=drop_undecided,
    )
    for name, value in facts.items():
        print(f"{name}: {value}")


def _inputs(
    recipe: str,
    corpora: Path | None,
    library: Path,
    taxonomy: Path,
    wordings: Path,
    against: list[Path] | None,
    workers: int | None,
) -> tuple[DataRecipe, Inputs]:
    from data_synthesis.authored.library import load_library
    from data_synthesis.build import Inputs
    from data_synthesis.recipe import load_recipe
    from data_synthesis.sources.opening import open_sources
    from scripts.base_model import NANO_BASE, ensure_base

    chosen = load_recipe(config_path("data", recipe))
    loaded = load_library(library, taxonomy)
    benchmarks: list[Path] = []
    for path in against or []:
        benchmarks += sorted(path.glob("*.jsonl*")) if path.is_dir() else [path]
    return chosen, Inputs(
        open_sources(chosen, loaded, corpora, wordings),
        loaded,
        benchmarks,
        ensure_base(NANO_BASE) / "tokenizer.json",
        workers or os.cpu_count() or 1,
    )


def _estimate(recipe: DataRecipe, inputs: Inputs) -> str:
    """What a build will come to, from a few conversations made now."""
    from data_synthesis.compose import Composer
    from data_synthesis.shards import conversation_row, encode
    from data_synthesis.stage import Stage

    weights = {name: choice.weight for name, choice in recipe.sources.items()}
    composer = Composer(recipe, Stage(inputs.sources, weights, inputs.library))
    start = time.perf_counter()
    records = [composer.record(f"estimate-{number}") for number in range(100)]
    each = (time.perf_counter() - start) / len(records)
    decisions = sum(len(record.decisions) for record in records) / len(records)
    size = sum(len(encode(conversation_row(record))) for record in records) / len(records)
    total = recipe.conversations + recipe.validation_conversations
    # Sketches, counts and compression cost about as much again as the records themselves.
    seconds = 2 * each * total / inputs.workers
    return (
        f"about {total * decisions:,.0f} decisions in {total:,} conversations, "
        f"{total * size / 2**20:,.0f} MB before compression, {seconds:,.0f} s "
        f"with {inputs.workers} processes"
    )
