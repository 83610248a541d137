"""A baseline that needs no training: a chat model is shown the routes and asked to name one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from routing.conversation import normalise
from routing.decision import Decision
from routing.records import ConversationRecord
from routing.tasks import NONE
from training.evaluation.deciders import EvaluationError
from training.evaluation.http_json import (
    FAILURES,
    Connection,
    Retries,
    Server,
    error_text,
    in_order,
)
from training.evaluation.named_route import MalformedAnswer, named_route
from training.evaluation.rules import certain

PATH = "/chat/completions"
MAX_TOKENS = 1024
"""Of an answer: enough for a model that thinks a little first, and an end for one that rambles."""
INSTRUCTIONS = (
    "You decide which route a request takes. You are given routes, each with a name and a "
    "description, and a conversation. Choose the route that the last user message needs, reading "
    "it in the light of what was said before. Answer with the exact name of that route and nothing "
    f"else. If no route fits, answer {NONE}."
)


class PromptedDecider:
    """Asks `POST {base_url}/chat/completions` of any server that speaks OpenAI's format.

    Each user turn is a request of its own, at temperature 0, with the conversation up to it;
    `concurrency` conversations at a time. Rate limits and failures of the server are waited for as
    `retries` says; what still fails then, or is refused, raises EvaluationError. An answer that
    names no route counts as "none", and `take_note` tells how many did.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key: str | None = None,
        concurrency: int = 4,
        timeout: float = 120.0,
        retries: Retries | None = None,
    ) -> None:
        """`base_url` ends before `/chat/completions`; `key` is sent there as a bearer token."""
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        headers = {} if key is None else {"authorization": f"Bearer {_checked_key(key)}"}
        self._server = Server(base_url, PATH, timeout=timeout, headers=headers)
        self.name = f"prompted {model}"
        self._model = model
        self._key = key
        self._concurrency = concurrency
        self._retries = retries or Retries()
        self._decisions = 0
        self._malformed = 0

    def decide_all(self, conversations: Iterable[ConversationRecord]) -> Iterator[list[Decision]]:
        for answers in in_order(self._decide, conversations, self._concurrency):
            self._decisions += len(answers)
            self._malformed += sum(malformed for _, malformed in answers)
            yield [decision for decision, _ in answers]

    def take_note(self) -> str | None:
        """How many answers named no route since this was last asked; None if there were none."""
        decisions, malformed = self._decisions, self._malformed
        self._decisions = self._malformed = 0
        if not decisions:
            return None
        return (
            f"{malformed} of {decisions} answers named no route and count as {NONE}; the model "
            "gives no confidence, so that every answer counts as certain"
        )

    def _decide(self, conversation: ConversationRecord) -> list[tuple[Decision, bool]]:
        """Decisions with whether each stands for an answer that named no route."""
        names = [route.name for route in conversation.routes]
        answers: list[tuple[Decision, bool]] = []
        with self._server.connect() as connection:
            for label in conversation.decisions:
                text = self._ask(connection, conversation, label.message)
                try:
                    answers.append((certain(names, named_route(text, names)), False))
                except MalformedAnswer:
                    answers.append((certain(names, None), True))
        return answers

    def _ask(self, connection: Connection, record: ConversationRecord, message: int) -> str:
        at = f"{self.name}, conversation {record.id!r}, message {message}"
        body = {
            "model": self._model,
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
            "messages": [
                {"role": "system", "content": INSTRUCTIONS},
                {"role": "user", "content": question(record, message)},
            ],
        }
        try:
            response = self._retries.post(connection, body)
        except FAILURES as error:
            raise EvaluationError(f"{at}: {type(error).__name__}: {error}") from None
        if response.status != 200:
            told = self._without_key(error_text(response.raw))
            raise EvaluationError(f"{at}: status {response.status}: {told}")
        try:
            return answer_text(json.loads(response.raw))
        except ValueError as error:
            raise EvaluationError(f"{at}: {error}") from None

    def _without_key(self, text: str) -> str:
        """The text without the key, should the server echo it."""
        return text.replace(self._key, "[key]") if self._key else text


def question(record: ConversationRecord, message: int) -> str:
    """The routes and the conversation up to the user turn `message`, as the model reads them."""
    routes = "\n".join(f"- {route.name}: {route.description}" for route in record.routes)
    turns = normalise(record.messages[: message + 1]).turns
    said = "\n\n".join(f"{turn.role}: {turn.text}" for turn in turns if turn.text)
    return (
        f"Routes:\n{routes}\n\nConversation:\n{said}\n\n"
        f"Which route does the last user message need? Its name, or {NONE}:"
    )


def answer_text(answer: Any) -> str:
    """The text of a chat completion, empty where it has none; ValueError for anything else."""
    try:
        content = answer["choices"][0]["message"].get("content")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError("the answer is not a chat completion") from None
    return content if isinstance(content, str) else ""


def _checked_key(key: str) -> str:
    # The library's own error about a header would print its value.
    if not key or not key.isascii() or not key.isprintable():
        raise EvaluationError("the key must be one line of printable ASCII characters")
    return key
