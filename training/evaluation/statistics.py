"""Bootstrap intervals and calibration error; pure functions over arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
SEED = 0
LEVEL = 0.95
BINS = 15
_DRAWS_AT_ONCE = 1_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share with its 95% bootstrap interval; `n` is what it is a share of."""

    value: float
    low: float
    high: float
    n: int


def bootstrap_ratios(
    correct: ArrayLike, total: ArrayLike, *, resamples: int = RESAMPLES, seed: int = SEED
) -> list[Estimate]:
    """Percentile bootstrap of sum(correct) / sum(total), resampling clusters.

    `correct` and `total` have shape [clusters, ratios] and count within each cluster (here a
    conversation, whose turns are not independent). The seed is fixed, so that deciders measured
    on one file are compared on the same resamples.
    """
    hits = np.asarray(correct, dtype=np.float64)
    counts = np.asarray(total, dtype=np.float64)
    if hits.shape != counts.shape or hits.ndim != 2 or not len(hits):
        raise ValueError(f"need equal shapes [clusters, ratios], got {hits.shape}, {counts.shape}")
    if (counts.sum(axis=0) == 0).any():
        raise ValueError("a ratio has nothing to be a share of")
    clusters = len(hits)
    rng = np.random.default_rng(seed)
    drawn: list[NDArray[np.float64]] = []
    step = max(1, _DRAWS_AT_ONCE // clusters)
    for start in range(0, resamples, step):
        chosen = rng.integers(clusters, size=(min(step, resamples - start), clusters))
        below = counts[chosen].sum(axis=1)
        # A resample may by chance hold no case of a ratio; it says nothing about that ratio.
        with np.errstate(invalid="ignore"):
            drawn.append(hits[chosen].sum(axis=1) / below)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.nanquantile(np.concatenate(drawn), tails, axis=0)
    values = hits.sum(axis=0) / counts.sum(axis=0)
    return [
        Estimate(float(values[i]), float(low[i]), float(high[i]), int(counts[:, i].sum()))
        for i in range(hits.shape[1])
    ]


def calibration_error(confidences: ArrayLike, correct: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error over equal-width bins (Guo et al. 2017, arXiv 1706.04599).

    The mean over decisions of |accuracy - mean confidence| of their bin; bins are closed above.
    """
    confidence = np.asarray(confidences, dtype=np.float64)
    hits = np.asarray(correct, dtype=np.float64)
    if confidence.shape != hits.shape or confidence.ndim != 1 or not len(hits):
        raise ValueError("need as many confidences as outcomes, and at least one")
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(index, weights=hits - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(hits))
