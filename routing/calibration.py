"""Fitting what turns scores into honest probabilities and choices, on validation data.

Temperature scaling is Guo et al. 2017 (arXiv 1706.04599); it and the bias of "none" are fitted by
the likelihood of the right outcomes. The thresholds maximise accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from routing.decision import Calibration, RiskPoint, decide, softmax

_LOG_TEMPERATURES = math.log(0.05), math.log(20.0)


@dataclass(frozen=True)
class Labelled:
    """Scores [K+1] of one decision, and which of the K+1 outcomes are right."""

    scores: NDArray[np.float64]
    right: frozenset[int]


def labelled(scores: ArrayLike, names: Sequence[str], expected: Sequence[str]) -> Labelled:
    """A decision with its label; an empty `expected` makes "none" right."""
    right = {names.index(name) for name in expected} or {len(names)}
    return Labelled(np.asarray(scores, dtype=np.float64), frozenset(right))


def fit(decisions: Sequence[Labelled]) -> Calibration:
    """Temperature, none-bias and thresholds for these decisions.

    Raises ValueError for an empty sequence.
    """
    if not decisions:
        raise ValueError("calibration needs at least one decision")
    table = _Table(decisions)
    # A bias beyond every gap between "none" and the best route changes nothing more.
    widest = max(abs(float(d.scores[-1] - d.scores[:-1].max())) for d in decisions) + 1.0
    temperature, bias = 1.0, 0.0
    # Each of the two has one optimum while the other stands; a few turns find both.
    for _ in range(4):
        temperature = math.exp(_lowest(partial(table.loss_by_log, bias), *_LOG_TEMPERATURES))
        bias = _lowest(partial(table.loss, temperature), -widest, widest)
    probabilities = [_probabilities(d, temperature, bias) for d in decisions]
    return Calibration(
        temperature=temperature,
        none_bias=bias,
        none_threshold=_fit_none(decisions, probabilities),
        several_threshold=_fit_several(decisions, probabilities),
    )


def risk_points(
    decisions: Sequence[Labelled], calibration: Calibration, steps: int = 20
) -> list[RiskPoint]:
    """Coverage and error of thresholds on confidence, from 0 in equal steps below 1.

    A decision below the threshold would be left to a router's fallbacks (arXiv 1705.08500).
    """
    confidence, right = [], []
    for each in decisions:
        names = [str(index) for index in range(len(each.scores) - 1)]
        made = decide(names, each.scores, calibration)
        confidence.append(made.confidence)
        right.append((len(names) if made.route is None else int(made.route)) in each.right)
    kept_from, hits = np.array(confidence), np.array(right)
    points: list[RiskPoint] = []
    for threshold in np.arange(steps) / steps:
        kept = kept_from >= threshold
        error = float(1 - hits[kept].mean()) if kept.any() else None
        points.append(
            RiskPoint(
                threshold=round(float(threshold), 4),
                coverage=round(float(kept.mean()), 4),
                error=None if error is None else round(error, 4),
            )
        )
    return points


class _Table:
    """All decisions as one array, so that a loss is one pass over it."""

    def __init__(self, decisions: Sequence[Labelled]) -> None:
        most = max(len(d.scores) for d in decisions)
        self._scores = np.full((len(decisions), most), -np.inf)
        self._right = np.zeros((len(decisions), most))
        self._none = np.zeros((len(decisions), most))
        for row, each in enumerate(decisions):
            self._scores[row, : len(each.scores)] = each.scores
            self._right[row, sorted(each.right)] = 1 / len(each.right)
            self._none[row, len(each.scores) - 1] = 1

    def loss_by_log(self, bias: float, log_temperature: float) -> float:
        return self.loss(math.exp(log_temperature), bias)

    def loss(self, temperature: float, bias: float) -> float:
        """Negative log-likelihood of the right outcomes."""
        shares = softmax(self._scores + bias * self._none, temperature)
        return -float((self._right * np.log(np.maximum(shares, 1e-12))).sum())


def _probabilities(decision: Labelled, temperature: float, bias: float) -> NDArray[np.float64]:
    scores = decision.scores.copy()
    scores[-1] += bias
    return softmax(scores, temperature)


def _lowest(loss: Callable[[float], float], low: float, high: float) -> float:
    """The lowest point of a function with one minimum, by golden-section search."""
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if loss(a) < loss(b):
            high = b
        else:
            low = a
    return float((low + high) / 2)


def _fit_none(decisions: Sequence[Labelled], probabilities: Sequence[NDArray[np.float64]]) -> float:
    """The threshold with the most right choices; of equals, the one nearest to one half."""
    grid = np.round(np.arange(0.05, 0.96, 0.01), 2)
    hits = np.zeros(len(grid))
    for decision, shares in zip(decisions, probabilities, strict=True):
        none = len(shares) - 1
        best = int(shares[:-1].argmax())
        hits += np.where(shares[none] >= grid, none in decision.right, best in decision.right)
    winners = grid[hits == hits.max()]
    return float(winners[np.abs(winners - 0.5).argmin()])


def _fit_several(
    decisions: Sequence[Labelled], probabilities: Sequence[NDArray[np.float64]]
) -> float:
    """The threshold for further routes with the most exactly right sets."""
    grid = np.round(np.arange(0.1, 0.51, 0.01), 2)
    hits = np.zeros(len(grid))
    for decision, shares in zip(decisions, probabilities, strict=True):
        routes = shares[:-1]
        if len(shares) - 1 in decision.right:
            continue
        best = int(routes.argmax())
        hits += [
            {best, *np.flatnonzero(routes >= threshold).tolist()} == decision.right
            for threshold in grid
        ]
    return float(grid[int(hits.argmax())])
