"""Fitting what turns scores into honest probabilities and choices, on validation data.

Temperature scaling is Guo et al. 2017 (arXiv 1706.04599), fitted by the likelihood of the right
outcomes; the thresholds maximise accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from routing.decision import Calibration, softmax


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
    """Temperature, none-threshold and several-threshold for these decisions.

    Raises ValueError for an empty sequence.
    """
    if not decisions:
        raise ValueError("calibration needs at least one decision")
    temperature = _fit_temperature(decisions)
    probabilities = [softmax(d.scores, temperature) for d in decisions]
    return Calibration(
        temperature=temperature,
        none_threshold=_fit_none(decisions, probabilities),
        several_threshold=_fit_several(decisions, probabilities),
    )


def _fit_temperature(decisions: Sequence[Labelled]) -> float:
    def loss(log_temperature: float) -> float:
        total = 0.0
        for decision in decisions:
            probabilities = softmax(decision.scores, float(np.exp(log_temperature)))
            shares = probabilities[sorted(decision.right)]
            total -= float(np.log(np.maximum(shares, 1e-12)).mean())
        return total

    # The likelihood has one optimum in the temperature: golden-section search finds it.
    low, high = np.log(0.05), np.log(20.0)
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if loss(a) < loss(b):
            high = b
        else:
            low = a
    return float(np.exp((low + high) / 2))


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
