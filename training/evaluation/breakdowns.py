"""Turn accuracy apart: by the number of routes, the turn, and the tags that a file has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.evaluation.outcomes import Outcome, by_conversation
from training.evaluation.statistics import bootstrap_ratios

BREAKDOWNS = (
    "scenario",
    "distractors",
    "switch",
    "ack",
    "none_kind",
    "kind",
    "grain",
    "label_verbatim",
    "source",
)
"""Tags of decision records by which turn accuracy is given apart, where a file has them."""
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Group:
    """Turn accuracy of the decisions with one value of a tag, with its 95% bootstrap interval."""

    value: str
    accuracy: float
    n: int
    low: float
    high: float


def breakdowns(outcomes: Sequence[Outcome]) -> dict[str, list[Group]]:
    """Groups by tag, values in order.

    `k` is the number of routes, `turn` that of the user turn in its conversation (from 0),
    `expected` that of the routes which the turn needs; the latter two only where they differ.
    """
    values = {"k": [outcome.k for outcome in outcomes]}
    readers: dict[str, Callable[[Outcome], Any]] = {
        "turn": lambda outcome: outcome.tags.get("turn", _ABSENT),
        "expected": lambda outcome: len(outcome.expected),
    }
    for name, read in readers.items():
        found = [read(outcome) for outcome in outcomes]
        if len(set(found) - {_ABSENT}) > 1:
            values[name] = found
    for tag in BREAKDOWNS:
        found = [_key(outcome.tags.get(tag, _ABSENT)) for outcome in outcomes]
        if set(found) != {_ABSENT}:
            values[tag] = found
    return _groups(outcomes, values)


def _groups(outcomes: Sequence[Outcome], values: dict[str, list[Any]]) -> dict[str, list[Group]]:
    """One bootstrap for all groups; `values` has a value, or its absence, for every outcome."""
    columns = {
        (tag, key): number
        for number, (tag, key) in enumerate(
            (tag, key) for tag, found in values.items() for key in _ordered(found)
        )
    }
    rows = {c[0].conversation: number for number, c in enumerate(by_conversation(outcomes))}
    correct = np.zeros((len(rows), len(columns)))
    total = np.zeros_like(correct)
    for tag, found in values.items():
        for outcome, key in zip(outcomes, found, strict=True):
            if key is not _ABSENT:
                place = rows[outcome.conversation], columns[tag, key]
                total[place] += 1
                correct[place] += outcome.correct
    groups: dict[str, list[Group]] = {tag: [] for tag in values}
    for (tag, key), e in zip(columns, bootstrap_ratios(correct, total), strict=True):
        groups[tag].append(Group(_label(key), e.value, e.n, e.low, e.high))
    return groups


def _key(value: Any) -> Any:
    return value if value is _ABSENT or isinstance(value, int | float) else str(value)


def _ordered(found: list[Any]) -> list[Any]:
    """Numbers first, then words."""
    return sorted(set(found) - {_ABSENT}, key=lambda value: (isinstance(value, str), value))


def _label(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
