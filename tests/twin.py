"""Training a recipe's tiny twin by the command, with all its processes."""

from __future__ import annotations

from pathlib import Path

import forked
from routing_data import records


def write_data(folder: Path, count: int = 40) -> Path:
    """A data folder with one training shard."""
    (folder / "train").mkdir(parents=True)
    lines = "".join(record.model_dump_json() + "\n" for record in records(count))
    (folder / "train" / "00000.jsonl").write_text(lines)
    return folder


def train_twin(recipe: str, data: Path, output: Path, *values: str) -> None:
    """Run `pointsman train RECIPE --with tiny`; `values` are those of --set."""
    arguments = ["train", recipe, "--with", "tiny", "--data", str(data), "--output", str(output)]
    for value in values:
        arguments += ["--set", value]
    forked.command(arguments, 2, output.with_suffix(".log"), timeout=250)
