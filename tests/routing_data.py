"""A small, learnable routing task: each request names the place its route is about."""

from __future__ import annotations

import random

from routing.records import ConversationRecord, DecisionLabel
from routing.tasks import Route

PLACES = ("garden", "kitchen", "harbour", "library", "workshop", "stable")


def records(count: int, seed: int = 0, turns: int = 3) -> list[ConversationRecord]:
    """Conversations whose every user turn is for a place, offered or not."""
    made: list[ConversationRecord] = []
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        offered = rng.sample(PLACES, 3)
        asked = [rng.choice([*offered, *offered, rng.choice(PLACES)]) for _ in range(turns)]
        messages: list[dict[str, str]] = []
        decisions: list[DecisionLabel] = []
        for place in asked:
            expected = [place] if place in offered else []
            decisions.append(DecisionLabel(message=len(messages), expected=expected))
            messages.append({"role": "user", "content": f"take me to the {place}"})
            messages.append({"role": "assistant", "content": "on our way"})
        made.append(
            ConversationRecord(
                id=f"{seed}-{number}",
                routes=[Route(name=place, description=f"The {place}.") for place in offered],
                messages=messages,
                decisions=decisions,
            )
        )
    return made
