"""Pictures: drawn for every file, from figures that the report has."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_data import LOAF, ROUTES, Scripted, line, lines, write_lines
from matplotlib.container import ErrorbarContainer

from training.evaluation import plots
from training.evaluation.report import evaluate, run
from training.evaluation.results import Report
from training.evaluation.rules import FirstRoute

PNG = b"\x89PNG"
SCRIPT = {LOAF[0]: "baking", LOAF[4]: "astronomy", "The tap drips": "plumbing"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    two = line("two", 0, ["Which moon is up?"], ["astronomy"], routes=ROUTES[:2])
    return write_lines(tmp_path / "made up.jsonl", [*lines(), two])


@pytest.fixture
def report(file: Path) -> Report:
    return evaluate([file], [Scripted(SCRIPT, "$cripted$"), FirstRoute()], progress=False)


def test_every_picture_of_every_file_is_written(report: Report, tmp_path: Path) -> None:
    twice = Report([*report.files, *report.files])
    drawn = plots.write_plots(twice, tmp_path / "pictures")
    assert len(drawn) == 2 * len(plots.PICTURES)
    assert {path.name for path in drawn} >= {"made up-reliability.png", "made up-2-reliability.png"}
    assert all(path.read_bytes().startswith(PNG) for path in drawn)


def test_accuracy_by_routes_shows_intervals(report: Report) -> None:
    (axes,) = plots.accuracy_by_routes(report.files[0]).axes
    bars = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    assert [bar.lines[0].get_ydata().tolist() for bar in bars] == [
        [g.accuracy for g in result.metrics.breakdowns["k"]] for result in report.files[0].results
    ]
    assert all(bar.has_yerr for bar in bars)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2\nn = 1", "3\nn = 6"]


def test_reliability_and_risk_coverage_have_a_line_for_each_decider(report: Report) -> None:
    file = report.files[0]
    for draw, measure in ((plots.reliability_diagram, "ECE"), (plots.risk_coverage_curve, "AURC")):
        legend = draw(file).axes[0].get_legend()
        assert legend is not None
        labels = [text.get_text() for text in legend.get_texts()]
        assert [label.split(f", {measure} ")[0] for label in labels] == ["$cripted$", "first-route"]


def test_confusions_name_pairs_and_survive_a_decider_without_errors(file: Path) -> None:
    right = {**SCRIPT, LOAF[2]: "baking"}
    report = evaluate([file], [Scripted(SCRIPT, "one"), Scripted(right, "none")], progress=False)
    one, none = plots.worst_confusions(report.files[0]).axes
    assert [text.get_text() for text in one.get_yticklabels()] == ["baking → none"]
    assert one.get_title(loc="left") == "one: 1 errors"
    assert none.get_title(loc="left") == "none: 0 errors"


def test_markdown_shows_the_pictures_by_relative_paths(file: Path, tmp_path: Path) -> None:
    output = tmp_path / "reports" / "report.md"
    run([file], [FirstRoute()], output, pictures=tmp_path / "pictures")
    text = output.read_text()
    assert "![made up: reliability](../pictures/made%20up-reliability.png)" in text
    assert text.count("![") == len(plots.PICTURES)
