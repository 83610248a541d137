"""Made-up conversations and deciders for the tests of evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from routing.decision import Decision
from routing.records import ConversationRecord
from routing.tasks import NONE
from training.evaluation.outcomes import Outcome

ROUTES = [
    {"name": "baking", "description": "Help with bread, cakes and pastry."},
    {"name": "astronomy", "description": "Explain stars, planets and telescopes."},
    {"name": "plumbing", "description": "Repair pipes, taps and drains."},
]


def decision(
    route: str | None, confidence: float = 1.0, routes: Sequence[str] | None = None
) -> Decision:
    chosen = [route] if route else []
    return Decision({}, route, chosen if routes is None else list(routes), confidence)


def outcome(
    expected: Sequence[str],
    chosen: Decision,
    conversation: str = "c",
    k: int = 3,
    **tags: Any,
) -> Outcome:
    return Outcome(conversation, tuple(expected), chosen, k, tags)


def line(
    conversation: str, turn: int, said: Sequence[str], expected: Sequence[str], **change: Any
) -> dict[str, Any]:
    """One decision record; `said` alternates user and assistant and ends with the user."""
    return {
        "id": f"{conversation}-{turn}",
        "conversation_id": conversation,
        "turn": turn,
        "routes": ROUTES,
        "messages": [
            {"role": ("user", "assistant")[index % 2], "content": text}
            for index, text in enumerate(said)
        ],
        "expected": list(expected),
        "tags": {"k": 3},
        **change,
    }


LOAF = ["My loaf is dense", "Knead it longer", "And the crust?", "Use steam", "Which moon is up?"]


def lines() -> list[dict[str, Any]]:
    """Six decisions: a conversation of three, one of two, and a single one that fits nothing."""
    tap = ["The tap drips", "Change the washer", "Thanks, bye"]
    return [
        line("loaf", 0, LOAF[:1], ["baking"]),
        line("loaf", 1, LOAF[:3], ["baking"]),
        line("loaf", 2, LOAF, ["astronomy"], tags={"k": 3, "switch": True}),
        line("tap", 0, tap[:1], ["plumbing"]),
        line("tap", 1, tap, []),
        line("odd", 0, ["Sing me a song"], []),
    ]


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


class Scripted:
    """Answers from a table of the user turn's text; remembers what it was given."""

    def __init__(self, answers: dict[str, str | None], name: str = "scripted") -> None:
        self.name = name
        self.seen: list[ConversationRecord] = []
        self._answers = answers

    def decide_all(self, conversations: Iterable[ConversationRecord]) -> Iterator[list[Decision]]:
        for record in conversations:
            self.seen.append(record)
            yield [
                decision(self._answers.get(record.messages[label.message]["content"]), 0.9)
                for label in record.decisions
            ]


def answer(route: str | None, /, **change: Any) -> dict[str, Any]:
    """What a server answers on the decision route for ROUTES."""
    names = [r["name"] for r in ROUTES]
    chosen = route or NONE
    return {
        "models": ["any"],
        "route": route,
        "routes": [route] if route else [],
        "confidence": 0.7,
        "distribution": {name: 0.7 if name == chosen else 0.1 for name in [*names, NONE]},
        "trace_id": "t",
        **change,
    }
