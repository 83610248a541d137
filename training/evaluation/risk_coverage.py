"""What a threshold on confidence buys: fewer decisions kept, fewer errors among them.

A decision is *kept* where its confidence reaches the threshold; the others would go to a router's
fallbacks. Coverage is the share kept, risk the share of errors (of turn accuracy) among the kept.
See Geifman and El-Yaniv 2017 (arXiv 1705.08500). Thresholds are read off the very file that is
measured, so a threshold that is taken from here does a little worse elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.evaluation.statistics import paired

ERRORS = (0.05, 0.1, 0.2)
"""Errors for which the largest coverage is told."""
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Point:
    """What one threshold keeps; `error` is None where it keeps nothing."""

    threshold: float
    coverage: float
    error: float | None


@dataclass(frozen=True, slots=True)
class Reach:
    """The largest coverage with at most this error; no threshold where none has so little."""

    error: float
    coverage: float
    threshold: float | None


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Risk and coverage of one decider on one benchmark."""

    aurc: float
    """Area under the risk-coverage curve: the mean, over every number of kept decisions, of the
    error among them. Lower is better; it falls with fewer errors and with better ranking."""
    excess_aurc: float
    """The area less that of a ranking that puts every error last: 0 is a perfect ranking (Geifman
    et al. 2019, arXiv 1805.08206)."""
    at_error: list[Reach]
    by_threshold: list[Point]


@dataclass(frozen=True, slots=True)
class Curve:
    """A point for each distinct confidence, the highest first; all three have equal lengths."""

    threshold: Array
    coverage: Array
    error: Array


def risk_coverage(confidences: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """All figures for confidences [decisions] and whether each decision is right.

    Raises ValueError for different lengths and for none.
    """
    confidence, hits = paired(confidences, correct)
    points = curve(confidence, hits)
    area = _area(points, len(hits))
    return RiskCoverage(
        aurc=area,
        excess_aurc=max(0.0, area - _least_area(len(hits), int((1 - hits).sum()))),
        at_error=[_reach(points, error) for error in ERRORS],
        by_threshold=[_point(confidence, hits, threshold) for threshold in THRESHOLDS],
    )


def curve(confidences: ArrayLike, correct: ArrayLike) -> Curve:
    """Coverage and error at every threshold that makes a difference."""
    confidence, hits = paired(confidences, correct)
    order = np.argsort(-confidence, kind="stable")
    ranked, wrong = confidence[order], np.cumsum(1 - hits[order])
    # Equal confidences cannot be told apart by a threshold: a point stands at the last of each.
    last = np.append(ranked[1:] < ranked[:-1], True)
    kept = np.flatnonzero(last) + 1.0
    return Curve(ranked[last], kept / len(hits), wrong[last] / kept)


def _area(points: Curve, decisions: int) -> float:
    ends = points.coverage * decisions
    kept = np.arange(1, decisions + 1)
    # Among equal confidences errors grow evenly: what is expected of them in any order.
    wrong = np.interp(kept, [0.0, *ends], [0.0, *(points.error * ends)])
    return float((wrong / kept).mean())


def _least_area(decisions: int, wrong: int) -> float:
    kept = np.arange(1, decisions + 1)
    return float((np.maximum(0, kept - (decisions - wrong)) / kept).mean())


def _reach(points: Curve, error: float) -> Reach:
    enough = np.flatnonzero(points.error <= error)
    if not len(enough):
        return Reach(error, 0.0, None)
    best = int(enough[-1])
    return Reach(error, float(points.coverage[best]), float(points.threshold[best]))


def _point(confidence: Array, hits: Array, threshold: float) -> Point:
    kept = confidence >= threshold
    error = float(1 - hits[kept].mean()) if kept.any() else None
    return Point(threshold, float(kept.mean()), error)
