"""Pictures of a report: one function a picture, each of one file with all its deciders."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from training.evaluation.deciders import EvaluationError
from training.evaluation.results import FileReport, Report
from training.evaluation.risk_coverage import curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAIRS_SHOWN = 12
"""Confusions of each decider in a picture."""
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Those of Okabe and Ito, which people with colour-vision deficiency tell apart."""
_GREY = "#999999"
_LONGEST_LABEL = 48
_DPI = 110


def accuracy_by_routes(file: FileReport) -> Figure:
    """Turn accuracy by the number of routes offered, with 95% bootstrap intervals."""
    figure, axes = _axes("number of routes", "turn accuracy")
    deciders = len(file.results)
    for number, result in enumerate(file.results):
        groups = result.metrics.breakdowns["k"]
        values = np.array([group.accuracy for group in groups])
        low, high = (np.array([getattr(g, end) for g in groups]) for end in ("low", "high"))
        # Side by side, since intervals on one another cannot be read.
        places = np.arange(len(groups)) + 0.08 * (number - (deciders - 1) / 2)
        # A percentile interval may by a rounding error not hold its value.
        reach = np.maximum(0, [values - low, high - values])
        axes.errorbar(
            places,
            values,
            yerr=reach,
            fmt="o-",
            capsize=3,
            linewidth=1,
            color=_colour(number),
            label=_short(result.decider),
        )
    groups = file.results[0].metrics.breakdowns["k"]
    axes.set_xticks(range(len(groups)), [f"{group.value}\nn = {group.n}" for group in groups])
    return _finished(figure, axes)


def reliability_diagram(file: FileReport) -> Figure:
    """Turn accuracy against mean confidence, a point a bin; its area tells how many decisions."""
    figure, axes = _axes("mean confidence", "turn accuracy")
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--")
    axes.set_xlim(0, 1.03)
    for number, result in enumerate(file.results):
        metrics = result.metrics
        confidence = [one.confidence for one in metrics.reliability]
        accuracy = [one.accuracy for one in metrics.reliability]
        area = [8 + 200 * one.n / metrics.decisions for one in metrics.reliability]
        label = f"{_short(result.decider)}, ECE {100 * metrics.calibration_error:.1f}%"
        axes.plot(confidence, accuracy, color=_colour(number), linewidth=1, label=label)
        axes.scatter(confidence, accuracy, s=area, color=_colour(number), alpha=0.6)
    return _finished(figure, axes)


def risk_coverage_curve(file: FileReport) -> Figure:
    """Share of errors among the most confident decisions, by the share of decisions kept."""
    figure, axes = _axes("coverage", "error among the kept")
    axes.set_xlim(0, 1.03)
    for number, result in enumerate(file.results):
        points = curve(
            [outcome.decision.confidence for outcome in result.outcomes],
            [outcome.correct for outcome in result.outcomes],
        )
        area = result.metrics.risk_coverage.aurc
        axes.plot(
            points.coverage,
            points.error,
            # A decider of one confidence has a single point, which a line would not show.
            marker="o" if len(points.coverage) == 1 else None,
            color=_colour(number),
            linewidth=1.2,
            label=f"{_short(result.decider)}, AURC {100 * area:.1f}%",
        )
    return _finished(figure, axes)


def worst_confusions(file: FileReport) -> Figure:
    """The commonest wrong pairs, expected → chosen, of each decider below each other."""
    from matplotlib.figure import Figure

    shown = [result.metrics.confusions[:PAIRS_SHOWN] for result in file.results]
    heights = [max(len(pairs), 1) + 2 for pairs in shown]
    figure = Figure(figsize=(8, 0.24 * sum(heights) + 0.4))
    panels = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for number, (axes, result, pairs) in enumerate(zip(panels, file.results, shown, strict=True)):
        labels = [f"{_short(pair.expected)} → {_short(pair.chosen)}" for pair in pairs]
        places = range(len(pairs))
        axes.barh(places, [pair.count for pair in pairs], color=_colour(number))
        axes.set_yticks(places, labels)
        axes.invert_yaxis()
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(labelsize=7)
        wrong = sum(not outcome.correct for outcome in result.outcomes)
        axes.set_title(f"{_short(result.decider)}: {wrong} errors", fontsize=9, loc="left")
    figure.tight_layout()
    return figure


PICTURES: dict[str, tuple[str, Callable[[FileReport], Figure]]] = {
    "accuracy-by-routes": ("turn accuracy by number of routes", accuracy_by_routes),
    "reliability": ("reliability", reliability_diagram),
    "risk-coverage": ("risk and coverage", risk_coverage_curve),
    "confusions": ("commonest errors", worst_confusions),
}
"""File name and title of each picture, with what draws it."""


def check_available() -> None:
    """Raises EvaluationError where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise EvaluationError("pictures need matplotlib, which the extra `train` brings")


def write_plots(report: Report, folder: Path) -> dict[Path, str]:
    """Draw all pictures of all files as PNG into a folder; returns paths with titles."""
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[Path, str] = {}
    for number, file in enumerate(report.files):
        earlier = [other.benchmark for other in report.files[:number]]
        # Files of one name in two folders must not overwrite each other's pictures.
        name = f"{file.benchmark}-{number + 1}" if file.benchmark in earlier else file.benchmark
        for kind, (title, draw) in PICTURES.items():
            # Names of routes and deciders may hold dollars, which are no formulas.
            with rc_context({"text.parse_math": False}):
                path = folder / f"{name}-{kind}.png"
                draw(file).savefig(path, dpi=_DPI, metadata={"Software": None})
            drawn[path] = f"{file.benchmark}: {title}"
    return drawn


def gallery(pictures: Mapping[Path, str], folder: Path) -> str:
    """Markdown that shows the pictures, by their paths from a folder."""
    lines = ["## Pictures\n"]
    for path, title in pictures.items():
        place = quote(Path(os.path.relpath(path, folder)).as_posix())
        lines.append(f"![{title}]({place})\n")
    return "\n".join(lines)


def _axes(across: str, up: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4))
    axes = figure.subplots()
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    axes.set_ylim(0, 1.03)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    return figure, axes


def _finished(figure: Figure, axes: Axes) -> Figure:
    axes.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    return figure


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"
