"""`pointsman eval`: deciders on benchmark files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.base_model import NANO_BASE, ensure_base
from scripts.logs import log_to_stderr
from scripts.places import ROOT

if TYPE_CHECKING:
    from training.evaluation.deciders import Decider

KEY_VARIABLE = "OPENAI_API_KEY"


def evaluate(
    files: Annotated[list[Path], typer.Argument(help="Files of decision records.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint folder; `none` to leave it out.")
    ] = ROOT / "checkpoints" / "nano",
    endpoint: Annotated[
        str | None, typer.Option(help="URL of a running server to ask as well.")
    ] = None,
    prompted: Annotated[
        str | None,
        typer.Option(
            help="URL of an OpenAI-compatible server, as far as /v1, whose model is prompted for a "
            f"route; {KEY_VARIABLE}, if set, is sent to it."
        ),
    ] = None,
    prompted_model: Annotated[str | None, typer.Option(help="Model to prompt.")] = None,
    prompted_concurrency: Annotated[
        int, typer.Option(min=1, help="Conversations that are asked about at a time.")
    ] = 4,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="untrained, embeddings, embeddings-3, words, first or random."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="First lines of each file only.")] = None,
    orders: Annotated[
        int, typer.Option(help="Orders of the routes to decide in, for the flip rate; 0: none.")
    ] = 0,
    orders_limit: Annotated[
        int | None, typer.Option(help="First conversations of each file in several orders only.")
    ] = None,
    as_listed: Annotated[
        bool,
        typer.Option(
            "--as-listed",
            help="Let the checkpoint read routes as they are listed, and not by name as a server "
            "does: shows what their order does to the model.",
        ),
    ] = False,
    averaged_orders: Annotated[
        int, typer.Option(help="Let the checkpoint decide by the mean over so many orders.")
    ] = 1,
    prior_correction: Annotated[
        bool, typer.Option(help="Whether the checkpoint's fitted bias of `none` is added.")
    ] = True,
    latency: Annotated[
        int, typer.Option(help="Conversations of each file to time one decision of; 0: none.")
    ] = 0,
    compare: Annotated[
        Path | None, typer.Option(help="JSON report of an earlier run to take the difference to.")
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder to draw pictures into.")] = None,
    output: Annotated[Path | None, typer.Option(help="Report to write: .json or .md.")] = None,
) -> None:
    """Measure accuracy, "none", calibration and coverage; on request order flips and latency."""
    log_to_stderr()
    from training.evaluation.report import Extras, run

    extras = Extras(orders, orders_limit, latency, compare)
    deciders: list[Decider] = []
    if checkpoint is not None and str(checkpoint) != "none":
        deciders.append(_checkpoint(checkpoint, averaged_orders, prior_correction, as_listed))
    if endpoint is not None:
        from training.evaluation.endpoint import EndpointDecider

        deciders.append(EndpointDecider(endpoint))
    if prompted is not None or prompted_model is not None:
        deciders.append(_prompted(prompted, prompted_model, prompted_concurrency))
    deciders += [_baseline(name) for name in baseline or []]
    run(files, deciders, output, limit, extras, plots)


def _checkpoint(folder: Path, orders: int, prior_correction: bool, as_listed: bool) -> Decider:
    from training.evaluation.averaged import AveragedOrders
    from training.scoring import ModelDecider

    base = base_of(folder)
    decider = ModelDecider.from_checkpoint(folder, base, as_listed=as_listed or orders > 1)
    if not prior_correction:
        decider.calibration = decider.calibration.model_copy(update={"none_bias": 0.0})
    return AveragedOrders(decider, orders) if orders > 1 else decider


def base_of(checkpoint: Path) -> Path | None:
    """Folder of the base that an adapter is put on; a merged checkpoint needs none."""
    from routing.manifest import load_manifest

    manifest = load_manifest(checkpoint, verify=False)
    if manifest.weights != "adapter":
        return None
    return ensure_base(manifest.base.name, manifest.base.revision)


def _prompted(url: str | None, model: str | None, concurrency: int) -> Decider:
    from training.evaluation.prompted import PromptedDecider

    if not url or not model:
        raise typer.BadParameter("--prompted and --prompted-model go together")
    key = os.environ.get(KEY_VARIABLE, "").strip() or None
    return PromptedDecider(url, model, key=key, concurrency=concurrency)


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
