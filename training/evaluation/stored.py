"""Reports on disk: written so that a person can read them, and read again for a comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.evaluation.deciders import EvaluationError
from training.evaluation.statistics import Estimate

READABLE = (1, 2)
"""Formats of reports that can be compared with; 1 holds no outcomes."""


class _Stored(BaseModel):
    # A report holds much that a comparison does not need.
    model_config = ConfigDict(extra="ignore", frozen=True)


class StoredOutcome(_Stored):
    """One decision of an earlier run."""

    conversation: str
    turn: int | None
    expected: list[str]
    chosen: str | None
    correct: bool
    confidence: float


class StoredMetrics(_Stored):
    turn_accuracy: Estimate


class StoredResult(_Stored):
    """One decider of an earlier run; `outcomes` is None in format 1."""

    decider: str
    metrics: StoredMetrics
    outcomes: list[StoredOutcome] | None = None

    @property
    def turn_accuracy(self) -> Estimate:
        return self.metrics.turn_accuracy


class StoredFile(_Stored):
    """All deciders of an earlier run on one benchmark."""

    benchmark: str
    sha256: str
    limit: int | None
    results: list[StoredResult]


class StoredReport(_Stored):
    """An earlier run; `name` is that of the file it was read from."""

    format: int
    files: list[StoredFile]
    name: str = Field(default="", exclude=True)


def read_report(path: Path) -> StoredReport:
    """A report that `pointsman eval --output report.json` wrote; EvaluationError for all else."""
    try:
        loaded: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EvaluationError(f"cannot read the report {path}: {error}") from None
    if not isinstance(loaded, dict) or loaded.get("format") not in READABLE:
        formats = " or ".join(map(str, READABLE))
        raise EvaluationError(f"{path} is no JSON report of `pointsman eval` of format {formats}")
    try:
        return StoredReport.model_validate({**loaded, "name": path.name})
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise EvaluationError(f"{path}: {at}: {first['msg']}") from None


def json_text(value: Any, indent: str = "") -> str:
    """JSON with one line for each object that holds no other, as an outcome or an interval."""
    parts = list(value.values()) if isinstance(value, dict) else value
    if not _has_object(parts):
        return json.dumps(value, ensure_ascii=False)
    deeper = indent + " "
    if isinstance(value, dict):
        inside = [
            f"{json.dumps(key, ensure_ascii=False)}: {json_text(part, deeper)}"
            for key, part in value.items()
        ]
        opening, closing = "{", "}"
    else:
        inside = [json_text(part, deeper) for part in value]
        opening, closing = "[", "]"
    lines = ",\n".join(f"{deeper}{line}" for line in inside)
    return f"{opening}\n{lines}\n{indent}{closing}"


def _has_object(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_has_object, value)))
