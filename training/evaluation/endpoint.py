"""A decider that asks a running server: the routing model as its clients meet it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from routing.decision import Decision
from routing.records import ConversationRecord
from routing.tasks import NONE, Route
from training.evaluation.deciders import EvaluationError
from training.evaluation.http_json import FAILURES, Connection, Server, error_text, in_order

PATH = "/routing/v1/chat/completions"


class EndpointDecider:
    """`POST /routing/v1/chat/completions`, each user turn with the messages before it.

    Turns of one conversation are asked one after the other, as in life, so that the server's caches
    work; `concurrency` conversations at a time. A busy server may exceed its time limit for a
    decision and fall back. That, like any failed or malformed answer, raises EvaluationError: to
    skip it would flatter the server.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str = "any",
        concurrency: int = 1,
        timeout: float = 60.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        self._server = Server(base_url, PATH, timeout=timeout, headers=headers)
        self.name = f"server at {self._server.netloc}"
        self._model = model
        self._concurrency = concurrency

    def decide_all(self, conversations: Iterable[ConversationRecord]) -> Iterator[list[Decision]]:
        return in_order(self._decide, conversations, self._concurrency)

    def _decide(self, conversation: ConversationRecord) -> list[Decision]:
        with self._server.connect() as connection:
            return [
                self._ask(connection, conversation, label.message)
                for label in conversation.decisions
            ]

    def _ask(self, connection: Connection, record: ConversationRecord, message: int) -> Decision:
        at = f"{self.name}, conversation {record.id!r}, message {message}"
        body = {
            "model": self._model,
            "messages": record.messages[: message + 1],
            "routing_preferences": [preference(route) for route in record.routes],
        }
        try:
            response = connection.post(body)
        except FAILURES as error:
            raise EvaluationError(f"{at}: {type(error).__name__}: {error}") from None
        if response.status != 200:
            raise EvaluationError(f"{at}: status {response.status}: {error_text(response.raw)}")
        try:
            return parse_decision(json.loads(response.raw), [route.name for route in record.routes])
        except ValueError as error:
            raise EvaluationError(f"{at}: {error}") from None


def preference(route: Route) -> dict[str, Any]:
    """A route as an inline preference; its pool is not used where only the decision is asked."""
    return {"name": route.name, "description": route.description, "models": ["any"]}


def parse_decision(answer: Any, names: list[str]) -> Decision:
    """The decision in a server's answer; raises ValueError naming the field that is wrong."""
    if not isinstance(answer, dict):
        raise ValueError("the answer is not an object")
    distribution = answer.get("distribution")
    if not distribution:
        # A server that could not decide falls back, which must not pass for a decision of "none".
        reason = answer.get("reason") or "no reason given"
        raise ValueError(f"the server fell back instead of deciding: {reason}")
    if not isinstance(distribution, dict) or set(distribution) != {*names, NONE}:
        raise ValueError(f"distribution must be over the {len(names)} routes and {NONE!r}")
    probabilities = {
        name: _probability(distribution[name], f"distribution[{name!r}]") for name in [*names, NONE]
    }
    route = answer.get("route")
    if route is not None and route not in names:
        raise ValueError(f"route {route!r} is not among the routes")
    routes = answer.get("routes")
    if not isinstance(routes, list) or any(name not in names for name in routes):
        raise ValueError("routes must be a list of offered routes")
    confidence = _probability(answer.get("confidence"), "confidence")
    return Decision(probabilities, route, routes, confidence)


def _probability(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 + 1e-6:
        raise ValueError(f"{field} must be a probability")
    return float(value)
