"""Intervals and calibration; pure functions over arrays."""

from __future__ import annotations

import math
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
    """A share, or a difference of two, with its 95% interval; `n` is what it is a share of."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Decisions with a confidence in (low, high]: their mean confidence and their accuracy."""

    low: float
    high: float
    confidence: float
    accuracy: float
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
        times = _times_drawn(chosen, clusters)
        # A resample may by chance hold no case of a ratio; it says nothing about that ratio.
        with np.errstate(invalid="ignore"):
            drawn.append((times @ hits) / (times @ counts))
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.nanquantile(np.concatenate(drawn), tails, axis=0)
    values = hits.sum(axis=0) / counts.sum(axis=0)
    return [
        Estimate(float(values[i]), float(low[i]), float(high[i]), int(counts[:, i].sum()))
        for i in range(hits.shape[1])
    ]


def difference_of(first: Estimate, second: Estimate) -> Estimate:
    """`first` less `second` from their intervals alone, as if they came of independent samples.

    The method of Zou and Donner (2008, doi 10.1002/sim.3095): the distances from each value to
    the ends of its interval, added as squares. Its `n` is that of `first`.
    """
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, value - below, value + above, first.n)


def reliability(confidences: ArrayLike, correct: ArrayLike, bins: int = BINS) -> list[Bin]:
    """The bins of equal width that hold a decision, lowest first; each is closed above."""
    confidence, hits = paired(confidences, correct)
    index = _bin_of(confidence, bins)
    found: list[Bin] = []
    for number in np.unique(index).tolist():
        inside = index == number
        found.append(
            Bin(
                low=number / bins,
                high=(number + 1) / bins,
                confidence=float(confidence[inside].mean()),
                accuracy=float(hits[inside].mean()),
                n=int(inside.sum()),
            )
        )
    return found


def calibration_error(confidences: ArrayLike, correct: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error over equal-width bins (Guo et al. 2017, arXiv 1706.04599).

    The mean over decisions of |accuracy - mean confidence| of their bin; bins are closed above.
    """
    confidence, hits = paired(confidences, correct)
    gaps = np.bincount(_bin_of(confidence, bins), weights=hits - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(hits))


def paired(
    confidences: ArrayLike, correct: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as arrays [decisions]; raises ValueError unless they are as many, and at least one."""
    confidence = np.asarray(confidences, dtype=np.float64)
    hits = np.asarray(correct, dtype=np.float64)
    if confidence.shape != hits.shape or confidence.ndim != 1 or not len(hits):
        raise ValueError("need as many confidences as outcomes, and at least one")
    return confidence, hits


def _bin_of(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def _times_drawn(chosen: NDArray[np.int64], clusters: int) -> NDArray[np.float64]:
    """How often each resample, a row of `chosen`, holds each cluster: [resamples, clusters]."""
    offsets = clusters * np.arange(len(chosen))[:, None]
    counts = np.bincount((chosen + offsets).ravel(), minlength=len(chosen) * clusters)
    return counts.reshape(len(chosen), clusters).astype(np.float64)
