"""The difference to an earlier report: is this checkpoint better than the last one?

A decider is compared with the one of its name in the earlier report. The first decider of a run is
the one that the run is about; if none has its name, it is compared with the first of the earlier
report. Where both reports hold the outcome of every decision the difference is *paired*: intervals
come of resampling conversations with both deciders' outcomes in them, and are much narrower than
those of two figures that know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.evaluation.benchmark import Benchmark
from training.evaluation.deciders import EvaluationError
from training.evaluation.outcomes import Outcome
from training.evaluation.statistics import Estimate, bootstrap_ratios, difference_of
from training.evaluation.stored import StoredFile, StoredReport, StoredResult


@dataclass(frozen=True, slots=True)
class Difference:
    """How one decider's turn accuracy differs from an earlier one's on the same decisions."""

    earlier: str
    """Name of the earlier decider."""
    turn_accuracy: Estimate
    """This turn accuracy less the earlier one; positive is better."""
    earlier_turn_accuracy: float
    paired: bool
    gained: int | None
    """Decisions that were wrong and are right now; None where unpaired."""
    lost: int | None
    """Decisions that were right and are wrong now; None where unpaired."""


def earlier_file(report: StoredReport, benchmark: Benchmark, limit: int | None) -> StoredFile:
    """The part of an earlier report about a benchmark that was read with this limit.

    Raises EvaluationError where it has none about this content, or about other lines of it.
    """
    name = benchmark.name
    same = [file for file in report.files if file.sha256 == benchmark.sha256]
    if not same:
        if any(file.benchmark == name for file in report.files):
            raise EvaluationError(
                f"{report.name}: {name!r} was another file then, with a different SHA-256"
            )
        raise EvaluationError(f"{report.name}: has no file {name!r} to compare with")
    (file, *_) = same
    if file.limit != limit:
        raise EvaluationError(
            f"{report.name}: {name!r} was measured {_limit(file.limit)}, now {_limit(limit)}; "
            "only equal limits compare"
        )
    labels = [
        (record.id, label.tags.get("turn"), set(label.expected))
        for record in benchmark.conversations
        for label in record.decisions
    ]
    for result in file.results:
        stored = [(o.conversation, o.turn, set(o.expected)) for o in result.outcomes or []]
        if result.outcomes is not None and stored != labels:
            raise EvaluationError(
                f"{report.name}: outcomes of {result.decider!r} are not those of {name!r}"
            )
    return file


def earlier_result(file: StoredFile, decider: str, *, first: bool) -> StoredResult | None:
    """Whom a decider is compared with, if anyone; `first` tells that the run is about it."""
    for result in file.results:
        if result.decider == decider:
            return result
    return file.results[0] if first and file.results else None


def difference(
    outcomes: Sequence[Outcome], turn_accuracy: Estimate, earlier: StoredResult
) -> Difference:
    """This decider's outcomes and turn accuracy against an earlier result on the same lines.

    The earlier outcomes, if it has any, must be of the same decisions, as `earlier_file` checks.
    """
    then = earlier.turn_accuracy
    if earlier.outcomes is None:
        apart = difference_of(turn_accuracy, then)
        return Difference(earlier.decider, apart, then.value, False, None, None)
    rows: dict[str, list[int]] = {}
    gained = lost = 0
    for new, old in zip(outcomes, earlier.outcomes, strict=True):
        change = int(new.correct) - int(old.correct)
        gained += change > 0
        lost += change < 0
        row = rows.setdefault(new.conversation, [0, 0])
        row[0] += change
        row[1] += 1
    (apart,) = bootstrap_ratios([[r[0]] for r in rows.values()], [[r[1]] for r in rows.values()])
    return Difference(earlier.decider, apart, then.value, True, gained, lost)


def _limit(limit: int | None) -> str:
    return "on all lines" if limit is None else f"on the first {limit} lines"
