"""What was measured: one decider on one benchmark, and all of them as a report.

The JSON of a report is format 2. Format 1 had no outcomes, no risk and coverage, no reliability and
no intervals of groups; what it had is where it was.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from training.evaluation.comparison import Difference
from training.evaluation.latency import Latency
from training.evaluation.metrics import Metrics
from training.evaluation.orders import OrderFlips
from training.evaluation.outcomes import Outcome

FORMAT = 2


@dataclass(frozen=True)
class Result:
    """One decider on one benchmark."""

    decider: str
    note: str | None
    """What a reader of the figures must know, as what an oracle baseline was fitted to."""
    metrics: Metrics
    seconds: float
    """Wall time of all decisions, without reading, fitting and measuring."""
    outcomes: list[Outcome]
    oracle: bool = False
    """Whether it was fitted on this very file."""
    orders: OrderFlips | None = None
    latency: Latency | None = None
    difference: Difference | None = None

    @property
    def seconds_per_decision(self) -> float:
        """The run's time shared out: throughput, since a run decides in batches, not latency."""
        return self.seconds / self.metrics.decisions

    def headline(self) -> dict[str, Any]:
        m = self.metrics
        line = {
            "decider": self.decider,
            "turn_accuracy": round(m.turn_accuracy.value, 4),
            "span_accuracy": round(m.span_accuracy.value, 4),
            "conversation_accuracy": round(m.conversation_accuracy.value, 4),
            "none_precision": _rounded(m.none_precision.value),
            "none_recall": _rounded(m.none_recall.value),
            "calibration_error": round(m.calibration_error, 4),
            "aurc": round(m.risk_coverage.aurc, 4),
            "decisions": m.decisions,
        }
        if self.orders is not None:
            line["flip_rate"] = round(self.orders.flip_rate.value, 4)
        if self.latency is not None:
            line["latency_median_ms"] = round(self.latency.median_ms, 2)
        if self.difference is not None:
            line["turn_accuracy_difference"] = round(self.difference.turn_accuracy.value, 4)
        return line

    def to_json(self) -> dict[str, Any]:
        return {
            "decider": self.decider,
            "note": self.note,
            "oracle": self.oracle,
            "seconds_per_decision": self.seconds_per_decision,
            "metrics": self.metrics.to_json(),
            "orders": _fields(self.orders),
            "latency": _fields(self.latency),
            "difference": _fields(self.difference),
            "outcomes": [outcome.to_json() for outcome in self.outcomes],
        }


@dataclass(frozen=True)
class FileReport:
    """All deciders on one benchmark."""

    benchmark: str
    sha256: str
    limit: int | None
    results: list[Result]

    def to_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "sha256": self.sha256,
            "limit": self.limit,
            "results": [result.to_json() for result in self.results],
        }


@dataclass(frozen=True)
class Report:
    """All deciders on all benchmarks."""

    files: list[FileReport]

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "files": [file.to_json() for file in self.files]}

    def headlines(self) -> list[dict[str, Any]]:
        """The main figures, one flat object for each decider and file."""
        return [
            {"benchmark": file.benchmark, **result.headline()}
            for file in self.files
            for result in file.results
        ]


def _fields(measured: OrderFlips | Latency | Difference | None) -> dict[str, Any] | None:
    return None if measured is None else dataclasses.asdict(measured)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
