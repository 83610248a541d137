"""Decisions and what they are asked about, as JSON between our own processes: not checked again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from routing.conversation import Conversation, Turn
from routing.decision import Decision
from routing.tasks import Route


def write_routes(routes: Sequence[Route]) -> list[list[str]]:
    return [[route.name, route.description] for route in routes]


def read_routes(raw: list[list[str]]) -> list[Route]:
    return [Route.model_construct(name=name, description=text) for name, text in raw]


def write_conversation(conversation: Conversation) -> list[list[Any]]:
    return [[turn.role, turn.text, turn.message] for turn in conversation.turns]


def read_conversation(raw: list[list[Any]]) -> Conversation:
    return Conversation(tuple(Turn(role, text, message) for role, text, message in raw))


def write_decision(decision: Decision) -> list[Any]:
    return [decision.distribution, decision.route, decision.routes, decision.confidence]


def read_decision(raw: list[Any]) -> Decision:
    return Decision(*raw)
