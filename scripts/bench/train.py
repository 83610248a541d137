"""What training a whole conversation at once gains over one decision a row.

    python -m scripts.bench.train [--data data/nano] [--recipe nano-lora] [--seconds 240]

Method: the same conversations, recipe and machine; both variants are trained for the same time, one
after the other, each in a process of its own, with one process and as many threads as the recipe's
processes had. (a) `rows`: every decision is a row of its own, the routes and the conversation up to
it, as a plain set of prompts and answers would be. (b) `conversations`: ours, n decisions a
sequence. Time counts from the first step, so that loading counts for neither. Then both decide the
same validation conversations, whose tasks neither has seen. Decisions a second and the share of
time outside forward and backward come from the trainer's own meter.

The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from scripts.places import CONFIGS, config_path

VARIANTS = ("rows", "conversations")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare two ways to lay out training data.")
    parser.add_argument("--data", type=Path, help="folder of `pointsman data`; default: made now")
    parser.add_argument("--recipe", default="nano-lora")
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--conversations", type=int, default=2000)
    parser.add_argument("--validation", type=int, default=80, help="conversations decided after")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(_run(arguments)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, arguments)
        results = {variant: _in_process(variant, folder) for variant in VARIANTS}
    for variant, figures in results.items():
        print(variant, json.dumps(figures))
    ours, rows = results["conversations"], results["rows"]
    print(
        json.dumps(
            {
                "decisions_per_second_ratio": round(
                    ours["decisions_per_second"] / rows["decisions_per_second"], 2
                ),
                "accuracy_equal_time": {v: results[v]["accuracy"] for v in VARIANTS},
                "overhead_share": ours["overhead_share"],
                "seconds": arguments.seconds,
                "recipe": arguments.recipe,
                "conversations": arguments.conversations,
            }
        )
    )


def _write(folder: Path, arguments: argparse.Namespace) -> None:
    """Training records of both kinds, and validation records."""
    from routing.records import read_conversations

    if arguments.data is not None:
        train = read_conversations(arguments.data / "train")
        validation = read_conversations(arguments.data / "validation")
    else:
        from scripts.data_command import composer_of

        composer = composer_of("nano-authored")
        train = (composer.record(f"bench-{n}") for n in range(arguments.conversations))
        validation = (composer.record(f"bench-validation-{n}") for n in range(arguments.validation))
    whole = list(islice(train, arguments.conversations))
    (folder / "conversations.jsonl").write_text("".join(r.model_dump_json() + "\n" for r in whole))
    with (folder / "rows.jsonl").open("w") as file:
        for record in whole:
            for row in _rows(record):
                file.write(row.model_dump_json() + "\n")
    kept = islice(validation, arguments.validation)
    (folder / "validation.jsonl").write_text("".join(r.model_dump_json() + "\n" for r in kept))
    (folder / "arguments.json").write_text(
        json.dumps({"recipe": arguments.recipe, "seconds": arguments.seconds})
    )


def _rows(record: Any) -> Iterator[Any]:
    for number, label in enumerate(record.decisions):
        yield record.model_copy(
            update={
                "id": f"{record.id}-{number}",
                "messages": record.messages[: label.message + 1],
                "decisions": [label],
            }
        )


def _in_process(variant: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "scripts.bench.train", "--variant", variant]
    done = subprocess.run(
        [*command, "--folder", str(folder)], stdout=subprocess.PIPE, text=True, check=True
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one variant and measure it."""
    from routing.records import read_conversations
    from scripts.base_model import ensure_base
    from training.recipe import load_recipe
    from training.scoring import ModelDecider
    from training.speed import StopAfter
    from training.train import train

    folder: Path = arguments.folder
    settings = json.loads((folder / "arguments.json").read_text())
    plain = load_recipe(config_path("recipes", settings["recipe"]))
    recipe = plain.model_copy(
        update={
            "processes": 1,
            "threads": plain.processes * plain.threads,
            "max_steps": 100_000,
            "save_every": 100_000,
            # Where a run ends is not known beforehand: no rate may depend on it.
            "schedule": "constant",
        }
    )
    base = ensure_base(recipe.base_model, recipe.revision)
    stop = StopAfter(settings["seconds"])
    output = folder / arguments.variant
    data = folder / f"{arguments.variant}.jsonl"
    checkpoint = train(recipe, base, "bench", data, output, CONFIGS / "deepspeed", [stop])
    assert checkpoint is not None
    decider = ModelDecider.from_checkpoint(checkpoint, base)
    records = list(read_conversations(folder / "validation.jsonl"))
    hits = total = 0
    for record, decisions in zip(records, decider.decide_all(records), strict=True):
        for label, decision in zip(record.decisions, decisions, strict=True):
            total += 1
            likeliest = max(decision.distribution, key=lambda k: decision.distribution[k])
            hits += likeliest in (label.expected or ["none"])
    return {
        "decisions_per_second": stop.figures["decisions_per_second"],
        "tokens_per_second": stop.figures["tokens_per_second"],
        "overhead_share": stop.figures["overhead_share"],
        "decisions_trained": stop.figures["decisions"],
        "steps": stop.steps,
        "accuracy": round(hits / total, 4),
        "validation_decisions": total,
    }


if __name__ == "__main__":
    main()
