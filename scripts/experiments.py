"""Rows of training runs that are to be compared: made, measured, and written as a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from routing.errors import InvalidRecord
from scripts.places import ROOT

FIRST, LAST = "<!-- experiments {name}: written by `pointsman experiments` -->", "<!-- end -->"


class Row(BaseModel):
    """One training run, or another way to measure one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    data: str
    """Data recipe."""
    recipe: str
    """Training recipe."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Values of the training recipe that this row has otherwise."""
    method: str | None = None
    """What the table says of the method; left out, recipe and values."""
    run_of: str | None = None
    """Another row, whose checkpoint is measured in place of one of its own."""
    measure: dict[str, Any] = Field(default_factory=dict)
    """Options of `pointsman eval` for this row, by name; false stands for `--no-…`."""


class Experiments(BaseModel):
    """Rows that are to be compared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    rows: list[Row]
    limits: dict[str, int] = Field(default_factory=dict)
    """First lines to measure on, by the file's name without its ending; all where none is said."""

    @model_validator(mode="after")
    def _runs_exist(self) -> Self:
        trained = {row.name for row in self.rows if row.run_of is None}
        for index, row in enumerate(self.rows):
            if row.run_of is not None and row.run_of not in trained:
                raise ValueError(f"rows[{index}].run_of: no row {row.run_of!r} is trained")
        return self


def run_experiments(
    chosen: Experiments,
    files: list[Path],
    folder: Path,
    corpora: Path | None = None,
    into: Path | None = None,
) -> str:
    """Make what is missing under `folder`, and return the table; see `pointsman experiments`."""
    for row in chosen.rows:
        _run_row(row, chosen, folder, files, corpora)
    table = table_of(chosen, folder, [file.stem for file in files])
    if into is not None:
        replace_table(into, chosen.name, table)
    return table


def table_of(chosen: Experiments, folder: Path, benchmarks: list[str]) -> str:
    """Markdown: turn accuracy in per cent with 95% intervals, a row a run, and the plain mean."""
    head = ["data", "method", "tokens", *benchmarks, "mean"]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for row in chosen.rows:
        training = _training_of(_run_folder(row, folder))
        estimates = [_estimate(folder / row.name / f"{each}.json") for each in benchmarks]
        mean = sum(value for value, _, _ in estimates) / len(estimates)
        cells = [row.name, _method(row), training]
        cells += [f"{100 * v:.1f} [{100 * a:.1f}, {100 * b:.1f}]" for v, a, b in estimates]
        lines.append(" | ".join([*cells, f"{100 * mean:.1f}"]))
    return "\n".join(f"| {line} |" for line in lines)


def replace_table(path: Path, name: str, table: str) -> None:
    """Put a table between its marks in a Markdown file; raises InvalidRecord without marks."""
    text = path.read_text(encoding="utf-8")
    first = FIRST.format(name=name)
    before, mark, rest = text.partition(first)
    _, end, after = rest.partition(LAST)
    if not mark or not end:
        raise InvalidRecord(f"{path} has no marks: {first} and {LAST}")
    path.write_text(f"{before}{first}\n{table}\n{LAST}{after}", encoding="utf-8")


def load_experiments(path: Path) -> Experiments:
    """Rows from YAML; raises InvalidRecord with file and field."""
    try:
        return Experiments.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise InvalidRecord(f"cannot read {path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InvalidRecord(f"{path}: {field}: {first['msg']}") from None


def _run_row(
    row: Row, chosen: Experiments, folder: Path, files: list[Path], corpora: Path | None
) -> None:
    reports = {file: folder / row.name / f"{file.stem}.json" for file in files}
    missing = [file for file, report in reports.items() if not report.is_file()]
    run = _run_folder(row, folder)
    if missing and not (run / "checkpoint" / "manifest.json").is_file():
        data = ROOT / "data" / row.data
        if not (data / "dataset.json").is_file():
            against = [part for file in files for part in ("--against", str(file))]
            sources = ["--corpora", str(corpora)] if corpora else []
            _pointsman("data", "make", row.data, "--output", str(data), *sources, *against)
        values = {"name": f"pointsman-{row.name.replace(' ', '-')}", **row.set}
        overrides = [part for k, v in values.items() for part in ("--set", f"{k}={json.dumps(v)}")]
        _pointsman("train", row.recipe, "--data", str(data), "--output", str(run), *overrides)
    (folder / row.name).mkdir(parents=True, exist_ok=True)

    def measure(file: Path) -> None:
        limit = chosen.limits.get(file.stem)
        options = ["--limit", str(limit)] if limit else []
        options += [part for name, value in row.measure.items() for part in _option(name, value)]
        report = ["--output", str(reports[file])]
        checkpoint = ["--checkpoint", str(run / "checkpoint")]
        _pointsman("eval", str(file), *checkpoint, *options, *report, threads=1)

    # A second thread gains little with small models: a core each, as many files at a time.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(measure, missing))


def _run_folder(row: Row, folder: Path) -> Path:
    return folder / (row.run_of or row.name) / "run"


def _option(name: str, value: Any) -> list[str]:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", str(value)]


def _pointsman(*arguments: str, threads: int | None = None) -> None:
    """Another command of this program, in a process of its own: each frees what it used."""
    own = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "scripts.cli", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, **own})


def _estimate(report: Path) -> tuple[float, float, float]:
    from training.evaluation.stored import read_report

    found = read_report(report).files[0].results[0].turn_accuracy
    return found.value, found.low, found.high


def _training_of(run: Path) -> str:
    """Tokens that a run was trained on, as its checkpoint says."""
    manifest = run / "checkpoint" / "manifest.json"
    if not manifest.is_file():
        return ""
    found = json.loads(manifest.read_text(encoding="utf-8"))["provenance"]["training"]
    tokens = found.get("trained_tokens")
    return "" if tokens is None else f"{int(tokens):,}"


def _method(row: Row) -> str:
    if row.method is not None:
        return row.method
    said = ", ".join(f"{key} {value}" for key, value in row.set.items())
    return f"{row.recipe}, {said}" if said else row.recipe
