"""Drawing a conversation anew for an epoch: order, wordings and distractors of its routes."""

from __future__ import annotations

import random

from routing.records import ConversationRecord
from routing.tasks import Route
from training.recipe import Redraw


def redraw(
    record: ConversationRecord, settings: Redraw, rng: random.Random, progress: float = 0.0
) -> tuple[ConversationRecord, dict[str, str]]:
    """The record with other routes around the right ones, and the names that it had before.

    Which routes its turns need never changes. `progress` is epochs trained so far, and drives the
    curriculum.
    """
    needed = {name for label in record.decisions for name in label.expected}
    kept = [route for route in record.routes if route.name in needed]
    others = [route for route in record.routes if route.name not in needed]
    alternatives = record.alternatives
    if settings.distractors and alternatives is not None:
        others = rng.sample([*others, *alternatives.spare], len(others))
    most = _most_routes(settings, progress)
    if most is not None:
        others = others[: max(most - len(kept), 0 if kept else 1)]
    names = {route.name for route in (*kept, *others)}
    # Sorted back into the declared order, so that without `order` nothing moves.
    place = {route.name: number for number, route in enumerate(record.routes)}
    routes = sorted((*kept, *others), key=lambda route: place.get(route.name, len(place)))
    if settings.order:
        rng.shuffle(routes)
    wordings = {each.of: each.routes for each in alternatives.wordings} if alternatives else {}
    before: dict[str, str] = {}
    drawn: list[Route] = []
    for route in routes:
        chosen = route
        if settings.wordings and route.name in wordings:
            chosen = rng.choice([route, *wordings[route.name]])
            if chosen.name in before or (chosen.name != route.name and chosen.name in names):
                chosen = route
        before[chosen.name] = route.name
        drawn.append(chosen)
    now = {old: new for new, old in before.items()}
    decisions = [
        label.model_copy(update={"expected": [now[name] for name in label.expected]})
        for label in record.decisions
    ]
    changed = {"routes": drawn, "decisions": decisions, "alternatives": None}
    return record.model_copy(update=changed), before


def _most_routes(settings: Redraw, progress: float) -> int | None:
    if settings.most_routes is None or progress >= settings.curriculum_epochs:
        return None
    # Sets of routes are long-tailed: doubling over the curriculum reaches 64 from 4 in four steps.
    return int(settings.most_routes * 16.0 ** (progress / settings.curriculum_epochs))
