"""The `pointsman` command. Every subcommand imports what it needs when it runs."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from scripts.base_model import NANO_BASE, BaseModelMissing, ensure_base, nano_revision
from scripts.data_command import app as data_app
from scripts.places import CONFIGS, ROOT, config_path

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
    config: Annotated[Path, typer.Option(help="Server configuration.")] = CONFIGS / "serve.yaml",
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Start the server; the configuration says with which routers, models and checkpoint."""
    from serving.run import serve as run

    run(config, host=host, port=port, base=ensure_base(NANO_BASE))


app.add_typer(data_app, name="data")

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
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Recipe value, as in --set max_steps=50.")
    ] = None,
) -> None:
    """Train a routing model, calibrate it, and leave a checkpoint; a cut-off run goes on."""
    _log_to_stderr()
    import yaml

    from training.calibrate import calibrate
    from training.recipe import RecipeError, load_recipe
    from training.train import train as run

    overrides: dict[str, Any] = {}
    for item in override or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise RecipeError(f"--set {item}: expected key=value")
        overrides[key] = yaml.safe_load(value)
    chosen = load_recipe(config_path("recipes", recipe), overrides)
    if chosen.processes > 1 and "LOCAL_RANK" not in os.environ:
        _start_processes(chosen.processes, chosen.threads)
    folder = output or ROOT / "runs" / chosen.name
    weights = ensure_base(chosen.base_model)
    revision = nano_revision() if chosen.base_model == NANO_BASE else "local"
    checkpoint = run(chosen, weights, revision, _part(data, "train"), folder)
    if checkpoint is None:
        return
    validation = _part(data, "validation")
    if validation.exists():
        print(calibrate(checkpoint, weights, validation))
    print(checkpoint)


def _start_processes(count: int, threads: int) -> NoReturn:
    """Go on as `count` processes of this very command; never returns."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    command = [sys.executable, *torchrun, "-m", "scripts.cli", *sys.argv[1:]]
    os.execv(sys.executable, command)


@app.command()
def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    data: Annotated[Path, typer.Option(help="Folder that `pointsman data` wrote.")],
) -> None:
    """Fit temperature and thresholds on the validation records, into the manifest."""
    _log_to_stderr()
    from training.calibrate import calibrate as run

    print(run(checkpoint, _base_of(checkpoint), _part(data, "validation")))


@app.command()
def card(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    report: Annotated[Path, typer.Option(help="JSON that `pointsman eval --output` wrote.")],
) -> None:
    """Write the checkpoint's card anew, with measured results."""
    from training.card import read_report, write_card

    print(write_card(checkpoint, read_report(report)))


@app.command(name="eval")
def evaluate(
    files: Annotated[list[Path], typer.Argument(help="Files of decision records.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint folder; `none` to leave it out.")
    ] = ROOT / "checkpoints" / "nano",
    endpoint: Annotated[
        str | None, typer.Option(help="URL of a running server to ask as well.")
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="untrained, embeddings, embeddings-3, words, first or random."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="First lines of each file only.")] = None,
    output: Annotated[Path | None, typer.Option(help="Report to write: .json or .md.")] = None,
) -> None:
    """Measure turn, span and conversation accuracy, "none", and accuracy by number of routes."""
    _log_to_stderr()
    from training.evaluation.deciders import Decider
    from training.evaluation.report import run

    deciders: list[Decider] = []
    if checkpoint is not None and str(checkpoint) != "none":
        from training.scoring import ModelDecider

        deciders.append(ModelDecider.from_checkpoint(checkpoint, _base_of(checkpoint)))
    if endpoint is not None:
        from training.evaluation.endpoint import EndpointDecider

        deciders.append(EndpointDecider(endpoint))
    deciders += [_baseline(name) for name in baseline or []]
    run(files, deciders, output, limit)


def _base_of(checkpoint: Path) -> Path | None:
    """Folder of the base that an adapter is put on; a merged checkpoint needs none."""
    from routing.manifest import load_manifest

    manifest = load_manifest(checkpoint, verify=False)
    return ensure_base(manifest.base.name) if manifest.weights == "adapter" else None


def _baseline(name: str) -> Any:
    from training.evaluation.rules import FirstRoute, RandomRoute, WordOverlap

    if name == "untrained":
        from training.scoring import ModelDecider

        return ModelDecider.untrained(ensure_base(NANO_BASE))
    if name in ("embeddings", "embeddings-3"):
        from training.evaluation.embeddings import EmbeddingBaseline

        return EmbeddingBaseline(window=3 if name.endswith("3") else 1)
    rules = {"first": FirstRoute, "random": RandomRoute, "words": WordOverlap}
    if name not in rules:
        raise typer.BadParameter(f"unknown baseline {name!r}", param_hint="--baseline")
    return rules[name]()


def _part(folder: Path, part: str) -> Path:
    """Records of a part: a folder of shards, or one file."""
    file = folder / f"{part}.jsonl.gz"
    return file if file.is_file() else folder / part


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "sentence_transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def main() -> None:
    """Run the command; an error meant for its user is one line, not a traceback."""
    from routing.errors import ContractError

    # Must stand before torch is imported. OpenMP threads that never spin cost a decision a third
    # more time; threads that spin for long ruin every other process on the machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
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
        "serving.run": ("PortBusy",),
    }
    for module, names in known.items():
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(error, tuple(getattr(loaded, n) for n in names)):
            return True
    return False


if __name__ == "__main__":
    main()
