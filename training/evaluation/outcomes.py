"""Decisions beside their labels: what every figure is made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from routing.decision import Decision
from routing.records import ConversationRecord


@dataclass(frozen=True, slots=True)
class Outcome:
    """One decision beside its label."""

    conversation: str
    expected: tuple[str, ...]
    decision: Decision
    k: int
    """Number of routes offered."""
    tags: dict[str, Any]

    @property
    def correct(self) -> bool:
        if not self.expected:
            return self.decision.route is None
        return self.decision.route in self.expected

    @property
    def exact(self) -> bool:
        return set(self.decision.routes) == set(self.expected)

    @property
    def f1(self) -> float:
        """F1 between the sets of chosen and of expected routes; 1 if both are empty."""
        chosen, expected = set(self.decision.routes), set(self.expected)
        if not chosen and not expected:
            return 1.0
        return 2 * len(chosen & expected) / (len(chosen) + len(expected))

    def to_json(self) -> dict[str, Any]:
        """What a later run needs for a paired comparison; a `chosen` of null is "none"."""
        return {
            "conversation": self.conversation,
            "turn": self.tags.get("turn"),
            "expected": list(self.expected),
            "chosen": self.decision.route,
            "correct": self.correct,
            "confidence": round(self.decision.confidence, 6),
        }


def outcomes_of(record: ConversationRecord, decisions: Sequence[Decision]) -> list[Outcome]:
    """The decisions of one conversation beside their labels."""
    return [
        Outcome(record.id, tuple(label.expected), decision, len(record.routes), label.tags)
        for label, decision in zip(record.decisions, decisions, strict=True)
    ]


def by_conversation(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    """Outcomes grouped by conversation, in the order in which conversations first appear."""
    grouped: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault(outcome.conversation, []).append(outcome)
    return list(grouped.values())
