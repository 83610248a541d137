"""Running deciders over benchmark files, and the report that comes of it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from routing.decision import Decision
from training.evaluation import plots
from training.evaluation.benchmark import Benchmark, read_benchmark
from training.evaluation.comparison import difference, earlier_file, earlier_result
from training.evaluation.deciders import Decider, EvaluationError, Noting, OracleFitted, checked
from training.evaluation.latency import Latency, measure_latency
from training.evaluation.metrics import measure
from training.evaluation.orders import OrderFlips, measure_orders
from training.evaluation.outcomes import Outcome, outcomes_of
from training.evaluation.results import FileReport, Report, Result
from training.evaluation.stored import StoredFile, json_text, read_report
from training.evaluation.tables import markdown, print_tables


@dataclass(frozen=True)
class Extras:
    """What is measured beside accuracy. Each costs more decisions, so each is off unless asked for.

    Raises EvaluationError for a count that measures nothing.
    """

    orders: int = 0
    """Orders of the routes in which each conversation is decided; 0 measures no flips."""
    orders_limit: int | None = None
    """First conversations of each file that are decided in several orders; None takes all."""
    latency: int = 0
    """Conversations of each file of which one decision is timed; 0 times none."""
    compare: Path | None = None
    """An earlier report in JSON, whose turn accuracies are subtracted."""

    def __post_init__(self) -> None:
        if self.orders == 1 or self.orders < 0:
            raise EvaluationError("order flips need at least two orders; 0 measures none")
        if self.orders_limit is not None and self.orders_limit < 1:
            raise EvaluationError("order flips need at least one conversation")
        if self.latency < 0:
            raise EvaluationError("latency needs a number of conversations; 0 measures none")


def evaluate(
    files: Sequence[Path],
    deciders: Sequence[Decider],
    limit: int | None = None,
    progress: bool = True,
    extras: Extras | None = None,
) -> Report:
    """Measure every decider on every file.

    All files, an earlier report among them, are read before the first decision, so that a malformed
    one costs no waiting. Raises InvalidRecord for a bad file and EvaluationError for a decider that
    cannot be measured or an earlier report that cannot be compared with.
    """
    extras = extras or Extras()
    if not files or not deciders:
        raise EvaluationError("nothing to evaluate: give at least one file and one decider")
    names = [decider.name for decider in deciders]
    if len(set(names)) < len(names):
        raise EvaluationError(f"deciders must differ in name: {', '.join(names)}")
    benchmarks = [read_benchmark(file, limit) for file in files]
    earlier = _earlier(extras.compare, benchmarks, limit)
    reports: list[FileReport] = []
    with _progress(progress) as track:
        for benchmark in benchmarks:
            results = [_run(decider, benchmark, extras, track) for decider in deciders]
            if benchmark.sha256 in earlier:
                results = _compared(results, earlier[benchmark.sha256])
            reports.append(FileReport(benchmark.name, benchmark.sha256, limit, results))
    return Report(reports)


def write(report: Report, output: Path, pictures: Mapping[Path, str] | None = None) -> None:
    """Write a report as JSON, or as Markdown where the name ends in .md.

    Markdown shows `pictures`, files with their titles, by paths from the report's folder.
    """
    if output.suffix == ".md":
        text = markdown(report)
        if pictures:
            text += "\n" + plots.gallery(pictures, output.parent)
    else:
        text = json_text(report.to_json()) + "\n"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")


def run(
    files: Sequence[Path],
    deciders: Sequence[Decider],
    output: Path | None = None,
    limit: int | None = None,
    extras: Extras | None = None,
    pictures: Path | None = None,
) -> None:
    """What `pointsman eval` does: evaluate, print tables, draw `pictures`, write a report.

    With `output`, the last lines on standard output are JSON, one for each decider and file.
    """
    if pictures is not None:
        plots.check_available()
    report = evaluate(files, deciders, limit, extras=extras)
    console = Console()
    if not console.is_terminal:
        # A file or a pipe has no width: let no cell wrap.
        console = Console(width=60 + 30 * len(deciders))
    print_tables(report, console)
    if output is not None:
        # Before anything is drawn, so that a long run is not lost with a picture.
        write(report, output)
    drawn = plots.write_plots(report, pictures) if pictures is not None else {}
    if output is not None:
        write(report, output, drawn)
        for headline in report.headlines():
            print(json.dumps(headline, ensure_ascii=False))


Track = Callable[[str, int], Callable[[int], None]]
"""Begins a task of so many decisions and returns what advances it."""


def _run(decider: Decider, benchmark: Benchmark, extras: Extras, track: Track) -> Result:
    conversations = benchmark.conversations
    oracle = isinstance(decider, OracleFitted)
    notes: list[str | None] = []
    if isinstance(decider, OracleFitted):
        decider.fit(conversations)
        notes.append(decider.fitted)
    # Before the run, so that a server does not yet know the conversations that are timed.
    latency = _latency(decider, benchmark, extras.latency)
    if isinstance(decider, Noting):
        decider.take_note()
    advance = track(f"{benchmark.name}: {decider.name}", benchmark.decisions)
    decided: list[list[Decision]] = []
    outcomes: list[Outcome] = []
    start = time.perf_counter()
    for conversation, decisions in zip(conversations, checked(decider, conversations), strict=True):
        decided.append(decisions)
        outcomes += outcomes_of(conversation, decisions)
        advance(len(decisions))
    seconds = time.perf_counter() - start
    if isinstance(decider, Noting):
        notes.append(decider.take_note())
    return Result(
        decider=decider.name,
        note="; ".join(filter(None, notes)) or None,
        metrics=measure(outcomes),
        seconds=seconds,
        outcomes=outcomes,
        oracle=oracle,
        orders=_orders(decider, benchmark, decided, extras, track),
        latency=latency,
    )


def _latency(decider: Decider, benchmark: Benchmark, count: int) -> Latency | None:
    return measure_latency(decider, benchmark.conversations, count) if count else None


def _orders(
    decider: Decider,
    benchmark: Benchmark,
    decided: list[list[Decision]],
    extras: Extras,
    track: Track,
) -> OrderFlips | None:
    if not extras.orders:
        return None
    conversations = benchmark.conversations[: extras.orders_limit]
    further = (extras.orders - 1) * sum(len(record.decisions) for record in conversations)
    advance = track(f"{benchmark.name}: {decider.name}, other orders", further)
    return measure_orders(decider, conversations, decided, extras.orders, advance)


def _earlier(
    path: Path | None, benchmarks: Sequence[Benchmark], limit: int | None
) -> dict[str, StoredFile]:
    """The parts of an earlier report by SHA-256 of the file."""
    if path is None:
        return {}
    report = read_report(path)
    return {b.sha256: earlier_file(report, b, limit) for b in benchmarks}


def _compared(results: Sequence[Result], file: StoredFile) -> list[Result]:
    compared: list[Result] = []
    for number, result in enumerate(results):
        earlier = earlier_result(file, result.decider, first=number == 0)
        if earlier is not None:
            apart = difference(result.outcomes, result.metrics.turn_accuracy, earlier)
            result = dataclasses.replace(result, difference=apart)
        compared.append(result)
    return compared


@contextmanager
def _progress(shown: bool) -> Iterator[Track]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not shown) as bar:

        def track(label: str, total: int) -> Callable[[int], None]:
            task = bar.add_task(label, total=total)
            return lambda count: bar.advance(task, count)

        yield track
