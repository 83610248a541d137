"""From K+1 scores to a decision: a distribution, a choice and a confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from routing.errors import InvalidScores
from routing.tasks import NONE, Wire


class Calibration(Wire):
    """How scores become probabilities and a choice; fitted on validation data, in the manifest."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    none_bias: float = 0.0
    """Added to the score of "none", in units of scores: corrects how often it was right in training
    to how often it was on validation data (label-prior correction)."""
    none_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """"none" is chosen when its probability reaches this, else the likeliest route."""
    several_threshold: Annotated[float, Field(gt=0, le=1)] = 0.3
    """A further route is chosen too when its probability reaches this."""


class RiskPoint(Wire):
    """What a threshold on confidence keeps of validation data, and the share of errors in that."""

    threshold: float
    coverage: float
    error: float | None
    """None where nothing is kept."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one forward pass."""

    distribution: dict[str, float]
    """Probability of each route in declared order, then of "none"; sums to 1."""
    route: str | None
    """The chosen route; None means that no task fits."""
    routes: list[str]
    """The chosen route and any other that the turn needs too, likeliest first."""
    confidence: float
    """Probability of the chosen outcome."""


def softmax(scores: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities over the last axis."""
    scaled = np.asarray(scores, dtype=np.float64) / temperature
    scaled = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=-1, keepdims=True))


def decide(names: Sequence[str], scores: ArrayLike, calibration: Calibration) -> Decision:
    """The decision from K+1 scores, "none" last.

    Raises InvalidScores for a wrong number of scores or one that is not finite: the caller then
    falls back, since a guess would be a lie.
    """
    values = np.array(scores, dtype=np.float64)
    if values.shape != (len(names) + 1,):
        raise InvalidScores(f"expected {len(names) + 1} scores, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise InvalidScores("scores are not finite")
    values[-1] += calibration.none_bias
    probabilities = softmax(values, calibration.temperature)
    distribution = dict(zip([*names, NONE], probabilities.tolist(), strict=True))
    if distribution[NONE] >= calibration.none_threshold:
        return Decision(distribution, None, [], distribution[NONE])
    ranked = sorted(names, key=lambda name: -distribution[name])
    best = ranked[0]
    further = [n for n in ranked[1:] if distribution[n] >= calibration.several_threshold]
    return Decision(distribution, best, [best, *further], distribution[best])
