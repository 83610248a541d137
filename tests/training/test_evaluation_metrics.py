"""Metrics against examples that were worked out by hand."""

from __future__ import annotations

import json

import pytest
from evaluation_data import decision, outcome

from training.evaluation.metrics import confusions, measure, spans
from training.evaluation.statistics import (
    Estimate,
    bootstrap_ratios,
    calibration_error,
    difference_of,
    reliability,
)


def test_turn_is_right_for_any_expected_route_and_for_none_only_where_nothing_fits() -> None:
    assert outcome(["a", "b"], decision("b")).correct
    assert not outcome(["a"], decision("b")).correct
    assert not outcome(["a"], decision(None)).correct
    assert outcome([], decision(None)).correct
    assert not outcome([], decision("a")).correct


def test_spans_are_longest_runs_of_one_label_and_none_is_a_label() -> None:
    labels = [["a"], ["a"], ["b"], [], [], ["a"], ["a", "b"], ["b", "a"]]
    runs = spans(outcome(label, decision("a")) for label in labels)
    assert [len(run) for run in runs] == [2, 1, 2, 1, 2]


def test_turn_span_and_conversation_accuracy() -> None:
    outcomes = [
        # Four turns, three spans (a a | b | a), one wrong turn spoils the first span.
        outcome(["a"], decision("a"), "one"),
        outcome(["a"], decision("b"), "one"),
        outcome(["b"], decision("b"), "one"),
        outcome(["a"], decision("a"), "one"),
        # Two turns, one span, right.
        outcome([], decision(None), "two"),
        outcome([], decision(None), "two"),
    ]
    metrics = measure(outcomes)
    assert (metrics.decisions, metrics.conversations) == (6, 2)
    assert (metrics.turn_accuracy.value, metrics.turn_accuracy.n) == (5 / 6, 6)
    assert (metrics.span_accuracy.value, metrics.span_accuracy.n) == (3 / 4, 4)
    assert (metrics.conversation_accuracy.value, metrics.conversation_accuracy.n) == (1 / 2, 2)


def test_a_span_does_not_reach_across_conversations() -> None:
    metrics = measure([outcome(["a"], decision("a"), "one"), outcome(["a"], decision("b"), "two")])
    assert (metrics.span_accuracy.value, metrics.span_accuracy.n) == (1 / 2, 2)


def test_none_precision_and_recall() -> None:
    outcomes = [
        outcome([], decision(None)),
        outcome([], decision("a")),
        outcome([], decision("b")),
        outcome(["a"], decision(None)),
        outcome(["a"], decision("a")),
    ]
    metrics = measure(outcomes)
    assert (metrics.none_precision.value, metrics.none_precision.n) == (1 / 2, 2)
    assert (metrics.none_recall.value, metrics.none_recall.n) == (pytest.approx(1 / 3), 3)


def test_a_share_of_nothing_is_absent_rather_than_zero() -> None:
    metrics = measure([outcome(["a"], decision("a"))])
    assert metrics.none_precision.value is None
    assert metrics.none_recall.value is None
    assert metrics.several_exact.value is None


def test_several_routes_exact_and_f1() -> None:
    outcomes = [
        outcome(["a", "b"], decision("b", routes=["b", "a"])),  # exact, F1 1
        outcome(["a", "b"], decision("a")),  # F1 2·1/(1+2)
        outcome(["a", "b"], decision("c", routes=["c", "a"])),  # F1 2·1/(2+2)
        outcome(["a"], decision("a", routes=["a", "c"])),  # one too many: not exact
        outcome([], decision(None)),  # exact
    ]
    metrics = measure(outcomes)
    assert (metrics.several_exact.value, metrics.several_exact.n) == (pytest.approx(1 / 3), 3)
    assert metrics.several_f1.value == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    assert metrics.exact_set.value == pytest.approx(2 / 5)


def test_breakdowns_by_routes_and_by_the_tags_a_file_has() -> None:
    outcomes = [
        outcome(["a"], decision("a"), k=16, scenario="exact", switch=True),
        outcome(["a"], decision("b"), k=16, scenario="coarse", switch=False),
        outcome(["a"], decision("a"), k=4, scenario="exact"),
    ]
    breakdowns = {
        tag: [(group.value, group.accuracy, group.n) for group in groups]
        for tag, groups in measure(outcomes).breakdowns.items()
    }
    assert breakdowns == {
        "k": [("4", 1.0, 1), ("16", 0.5, 2)],
        "scenario": [("coarse", 0.0, 1), ("exact", 1.0, 2)],
        "switch": [("false", 0.0, 1), ("true", 1.0, 1)],
    }


def test_breakdowns_by_turn_and_by_how_many_routes_are_needed() -> None:
    outcomes = [
        outcome(["a"], decision("a"), turn=0, kind="request"),
        outcome(["a", "b"], decision("b"), turn=1, kind="return"),
        outcome([], decision("b"), turn=10, kind="request"),
    ]
    breakdowns = measure(outcomes).breakdowns
    assert [(g.value, g.accuracy) for g in breakdowns["turn"]] == [("0", 1), ("1", 1), ("10", 0)]
    assert [(g.value, g.accuracy) for g in breakdowns["expected"]] == [("0", 0), ("1", 1), ("2", 1)]
    assert [(g.value, g.n) for g in breakdowns["kind"]] == [("request", 2), ("return", 1)]


def test_a_group_has_the_interval_of_its_own_decisions() -> None:
    outcomes = [
        outcome(["a"], decision("a" if number % 4 else "b"), f"c{number}", k=4 + 4 * (number % 2))
        for number in range(80)
    ]
    four, eight = measure(outcomes).breakdowns["k"]
    # Of the even numbers half are divisible by four: 0.5 ± 1.96 · sqrt(0.25 / 40) = 0.5 ± 0.155.
    assert (four.value, four.accuracy, four.n) == ("4", 0.5, 40)
    assert (four.low, four.high) == pytest.approx((0.345, 0.655), abs=0.04)
    assert (eight.accuracy, eight.low, eight.high) == (1, 1, 1)


def test_confusions_are_the_commonest_wrong_pairs() -> None:
    outcomes = [
        *[outcome(["a"], decision("b"))] * 2,
        outcome(["a"], decision(None)),
        outcome([], decision("a")),
        outcome(["b", "a"], decision("c")),
        *[outcome(["a"], decision("a"))] * 9,
    ]
    pairs = [(c.expected, c.chosen, c.count) for c in confusions(outcomes, most=3)]
    assert pairs == [("a", "b", 2), ("a", "none", 1), ("a + b", "c", 1)]


def test_calibration_error_by_hand() -> None:
    # Both lie in the last of fifteen bins, which begins at 0.933.
    assert calibration_error([0.95, 0.97], [True, False]) == pytest.approx(abs(0.5 - 0.96))
    # Two bins: half the decisions off by 0.1, half by 0.5.
    assert calibration_error([0.9, 0.9, 0.5, 0.5], [1, 1, 0, 0]) == pytest.approx(0.3)
    # Errors of opposite sign cancel within a bin only.
    assert calibration_error([0.5, 0.5], [1, 0]) == pytest.approx(0)
    assert calibration_error([0.0, 1.0], [0, 1]) == pytest.approx(0)
    assert calibration_error([0.0, 1.0], [1, 0]) == pytest.approx(1)


def test_bin_borders_belong_to_the_bin_below() -> None:
    # With two bins, 0.5 lies with 0.25, not with 0.75: their gaps cancel.
    assert calibration_error([0.25, 0.5], [0, 1], bins=2) == pytest.approx(abs(1 - 0.75) / 2)


def test_reliability_has_the_bins_that_hold_a_decision() -> None:
    low, high = reliability([0.2, 0.3, 0.3, 0.9], [1, 0, 0, 1], bins=2)
    assert (low.low, low.high, low.n) == (0, 0.5, 3)
    assert (low.confidence, low.accuracy) == pytest.approx((0.8 / 3, 1 / 3))
    assert (high.confidence, high.accuracy, high.n) == (0.9, 1, 1)


def test_difference_of_two_intervals_by_hand() -> None:
    apart = difference_of(Estimate(0.8, 0.7, 0.84, 50), Estimate(0.6, 0.57, 0.64, 90))
    # Down: hypot(0.1, 0.04); up: hypot(0.04, 0.03).
    assert (apart.value, apart.low, apart.high) == pytest.approx((0.2, 0.2 - 0.10770, 0.25), 1e-4)
    assert apart.n == 50


def test_bootstrap_is_deterministic_and_holds_the_value() -> None:
    correct = [[i % 3 > 0] for i in range(60)]
    total = [[1]] * 60
    first = bootstrap_ratios(correct, total)
    assert first == bootstrap_ratios(correct, total)
    assert first != bootstrap_ratios(correct, total, seed=1)
    (estimate,) = first
    assert estimate.value == pytest.approx(2 / 3)
    # Normal approximation: ± 1.96 · sqrt(p q / n) = ± 0.119.
    assert estimate.low == pytest.approx(2 / 3 - 0.119, abs=0.03)
    assert estimate.high == pytest.approx(2 / 3 + 0.119, abs=0.03)


def test_bootstrap_resamples_conversations_not_turns() -> None:
    """Ten turns that are right or wrong together say no more than one."""
    single = bootstrap_ratios([[i % 2] for i in range(40)], [[1]] * 40)[0]
    tenfold = bootstrap_ratios([[10 * (i % 2)] for i in range(40)], [[10]] * 40)[0]
    assert (tenfold.low, tenfold.high) == pytest.approx((single.low, single.high))
    assert tenfold.n == 400


def test_bootstrap_of_a_perfect_score_has_no_width_and_of_nothing_is_refused() -> None:
    (perfect,) = bootstrap_ratios([[2], [1]], [[2], [1]])
    assert (perfect.low, perfect.high) == (1, 1)
    with pytest.raises(ValueError, match="nothing"):
        bootstrap_ratios([[0]], [[0]])
    with pytest.raises(ValueError, match="no outcomes"):
        measure([])


def test_metrics_are_json() -> None:
    metrics = measure([outcome(["a"], decision("b", 0.5), scenario="exact")])
    again = json.loads(json.dumps(metrics.to_json(), allow_nan=False))
    assert again["turn_accuracy"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 1}
    assert again["none_recall"] == {"value": None, "n": 0}
    assert again["confusions"] == [{"expected": "a", "chosen": "b", "count": 1}]
