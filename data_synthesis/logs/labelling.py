"""What gives labels to user turns that nobody labelled.

A *labeller* is any callable `(messages, routes) -> Guess | Abstain`. `messages` is the scrubbed
conversation up to the user turn in question, each `{"role", "content"}`; `routes` are the team's
tasks. A routing checkpoint, a server's endpoint or a teacher model fit behind it alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from routing.tasks import Route


@dataclass(frozen=True, slots=True)
class Guess:
    """A route's name, or None where no route fits; `confidence` is from 0 to 1."""

    route: str | None
    confidence: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.confidence) and 0 <= self.confidence <= 1):
            raise ValueError(f"confidence must be from 0 to 1, not {self.confidence}")


@dataclass(frozen=True, slots=True)
class Abstain:
    """The labeller says nothing about this turn."""


Labeller = Callable[[Sequence[dict[str, str]], Sequence[Route]], Guess | Abstain]


class GuessedLabel(BaseModel):
    """A line of pseudo_labels.jsonl.gz: tells a guess in dialogues.jsonl.gz from a true label."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    """Of the dialogue."""
    turn: int
    """Index in its turns."""
    task: str | None
    """Key of the task; None: no task fits."""
    confidence: float
