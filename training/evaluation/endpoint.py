"""A decider that asks a running server: the routing model as its clients meet it."""

from __future__ import annotations

import http.client
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from routing.decision import Decision
from routing.records import ConversationRecord
from routing.tasks import NONE, Route
from training.evaluation.deciders import EvaluationError

PATH = "/routing/v1/chat/completions"


class EndpointDecider:
    """`POST /routing/v1/chat/completions`, each user turn with the messages before it.

    Turns of one conversation are asked one after the other, as in life, so that the server's caches
    work; `concurrency` conversations at a time. A busy server may exceed its time limit for a
    decision and fall back. That, like any failed or malformed answer, raises EvaluationError: to
    skip it would flatter the server. Proxies of the environment are not used.
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
        url = urlsplit(base_url if "//" in base_url else f"http://{base_url}")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise EvaluationError(f"not the URL of a server: {base_url!r}")
        if url.username or url.password or url.query or url.fragment:
            raise EvaluationError("a server's URL has no credentials, query or fragment")
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        self.name = f"server at {url.netloc}"
        self._secure = url.scheme == "https"
        self._host, self._port = url.hostname, url.port
        self._path = url.path.rstrip("/") + PATH
        self._model = model
        self._concurrency = concurrency
        self._timeout = timeout
        self._headers = {"content-type": "application/json", **(headers or {})}

    def decide_all(self, conversations: Iterable[ConversationRecord]) -> Iterator[list[Decision]]:
        pending: deque[Future[list[Decision]]] = deque()
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="evaluation")
        try:
            for conversation in conversations:
                pending.append(pool.submit(self._decide, conversation))
                # Twice as many as run at once: no worker waits, and no file is queued as a whole.
                if len(pending) >= 2 * self._concurrency:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _decide(self, conversation: ConversationRecord) -> list[Decision]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout)
        try:
            return [
                self._ask(connection, conversation, label.message)
                for label in conversation.decisions
            ]
        finally:
            connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, record: ConversationRecord, message: int
    ) -> Decision:
        at = f"{self.name}, conversation {record.id!r}, message {message}"
        body = json.dumps(
            {
                "model": self._model,
                "messages": record.messages[: message + 1],
                "routing_preferences": [preference(route) for route in record.routes],
            }
        ).encode()
        try:
            status, raw = self._post(connection, body)
        except (OSError, http.client.HTTPException) as error:
            raise EvaluationError(f"{at}: {type(error).__name__}: {error}") from None
        if status != 200:
            raise EvaluationError(f"{at}: status {status}: {_reason(raw)}")
        try:
            return parse_decision(json.loads(raw), [route.name for route in record.routes])
        except ValueError as error:
            raise EvaluationError(f"{at}: {error}") from None

    def _post(self, connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
        reused = connection.sock is not None
        for last in (not reused, True):
            try:
                connection.request("POST", self._path, body, self._headers)
                response = connection.getresponse()
                return response.status, response.read()
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # The server may close an idle connection at any time; a decision changes nothing,
                # so asking again on a new connection is safe.
                connection.close()
                if last:
                    raise
        raise AssertionError("unreachable")


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


def _reason(raw: bytes) -> str:
    """The message of an error in OpenAI's shape, else the beginning of the body."""
    try:
        return str(json.loads(raw)["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return raw[:300].decode(errors="replace")
