"""The protocols that clients and upstreams speak, and what a translation between two must do."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Protocol(StrEnum):
    """A wire format of requests, answers and streams."""

    CHAT = "chat"
    """OpenAI Chat Completions: https://platform.openai.com/docs/api-reference/chat"""
    RESPONSES = "responses"
    """OpenAI Responses: https://platform.openai.com/docs/api-reference/responses"""
    MESSAGES = "messages"
    """Anthropic Messages: https://platform.claude.com/docs/en/api/messages"""


class Untranslatable(ValueError):
    """A request that only an upstream of its own protocol can answer; names the field."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event; `name` is its `event:` line, None where there is none."""

    data: bytes
    name: str | None = None


def parse_events(whole: bytes) -> Iterator[Event]:
    """The events of bytes that end where an event ends; comments and empty ones are passed over.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """
    name: str | None = None
    data: list[bytes] = []
    for line in (*whole.splitlines(), b""):
        if not line:
            if data:
                yield Event(b"\n".join(data), name)
            name, data = None, []
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")


class StreamTranslation(typing.Protocol):
    """Turns one upstream's stream into a client's; an object a stream."""

    def feed(self, event: Event) -> bytes:
        """The client's events for one of the upstream's, possibly none."""

    def finish(self) -> bytes:
        """What the client is still owed at a regular end; called once. Never after a cut."""


class Translation(typing.Protocol):
    """Lets a client of one protocol talk to an upstream of another."""

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """The upstream's request, of a client's that has been checked; does not change `body`.

        Raises Untranslatable for what the other protocol has no words for and the client would
        miss.
        """

    def answer(self, body: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        """The client's answer, of an upstream's whole one. Raises ValueError for one that is none.

        `request` is the client's own body: an answer of Responses repeats much of it.
        """

    def stream(self, request: dict[str, Any]) -> StreamTranslation:
        """A translation of one stream; `request` is the client's own body."""
