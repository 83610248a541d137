"""The `pointsman` command. Every subcommand imports what it needs when it runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from scripts.adopt_command import adopt
from scripts.base_model import NANO_BASE, BaseModelMissing, ensure_base, nano_revision
from scripts.config_command import app as config_app
from scripts.data_command import app as data_app
from scripts.eval_command import base_of, evaluate
from scripts.experiments_command import experiments
from scripts.export_command import export
from scripts.keys_command import app as keys_app
from scripts.logs import log_to_stderr as _log_to_stderr
from scripts.places import CONFIGS, ROOT, config_path
from scripts.plan_command import plan
from scripts.threads import settle_threads

app = typer.Typer(
    help="Train, evaluate and serve a model that routes requests to models.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals may hold keys and prompts
)


@app.command()
def base(name: Annotated[str, typer.Argument(help="Base model.")] = NANO_BASE) -> None:
    """Provide the weights of a base model in the cache folder, and print where."""
    print(ensure_base(name))


@app.command()
def serve(
    config: Annotated[
        Path, typer.Option(envvar="POINTSMAN_CONFIG", help="Server configuration.")
    ] = CONFIGS / "serve.yaml",
    host: Annotated[
        str | None, typer.Option(envvar="POINTSMAN_HOST", help="Address to listen on.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(envvar="POINTSMAN_PORT", help="Port to listen on.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, envvar="POINTSMAN_WORKERS", help="Processes that answer."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint or export to route by.")
    ] = None,
    engine: Annotated[
        Literal["embedded", "vllm"] | None, typer.Option(help="What runs the routing model.")
    ] = None,
) -> None:
    """Start the server; the configuration says with which routers, models and checkpoint."""
    from serving.run import serve as run

    nano = ensure_base(NANO_BASE)
    run(
        config,
        host=host,
        port=port,
        workers=workers,
        base=nano,
        checkpoint=checkpoint,
        kind=engine,
    )


app.add_typer(config_app, name="config")
app.add_typer(data_app, name="data")
app.add_typer(keys_app, name="keys")

taxonomy = typer.Typer(help="The taxonomy of tasks that data is made from.", no_args_is_help=True)
app.add_typer(taxonomy, name="taxonomy")


@taxonomy.command(name="check")
def check_taxonomy(
    folder: Annotated[Path, typer.Argument(help="Folder of domain files.")] = CONFIGS / "taxonomy",
) -> None:
    """Find duplicates, near-duplicates, leaking descriptions and tasks without neighbours."""
    from data_synthesis.taxonomy import load_taxonomy
    from data_synthesis.taxonomy_check import check

    loaded = load_taxonomy(folder)
    findings = check(loaded)
    for finding in findings:
        print(f"{finding.kind}: {finding.key}: {finding.text}")
    print(
        f"{len(loaded.domains)} domains, {sum(1 for _ in loaded.tasks())} tasks, "
        f"{len(findings)} findings"
    )
    if findings:
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name under configs/recipes, or a YAML file.")],
    data: Annotated[Path, typer.Option(help="Folder that `pointsman data` wrote.")],
    output: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--with", help="Overrides: name under configs/recipes/with, or a YAML file."),
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Recipe value, as in --set max_steps=50.")
    ] = None,
) -> None:
    """Train a routing model, calibrate it, and leave a checkpoint; a cut-off run goes on."""
    _log_to_stderr()
    from training.launch import start_processes
    from training.recipe import load_recipe

    chosen = load_recipe(
        config_path("recipes", recipe),
        recipe_overrides(override),
        [config_path("recipes/with", layer) for layer in layers or []],
    )
    start_processes(chosen)
    # Imported by the processes that compute: it takes seconds.
    from training.calibrate import calibrate
    from training.distributed import leave
    from training.train import train as run

    folder = output or ROOT / "runs" / chosen.name
    weights, revision = base_of_recipe(chosen, folder)
    checkpoint = run(chosen, weights, revision, _part(data, "train"), folder, CONFIGS / "deepspeed")
    if checkpoint is not None:
        validation = _part(data, "validation")
        if validation.exists():
            print(calibrate(checkpoint, weights, validation))
        print(checkpoint)
    leave(chosen)


def recipe_overrides(items: list[str] | None) -> dict[str, Any]:
    """Values of --set; raises RecipeError for one that is no key=value."""
    import yaml

    from training.recipe import RecipeError

    overrides: dict[str, Any] = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise RecipeError(f"--set {item}: expected key=value")
        overrides[key] = yaml.safe_load(value)
    return overrides


def base_of_recipe(recipe: Any, output: Path) -> tuple[Path, str]:
    """Folder and revision of a recipe's base model; a tiny twin is made under `output`."""
    if recipe.tiny is not None:
        from training.bases import make_tiny

        return make_tiny(output / "base", recipe, ensure_base(NANO_BASE)), "random"
    revision = nano_revision() if recipe.base_model == NANO_BASE else recipe.revision
    return ensure_base(recipe.base_model, recipe.revision), revision or "local"


@app.command()
def soften(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of a larger routing model.")],
    data: Annotated[Path, typer.Option(help="Folder that `pointsman data` wrote.")],
    output: Annotated[Path, typer.Option(help="File to write.")],
) -> None:
    """Write a model's distributions over the training records, to distil a smaller one from."""
    _log_to_stderr()
    from training.soften import soften as run

    print(f"{run(checkpoint, base_of(checkpoint), _part(data, 'train'), output)} decisions")


app.command()(adopt)
app.command()(experiments)
app.command()(export)


@app.command()
def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    data: Annotated[Path, typer.Option(help="Folder that `pointsman data` wrote.")],
) -> None:
    """Fit temperature and thresholds on the validation records, into the manifest."""
    _log_to_stderr()
    from training.calibrate import calibrate as run

    print(run(checkpoint, base_of(checkpoint), _part(data, "validation")))


@app.command()
def card(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    report: Annotated[Path, typer.Option(help="JSON that `pointsman eval --output` wrote.")],
) -> None:
    """Write the checkpoint's card anew, with measured results."""
    from training.card import read_report, write_card

    print(write_card(checkpoint, read_report(report)))


app.command(name="eval")(evaluate)
app.command()(plan)


def _part(folder: Path, part: str) -> Path:
    """Records of a part: a folder of shards, or one file."""
    file = folder / f"{part}.jsonl.gz"
    return file if file.is_file() else folder / part


def main() -> None:
    """Run the command; an error meant for its user is one line, not a traceback."""
    from routing.errors import ContractError

    settle_threads()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except (ContractError, BaseModelMissing) as error:
        sys.exit(f"pointsman: {error}")
    except Exception as error:
        # Only looked for once something failed, so that no command pays for another's imports.
        if _for_the_user(error):
            sys.exit(f"pointsman: {error}")
        raise


def _for_the_user(error: Exception) -> bool:
    """Whether an error's message is all that its reader needs."""
    known = {
        "data_synthesis.logs.detect": ("DetectorUnavailable",),
        "data_synthesis.teacher.errors": ("EndpointError", "TeacherError"),
        "training.recipe": ("RecipeError",),
        "training.evaluation.deciders": ("EvaluationError",),
        "serving.errors": ("ConfigError",),
        "serving.listening": ("PortBusy",),
    }
    for module, names in known.items():
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(error, tuple(getattr(loaded, n) for n in names)):
            return True
    return False


if __name__ == "__main__":
    main()
