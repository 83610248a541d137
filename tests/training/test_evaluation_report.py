"""Deciders through `evaluate` and `run`, and what is reported of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from evaluation_data import LOAF, Scripted, decision, lines, write_lines

from routing.decision import Decision
from routing.records import ConversationRecord
from training.card import read_report, results_table
from training.evaluation.deciders import EvaluationError
from training.evaluation.report import Extras, evaluate, run, write
from training.evaluation.rules import FirstRoute, RandomRoute, WordOverlap


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "made_up.jsonl", lines())


# Wrong: the crust (baking), and the song (nothing fits).
SCRIPT = {
    LOAF[0]: "baking",
    LOAF[2]: "plumbing",
    LOAF[4]: "astronomy",
    "The tap drips": "plumbing",
    "Sing me a song": "astronomy",
}


def test_a_decider_is_measured(file: Path) -> None:
    decider = Scripted(SCRIPT)
    report = evaluate([file], [decider], progress=False)
    (result,) = report.files[0].results
    metrics = result.metrics
    assert metrics.turn_accuracy.value == pytest.approx(4 / 6)
    assert metrics.span_accuracy.value == pytest.approx(3 / 5)
    assert metrics.conversation_accuracy.value == pytest.approx(1 / 3)
    assert metrics.none_precision.value == 1
    assert metrics.none_recall.value == 1 / 2
    assert result.seconds_per_decision > 0
    assert [len(record.decisions) for record in decider.seen] == [3, 2, 1]
    assert all(label.expected == [] for record in decider.seen for label in record.decisions)


class Misbehaving:
    """Gives the same list for every conversation, some of them, or one too many."""

    name = "misbehaving"

    def __init__(self, answers: Sequence[list[Decision]]) -> None:
        self._answers = answers

    def decide_all(self, conversations: Iterable[ConversationRecord]) -> Iterator[list[Decision]]:
        return iter(self._answers)


A = decision("baking")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([[A, A]], "conversation 'loaf': 2 decisions for 3"),
        ([[A, A, A]], "stopped before conversation tap"),
        ([[A, A, A], [A, A], [A], [A]], "more conversations"),
        ([[A, A, decision("gardening")]], "'gardening', which is not among the routes"),
        ([[A, A, decision("baking", float("nan"))]], "no probability"),
        ([[A, A, decision("baking", 1.5)]], "no probability"),
    ],
)
def test_nonsense_is_an_error_not_a_figure(
    file: Path, answers: list[list[Decision]], said: str
) -> None:
    with pytest.raises(EvaluationError, match=said):
        evaluate([file], [Misbehaving(answers)], progress=False)


def test_nothing_to_evaluate_and_equal_names_are_refused(file: Path) -> None:
    with pytest.raises(EvaluationError, match="at least one"):
        evaluate([], [FirstRoute()], progress=False)
    with pytest.raises(EvaluationError, match="differ in name"):
        evaluate([file], [FirstRoute(), FirstRoute()], progress=False)


def test_run_prints_a_table_and_ends_with_json(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "report.json"
    run([file], [Scripted(SCRIPT), FirstRoute()], output, limit=4)
    printed = capsys.readouterr().out
    assert "made_up: 5 decisions, 2 conversations, from the first 4 lines" in printed
    assert "80.0 [" in printed
    assert "k = 3 (n = 5)" in printed
    last = [json.loads(text) for text in printed.splitlines()[-2:]]
    assert [(h["decider"], h["turn_accuracy"]) for h in last] == [
        ("scripted", 0.8),
        ("first-route", 0.4),
    ]
    written = json.loads(output.read_text())
    (entry,) = written["files"]
    assert (entry["benchmark"], entry["limit"], len(entry["sha256"])) == ("made_up", 4, 64)
    assert entry["results"][0]["metrics"]["turn_accuracy"]["value"] == pytest.approx(4 / 5)


def test_markdown_has_a_column_for_each_decider(file: Path, tmp_path: Path) -> None:
    report = evaluate([file], [Scripted(SCRIPT, "a|b"), FirstRoute()], progress=False)
    write(report, tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert "| per cent | a\\|b | first-route |" in text
    assert "| none recall (n = 2) | 50.0 | 0.0 |" in text
    assert "commonest errors: baking → plumbing (1), none → astronomy (1)" in text


def test_everything_measured_is_in_both_reports(file: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.json"
    write(evaluate([file], [Scripted(SCRIPT)], progress=False), earlier)
    extras = Extras(orders=3, orders_limit=2, latency=1, compare=earlier)
    deciders = [Scripted({**SCRIPT, LOAF[2]: "baking"}), WordOverlap()]
    report = evaluate([file], deciders, progress=False, extras=extras)
    write(report, tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    # Five decisions of the first two conversations were decided in three orders.
    assert "| order flips, 3 orders (n = 5) [95%] | 0.0 [0.0, 0.0] |" in text
    assert "| disagreement of two orders [95%] | 0.0 [0.0, 0.0] |" in text
    assert "| one decision alone, median ms (n = 1) |" in text
    assert "earlier report [95%] | +16.7 [+0.0, +33.3] | – |" in text
    assert "scripted, difference to scripted (66.7 then): paired, 1 decisions gained" in text
    assert "| coverage at error ≤ 20 | 100.0 |" in text
    assert "| risk-coverage area (AURC) |" in text
    result, _ = report.to_json()["files"][0]["results"]
    assert result["orders"]["flip_rate"]["n"] == 5
    assert set(result["latency"]) == {"n", "median_ms", "p95_ms"}
    assert result["difference"]["gained"] == 1
    assert len(result["metrics"]["reliability"]) == 1
    assert [reach["error"] for reach in result["metrics"]["risk_coverage"]["at_error"]] == [
        0.05,
        0.1,
        0.2,
    ]
    headline, other = report.headlines()
    assert (headline["flip_rate"], headline["turn_accuracy_difference"]) == (0, 0.1667)
    assert "turn_accuracy_difference" not in other


def test_what_was_not_measured_has_no_row(file: Path, tmp_path: Path) -> None:
    write(evaluate([file], [FirstRoute()], progress=False), tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert not any(word in text for word in ("flips", "median ms", "difference"))
    assert "| run time / decisions, ms |" in text


def test_a_card_reads_reports_of_today(file: Path, tmp_path: Path) -> None:
    write(evaluate([file], [FirstRoute()], progress=False), tmp_path / "report.json")
    table = results_table(read_report(tmp_path / "report.json"))
    assert "| made_up | first-route | 33.3 [0.0, 66.7] |" in table


def test_rules(file: Path) -> None:
    deciders = [FirstRoute(), RandomRoute(), WordOverlap()]
    first, chance, overlap = evaluate([file], deciders, progress=False).files[0].results
    assert {o.decision.route for o in first.outcomes} == {"baking"}
    assert None not in {o.decision.route for o in chance.outcomes}
    again = evaluate([file], [RandomRoute()], progress=False).files[0].results[0]
    assert [o.decision.route for o in again.outcomes] == [o.decision.route for o in chance.outcomes]
    # Of the user turns only "The tap drips" shares a word with a route (taps); the rest have none.
    assert [o.decision.route for o in overlap.outcomes] == [None] * 3 + ["plumbing"] + [None] * 2
