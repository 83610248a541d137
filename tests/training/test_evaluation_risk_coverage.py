"""Risk and coverage against examples that were worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.risk_coverage import curve, risk_coverage

CONFIDENCES = [0.9, 0.6, 0.8, 0.5, 0.7]
CORRECT = [True, True, False, False, True]
"""By falling confidence: right, wrong, right, right, wrong."""


def test_the_curve_has_a_point_for_each_threshold() -> None:
    points = curve(CONFIDENCES, CORRECT)
    assert points.threshold.tolist() == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert points.coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert points.error.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4, 2 / 5])


def test_area_is_the_mean_error_over_all_numbers_of_kept_decisions() -> None:
    measured = risk_coverage(CONFIDENCES, CORRECT)
    assert measured.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4 + 2 / 5) / 5)
    # The best ranking has its two errors at the end: 0, 0, 0, 1/4, 2/5.
    assert measured.excess_aurc == pytest.approx((1 / 2 + 1 / 3) / 5)


def test_a_ranking_that_puts_errors_last_has_no_excess() -> None:
    measured = risk_coverage([0.9, 0.8, 0.3], [True, True, False])
    assert measured.excess_aurc == 0
    assert measured.aurc == pytest.approx(1 / 9)


def test_equal_confidences_are_one_point_and_ranked_in_no_order() -> None:
    """A decider that is always certain ranks nothing: its area is its error."""
    for correct in ([True, False, True, True], [True, True, True, False]):
        points = curve([1.0] * 4, correct)
        assert (points.coverage.tolist(), points.error.tolist()) == ([1.0], [0.25])
        assert risk_coverage([1.0] * 4, correct).aurc == pytest.approx(0.25)


def test_coverage_at_an_error_is_the_largest_that_keeps_to_it() -> None:
    reached = {reach.error: reach for reach in risk_coverage(CONFIDENCES, CORRECT).at_error}
    assert set(reached) == {0.05, 0.1, 0.2}
    assert (reached[0.05].coverage, reached[0.05].threshold) == (pytest.approx(0.2), 0.9)
    # 38 of 40 are right; the two errors are the 20th and the last.
    many = [1 - number / 100 for number in range(40)]
    right = [number not in (19, 39) for number in range(40)]
    within = {reach.error: reach.coverage for reach in risk_coverage(many, right).at_error}
    assert within == {0.05: 1.0, 0.1: 1.0, 0.2: 1.0}
    within = {r.error: r.coverage for r in risk_coverage(many, np.arange(40) < 20).at_error}
    assert within == {0.05: pytest.approx(21 / 40), 0.1: pytest.approx(22 / 40), 0.2: 25 / 40}


def test_where_no_threshold_has_so_few_errors_nothing_is_covered() -> None:
    (reach, *_) = risk_coverage([0.9, 0.8], [False, True]).at_error
    assert (reach.coverage, reach.threshold) == (0, None)


def test_round_thresholds_keep_what_reaches_them() -> None:
    points = {p.threshold: p for p in risk_coverage(CONFIDENCES, CORRECT).by_threshold}
    assert (points[0.0].coverage, points[0.0].error) == (1, pytest.approx(2 / 5))
    assert (points[0.7].coverage, points[0.7].error) == (pytest.approx(3 / 5), pytest.approx(1 / 3))
    assert (points[0.95].coverage, points[0.95].error) == (0, None)


def test_unequal_lengths_and_nothing_are_refused() -> None:
    for confidences, correct in (([0.5], [True, False]), ([], [])):
        with pytest.raises(ValueError, match="as many confidences"):
            risk_coverage(confidences, correct)
