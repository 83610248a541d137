"""What is measured of a decider's outcomes on one benchmark.

turn accuracy           share of decisions whose chosen route is an expected one; where nothing is
                        expected, only "none" is right
span accuracy           share of spans without an error; a span is a longest run of decisions of one
                        conversation that follow one another and expect the same
conversation accuracy   share of conversations without an error
none precision          of the decisions for "none", the share where nothing fits
none recall             of the decisions where nothing fits, the share decided as "none"
several: exact, F1      over decisions that need several routes: the set of chosen routes equals
                        the expected one; mean over decisions of F1 between the two sets
exact set               the former over all decisions, so that choosing too many counts as an error
calibration error       expected gap between confidence and turn accuracy, 15 equal-width bins
risk and coverage       the share of decisions kept from a confidence on, and the errors among them

Turn, span and conversation are those of Arch-Router (arXiv 2506.16655).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from routing.tasks import NONE
from training.evaluation.breakdowns import Group, breakdowns
from training.evaluation.outcomes import Outcome, by_conversation
from training.evaluation.risk_coverage import RiskCoverage, risk_coverage
from training.evaluation.statistics import (
    Bin,
    Estimate,
    bootstrap_ratios,
    calibration_error,
    reliability,
)

CONFUSIONS = 20


@dataclass(frozen=True, slots=True)
class Share:
    """A plain share; None where there was nothing to be a share of."""

    value: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """A wrong answer and how often it was given."""

    expected: str
    chosen: str
    count: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures of one decider on one benchmark; all shares are between 0 and 1."""

    decisions: int
    conversations: int
    turn_accuracy: Estimate
    span_accuracy: Estimate
    conversation_accuracy: Estimate
    none_precision: Share
    none_recall: Share
    several_exact: Share
    several_f1: Share
    exact_set: Share
    calibration_error: float
    mean_confidence: float
    reliability: list[Bin]
    risk_coverage: RiskCoverage
    breakdowns: dict[str, list[Group]]
    confusions: list[Confusion]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def measure(outcomes: Sequence[Outcome]) -> Metrics:
    """All metrics; decisions of one conversation must be in the order of its turns."""
    if not outcomes:
        raise ValueError("there are no outcomes to measure")
    conversations = by_conversation(outcomes)
    correct = np.array([_tally(c, correct=True) for c in conversations])
    total = np.array([_tally(c, correct=False) for c in conversations])
    turn, span, conversation = bootstrap_ratios(correct, total)
    several = [o for o in outcomes if len(o.expected) > 1]
    confidences = [o.decision.confidence for o in outcomes]
    right = [o.correct for o in outcomes]
    return Metrics(
        decisions=len(outcomes),
        conversations=len(conversations),
        turn_accuracy=turn,
        span_accuracy=span,
        conversation_accuracy=conversation,
        none_precision=_share(not o.expected for o in outcomes if o.decision.route is None),
        none_recall=_share(o.decision.route is None for o in outcomes if not o.expected),
        several_exact=_share(o.exact for o in several),
        several_f1=_share(o.f1 for o in several),
        exact_set=_share(o.exact for o in outcomes),
        calibration_error=calibration_error(confidences, right),
        mean_confidence=float(np.mean(confidences)),
        reliability=reliability(confidences, right),
        risk_coverage=risk_coverage(confidences, right),
        breakdowns=breakdowns(outcomes),
        confusions=confusions(outcomes),
    )


def spans(conversation: Iterable[Outcome]) -> list[list[Outcome]]:
    """Longest runs of decisions that expect the same set of routes."""
    return [list(run) for _, run in groupby(conversation, key=lambda o: frozenset(o.expected))]


def confusions(outcomes: Iterable[Outcome], most: int = CONFUSIONS) -> list[Confusion]:
    """The most frequent wrong answers; several expected routes are joined by " + "."""
    pairs = Counter(
        (" + ".join(sorted(o.expected)) or NONE, o.decision.route or NONE)
        for o in outcomes
        if not o.correct
    )
    ranked = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return [Confusion(expected, chosen, n) for (expected, chosen), n in ranked[:most]]


def _tally(conversation: list[Outcome], *, correct: bool) -> tuple[int, int, int]:
    """Turns, spans and conversations (one), all of them or only those without an error."""
    runs = spans(conversation)
    if not correct:
        return len(conversation), len(runs), 1
    right = [all(o.correct for o in run) for run in runs]
    return sum(o.correct for o in conversation), sum(right), int(all(right))


def _share(values: Iterable[float]) -> Share:
    array = np.fromiter(values, dtype=np.float64)
    return Share(float(array.mean()) if len(array) else None, len(array))
