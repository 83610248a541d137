"""Training a recipe's tiny twin by the command, with all its processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import forked
from routing_data import records

ROOT = Path(__file__).resolve().parents[1]


def write_data(folder: Path, count: int = 40) -> Path:
    """A data folder with one training shard."""
    (folder / "train").mkdir(parents=True)
    lines = "".join(record.model_dump_json() + "\n" for record in records(count))
    (folder / "train" / "00000.jsonl").write_text(lines)
    return folder


def train_twin(recipe: str, data: Path, output: Path, *values: str) -> None:
    """Run `pointsman train RECIPE --with tiny`, as a user would; `values` are those of --set."""
    command = [sys.executable, "-m", "scripts.cli", *_arguments(recipe, data, output, values)]
    # A test's own launcher must not be taken for this run's.
    env = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, env=env)
    assert done.returncode == 0, done.stderr[-3000:]


def train_twin_forked(recipe: str, data: Path, output: Path, *values: str) -> None:
    """The same run by two processes that are forked, not launched by torchrun."""
    forked.command(
        _arguments(recipe, data, output, values), 2, output.with_suffix(".log"), timeout=250
    )


def _arguments(recipe: str, data: Path, output: Path, values: Sequence[str]) -> list[str]:
    arguments = ["train", recipe, "--with", "tiny", "--data", str(data), "--output", str(output)]
    for value in values:
        arguments += ["--set", value]
    return arguments
