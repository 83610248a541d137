"""A report as tables: one a benchmark, a column for each decider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.evaluation.comparison import Difference
from training.evaluation.metrics import Metrics, Share
from training.evaluation.results import FileReport, Report, Result
from training.evaluation.statistics import Estimate

CONFUSIONS_SHOWN = 5
_ABSENT = "–"


@dataclass(frozen=True)
class Row:
    label: str
    cells: list[str]
    begins_section: bool = False


def rows(file: FileReport) -> list[Row]:
    """All rows of a file's table; shares are in per cent, and times where a label says so."""
    each = [result.metrics for result in file.results]
    first = each[0]
    table = [
        Row("turn accuracy [95%]", [_interval(m.turn_accuracy) for m in each]),
        Row("span accuracy [95%]", [_interval(m.span_accuracy) for m in each]),
        Row("conversation accuracy [95%]", [_interval(m.conversation_accuracy) for m in each]),
        *_differences(file.results),
        Row("none precision (n chosen)", _shares(each, lambda m: m.none_precision), True),
        Row(f"none recall (n = {first.none_recall.n})", _values(each, lambda m: m.none_recall)),
    ]
    if first.several_exact.n:
        n = first.several_exact.n
        table += [
            Row(f"several routes, exact (n = {n})", _values(each, lambda m: m.several_exact), True),
            Row(f"several routes, F1 (n = {n})", _values(each, lambda m: m.several_f1)),
            Row("exact set, all decisions", _values(each, lambda m: m.exact_set)),
        ]
    table += [
        Row("calibration error", [_percent(m.calibration_error) for m in each], True),
        Row("mean confidence", [_percent(m.mean_confidence) for m in each]),
        *_risk_coverage(each),
        *_orders(file.results),
        *_times(file.results),
    ]
    for tag, groups in first.breakdowns.items():
        for number, group in enumerate(groups):
            cells = [_percent(m.breakdowns[tag][number].accuracy) for m in each]
            table.append(Row(f"{tag} = {group.value} (n = {group.n})", cells, number == 0))
    return table


def print_tables(report: Report, console: Console) -> None:
    """Print every file's table, what baselines were fitted to, and the commonest errors."""
    for file in report.files:
        table = Table(title=title(file), title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("per cent")
        for result in file.results:
            table.add_column(escape(result.decider), justify="right")
        for row in rows(file):
            if row.begins_section:
                table.add_section()
            table.add_row(escape(row.label), *map(escape, row.cells))
        console.print(table)
        for line in notes(file):
            console.print(escape(line))
        console.print()


def markdown(report: Report) -> str:
    """The same tables in Markdown."""
    parts: list[str] = ["# Evaluation\n"]
    for file in report.files:
        head = ["per cent", *(_cell(result.decider) for result in file.results)]
        lines = [f"## {title(file)}\n", _line(head), _line(["---", *["---:"] * len(file.results)])]
        lines += [_line([_cell(row.label), *map(_cell, row.cells)]) for row in rows(file)]
        lines += ["", *(f"- {line}" for line in notes(file)), ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def title(file: FileReport) -> str:
    counts = file.results[0].metrics
    cut = f", from the first {file.limit} lines" if file.limit is not None else ""
    return (
        f"{file.benchmark}: {counts.decisions} decisions, {counts.conversations} conversations{cut}"
    )


def notes(file: FileReport) -> list[str]:
    """What a table cannot say: what was fitted, whom a difference is to, the commonest errors."""
    said = [
        f"{r.decider}: {r.note}{' (oracle)' if r.oracle else ''}" for r in file.results if r.note
    ]
    changes = [_change(r.decider, r.difference) for r in file.results if r.difference is not None]
    return [*said, *changes, *filter(None, map(_errors, file.results))]


def _risk_coverage(each: list[Metrics]) -> list[Row]:
    risks = [m.risk_coverage for m in each]
    return [
        Row("risk-coverage area (AURC)", [_percent(r.aurc) for r in risks], True),
        Row("the same, in excess of the best ranking", [_percent(r.excess_aurc) for r in risks]),
        *(
            Row(
                f"coverage at error ≤ {100 * reach.error:g}",
                [_percent(r.at_error[number].coverage) for r in risks],
            )
            for number, reach in enumerate(risks[0].at_error)
        ),
    ]


def _orders(results: list[Result]) -> list[Row]:
    flips = [result.orders for result in results]
    measured = [one for one in flips if one is not None]
    if not measured:
        return []
    first = measured[0]
    return [
        Row(
            f"order flips, {first.orders} orders (n = {first.flip_rate.n}) [95%]",
            [_ABSENT if one is None else _interval(one.flip_rate) for one in flips],
            True,
        ),
        Row(
            "disagreement of two orders [95%]",
            [_ABSENT if one is None else _interval(one.disagreement) for one in flips],
        ),
    ]


def _times(results: list[Result]) -> list[Row]:
    shared = [f"{1000 * result.seconds_per_decision:.1f}" for result in results]
    table = [Row("run time / decisions, ms", shared, True)]
    times = [result.latency for result in results]
    measured = [one for one in times if one is not None]
    if measured:
        median = [_ABSENT if one is None else f"{one.median_ms:.1f}" for one in times]
        p95 = [_ABSENT if one is None else f"{one.p95_ms:.1f}" for one in times]
        table += [
            Row(f"one decision alone, median ms (n = {measured[0].n})", median),
            Row("one decision alone, 95th percentile ms", p95),
        ]
    return table


def _differences(results: list[Result]) -> list[Row]:
    apart = [result.difference for result in results]
    if not any(apart):
        return []
    cells = [_ABSENT if one is None else _signed_interval(one.turn_accuracy) for one in apart]
    return [Row("turn accuracy, difference to the earlier report [95%]", cells)]


def _change(decider: str, apart: Difference) -> str:
    then = _percent(apart.earlier_turn_accuracy)
    kind = (
        f"paired, {apart.gained} decisions gained and {apart.lost} lost"
        if apart.paired
        else "unpaired, since the earlier report holds no outcomes"
    )
    return f"{decider}, difference to {apart.earlier} ({then} then): {kind}"


def _errors(result: Result) -> str:
    worst = result.metrics.confusions[:CONFUSIONS_SHOWN]
    pairs = ", ".join(f"{c.expected} → {c.chosen} ({c.count})" for c in worst)
    return f"{result.decider}, commonest errors: {pairs}" if pairs else ""


def _shares(each: list[Metrics], pick: Callable[[Metrics], Share]) -> list[str]:
    return [f"{_percent(pick(m).value)} ({pick(m).n})" for m in each]


def _values(each: list[Metrics], pick: Callable[[Metrics], Share]) -> list[str]:
    return [_percent(pick(m).value) for m in each]


def _interval(estimate: Estimate) -> str:
    low, high = _percent(estimate.low), _percent(estimate.high)
    return f"{_percent(estimate.value)} [{low}, {high}]"


def _signed_interval(estimate: Estimate) -> str:
    value, low, high = (f"{100 * v:+.1f}" for v in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def _percent(value: float | None) -> str:
    return _ABSENT if value is None else f"{100 * value:.1f}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
