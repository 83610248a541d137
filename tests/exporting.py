"""The export command on a tiny adapter, for tests with vLLM and without."""

from __future__ import annotations

import shutil
from pathlib import Path

import typer.testing
from routing_data import records
from tiny import TinyCheckpoint, make_checkpoint

from scripts.cli import app


def exportable(folder: Path) -> TinyCheckpoint:
    """An adapter whose base has a whole tokenizer."""
    made = make_checkpoint(folder, weights="adapter", layout_version=2, lines="mean")
    assert made.base is not None
    shutil.copyfile(made.folder / "tokenizer_config.json", made.base / "tokenizer_config.json")
    return made


def write_examples(path: Path) -> Path:
    """Conversations with 24 decisions."""
    path.write_text("".join(record.model_dump_json() + "\n" for record in records(8)))
    return path


def export_by_command(adapter: TinyCheckpoint, folder: Path) -> str:
    """What the command prints; it must succeed."""
    examples = write_examples(folder / "examples.jsonl")
    arguments = ["export", str(adapter.folder), "--output", str(folder / "out")]
    arguments += ["--examples", str(examples), "--base", str(adapter.base)]
    done = typer.testing.CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.output
