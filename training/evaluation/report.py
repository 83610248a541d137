"""Running deciders over benchmark files, and the report that comes of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from training.evaluation.benchmark import Benchmark, read_benchmark, without_answers
from training.evaluation.deciders import (
    Decider,
    EvaluationError,
    OracleFitted,
    check_decisions,
)
from training.evaluation.metrics import Metrics, Outcome, measure, outcomes_of

FORMAT = 1
_END = object()


@dataclass(frozen=True)
class Result:
    """One decider on one benchmark."""

    decider: str
    note: str | None
    """What was fitted on this very file, for an oracle baseline."""
    metrics: Metrics
    seconds: float
    """Wall time of all decisions, without reading, fitting and measuring."""
    outcomes: list[Outcome]

    @property
    def seconds_per_decision(self) -> float:
        return self.seconds / self.metrics.decisions

    def headline(self) -> dict[str, Any]:
        m = self.metrics
        return {
            "decider": self.decider,
            "turn_accuracy": round(m.turn_accuracy.value, 4),
            "span_accuracy": round(m.span_accuracy.value, 4),
            "conversation_accuracy": round(m.conversation_accuracy.value, 4),
            "none_precision": _rounded(m.none_precision.value),
            "none_recall": _rounded(m.none_recall.value),
            "calibration_error": round(m.calibration_error, 4),
            "decisions": m.decisions,
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "decider": self.decider,
            "note": self.note,
            "seconds_per_decision": self.seconds_per_decision,
            "metrics": self.metrics.to_json(),
        }


@dataclass(frozen=True)
class FileReport:
    """All deciders on one benchmark."""

    benchmark: str
    sha256: str
    limit: int | None
    results: list[Result]

    def to_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "sha256": self.sha256,
            "limit": self.limit,
            "results": [result.to_json() for result in self.results],
        }


@dataclass(frozen=True)
class Report:
    """All deciders on all benchmarks."""

    files: list[FileReport]

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "files": [file.to_json() for file in self.files]}

    def headlines(self) -> list[dict[str, Any]]:
        """The main figures, one flat object for each decider and file."""
        return [
            {"benchmark": file.benchmark, **result.headline()}
            for file in self.files
            for result in file.results
        ]


def evaluate(
    files: Sequence[Path],
    deciders: Sequence[Decider],
    limit: int | None = None,
    progress: bool = True,
) -> Report:
    """Measure every decider on every file.

    All files are read before the first decision, so that a malformed line costs no waiting. Raises
    InvalidRecord for a bad file and EvaluationError for a decider that cannot be measured.
    """
    if not files or not deciders:
        raise EvaluationError("nothing to evaluate: give at least one file and one decider")
    names = [decider.name for decider in deciders]
    if len(set(names)) < len(names):
        raise EvaluationError(f"deciders must differ in name: {', '.join(names)}")
    benchmarks = [read_benchmark(file, limit) for file in files]
    reports: list[FileReport] = []
    with _progress(progress) as track:
        for benchmark in benchmarks:
            results = [_run(decider, benchmark, track) for decider in deciders]
            reports.append(FileReport(benchmark.name, benchmark.sha256, limit, results))
    return Report(reports)


def write(report: Report, output: Path) -> None:
    """Write a report as JSON, or as Markdown where the name ends in .md."""
    if output.suffix == ".md":
        from training.evaluation.tables import markdown

        text = markdown(report)
    else:
        text = json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")


def run(
    files: Sequence[Path],
    deciders: Sequence[Decider],
    output: Path | None = None,
    limit: int | None = None,
) -> None:
    """What `pointsman eval` does: evaluate, print tables, write a report.

    With `output`, the last lines on standard output are JSON, one for each decider and file.
    """
    from training.evaluation.tables import print_tables

    report = evaluate(files, deciders, limit)
    console = Console()
    if not console.is_terminal:
        # A file or a pipe has no width: let no cell wrap.
        console = Console(width=40 + 30 * len(deciders))
    print_tables(report, console)
    if output is not None:
        write(report, output)
        for headline in report.headlines():
            print(json.dumps(headline, ensure_ascii=False))


Track = Callable[[str, int], Callable[[int], None]]
"""Begins a task of so many decisions and returns what advances it."""


def _run(decider: Decider, benchmark: Benchmark, track: Track) -> Result:
    advance = track(f"{benchmark.name}: {decider.name}", benchmark.decisions)
    note: str | None = None
    if isinstance(decider, OracleFitted):
        decider.fit(benchmark.conversations)
        note = decider.fitted
    outcomes: list[Outcome] = []
    start = time.perf_counter()
    answers = decider.decide_all(map(without_answers, benchmark.conversations))
    for conversation in benchmark.conversations:
        decisions = next(answers, None)
        if decisions is None:
            raise EvaluationError(f"{decider.name}: stopped before conversation {conversation.id}")
        check_decisions(decider.name, conversation, decisions)
        outcomes += outcomes_of(conversation, decisions)
        advance(len(decisions))
    seconds = time.perf_counter() - start
    if next(iter(answers), _END) is not _END:
        raise EvaluationError(f"{decider.name}: answered more conversations than it was given")
    return Result(decider.name, note, measure(outcomes), seconds, outcomes)


@contextmanager
def _progress(shown: bool) -> Iterator[Track]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not shown) as bar:

        def track(label: str, total: int) -> Callable[[int], None]:
            task = bar.add_task(label, total=total)
            return lambda count: bar.advance(task, count)

        yield track


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
