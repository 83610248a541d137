"""The difference to an earlier report, and reports on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_data import LOAF, Scripted, line, lines, write_lines

from training.evaluation.deciders import EvaluationError
from training.evaluation.report import Extras, Report, evaluate, write
from training.evaluation.rules import FirstRoute, WordOverlap
from training.evaluation.stored import json_text, read_report

RIGHT = {LOAF[0]: "baking", LOAF[2]: "baking", LOAF[4]: "astronomy", "The tap drips": "plumbing"}
BEFORE = {**RIGHT, LOAF[2]: "plumbing", LOAF[4]: None}
AFTER = {**RIGHT, "The tap drips": None}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "made_up.jsonl", lines())


@pytest.fixture
def earlier(file: Path, tmp_path: Path) -> Path:
    """A report of a decider that gets two of six wrong, and of another."""
    output = tmp_path / "earlier.json"
    write(evaluate([file], [Scripted(BEFORE), FirstRoute()], progress=False), output)
    return output


def compared(file: Path, earlier: Path, *deciders: Any, limit: int | None = None) -> Report:
    chosen = deciders or (Scripted(AFTER),)
    return evaluate([file], chosen, limit, progress=False, extras=Extras(compare=earlier))


def test_outcomes_of_a_report_are_paired(file: Path, earlier: Path) -> None:
    (result,) = compared(file, earlier).files[0].results
    apart = result.difference
    assert apart is not None
    assert (apart.earlier, apart.paired, apart.gained, apart.lost) == ("scripted", True, 2, 1)
    assert apart.earlier_turn_accuracy == pytest.approx(4 / 6)
    assert apart.turn_accuracy.value == pytest.approx(1 / 6)
    # Resamples of three conversations hold at worst only the tap, at best only the loaf.
    assert (apart.turn_accuracy.low, apart.turn_accuracy.high) == (-0.5, pytest.approx(2 / 3))


def test_equal_answers_differ_by_nothing_for_certain(file: Path, earlier: Path) -> None:
    apart = compared(file, earlier, Scripted(BEFORE)).files[0].results[0].difference
    assert apart is not None
    estimate = apart.turn_accuracy
    assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


def test_namesakes_are_compared_and_the_first_with_the_first_if_it_has_none(
    file: Path, earlier: Path
) -> None:
    deciders = [Scripted(AFTER, "new checkpoint"), FirstRoute(), WordOverlap()]
    results = compared(file, earlier, *deciders).files[0].results
    names = [result.difference and result.difference.earlier for result in results]
    assert names == ["scripted", "first-route", None]


def test_a_report_without_outcomes_is_compared_unpaired(file: Path, earlier: Path) -> None:
    old = json.loads(earlier.read_text())
    old["format"] = 1
    for result in old["files"][0]["results"]:
        for added in ("outcomes", "orders", "latency", "difference", "oracle"):
            del result[added]
    earlier.write_text(json.dumps(old))
    (result,) = compared(file, earlier).files[0].results
    apart = result.difference
    assert apart is not None
    assert (apart.paired, apart.gained, apart.lost) == (False, None, None)
    assert apart.turn_accuracy.value == pytest.approx(1 / 6)
    assert apart.turn_accuracy.low < 0 < apart.turn_accuracy.high


def test_another_file_another_limit_and_a_missing_file_are_refused_before_any_decision(
    file: Path, earlier: Path, tmp_path: Path
) -> None:
    decider = Scripted(AFTER)
    with pytest.raises(EvaluationError, match="on all lines, now on the first 4 lines"):
        compared(file, earlier, decider, limit=4)
    other = write_lines(tmp_path / "other.jsonl", [line("c", 0, ["Hi"], [])])
    with pytest.raises(EvaluationError, match=r"earlier\.json: has no file 'other'"):
        compared(other, earlier, decider)
    write_lines(file, lines()[:3])
    with pytest.raises(EvaluationError, match="another file then, with a different SHA-256"):
        compared(file, earlier, decider)
    assert decider.seen == []


def test_a_file_that_was_only_renamed_is_the_same(file: Path, earlier: Path) -> None:
    renamed = file.rename(file.with_name("renamed.jsonl"))
    assert compared(renamed, earlier).files[0].results[0].difference is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda report: "{", "cannot read the report"),
        (lambda report: "[]", "no JSON report"),
        (lambda report: json.dumps({**report, "format": 99}), "format 1 or 2"),
        (lambda report: json.dumps({"format": 2}), "files"),
    ],
)
def test_what_is_no_report_is_named(file: Path, earlier: Path, change: Any, said: str) -> None:
    earlier.write_text(change(json.loads(earlier.read_text())))
    with pytest.raises(EvaluationError, match=said):
        compared(file, earlier)
    with pytest.raises(EvaluationError, match="cannot read the report"):
        compared(file, earlier.with_name("absent.json"))


def test_outcomes_of_other_decisions_are_refused(file: Path, earlier: Path) -> None:
    report = json.loads(earlier.read_text())
    report["files"][0]["results"][0]["outcomes"].pop()
    earlier.write_text(json.dumps(report))
    with pytest.raises(EvaluationError, match="outcomes of 'scripted' are not those of 'made_up'"):
        compared(file, earlier)


def test_a_report_holds_a_line_for_each_outcome(earlier: Path) -> None:
    text = earlier.read_text()
    (first, *_) = [row for row in text.splitlines() if '"conversation": "loaf"' in row]
    assert json.loads(first.rstrip(",")) == {
        "conversation": "loaf",
        "turn": 0,
        "expected": ["baking"],
        "chosen": "baking",
        "correct": True,
        "confidence": 0.9,
    }
    stored = read_report(earlier).files[0].results[0]
    assert stored.outcomes is not None
    assert [o.correct for o in stored.outcomes] == [True, False, False, True, True, True]


@pytest.mark.parametrize(
    "value", [{}, [], None, {"a": []}, {"a": {}, "b": [{"c": [1, [2]]}, 3]}, [[], [{"é": "ß\n"}]]]
)
def test_json_for_people_is_json(value: Any) -> None:
    assert json.loads(json_text(value)) == value
