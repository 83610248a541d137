"""What an answer used, in tokens, as its upstream counted: from whole answers and from streams.

Chat counts cached prompt tokens inside `prompt_tokens`, Responses inside `input_tokens`; Anthropic
beside them (https://platform.claude.com/docs/en/build-with-claude/prompt-caching). Here
`input_tokens` is always all of the prompt.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from routing.values import value_type
from serving.protocols.base import Protocol, parse_events

MOST_TOKENS = 2**30
"""Of one kind; an upstream that tells more has told nothing: no model reads so many, and no
database would take it."""


@value_type
class Usage:
    """Tokens of one answer."""

    input_tokens: int = 0
    """All of the prompt, cached parts included."""
    output_tokens: int = 0
    """Reasoning included."""
    cached_tokens: int = 0
    """Of the prompt, read from the upstream's cache."""
    cache_write_tokens: int = 0
    """Of the prompt, written to that cache at a price of its own."""
    cache_write_1h_tokens: int = 0
    """Of those written, the ones that are kept for an hour, which costs more."""
    reasoning_tokens: int = 0


def usage_of(protocol: Protocol, answer: Any) -> Usage | None:
    """The usage of a whole answer, or of an event that carries one; None where it tells none."""
    found = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        return None
    if protocol is Protocol.MESSAGES:
        cached = _count(found, "cache_read_input_tokens")
        written = _count(found, "cache_creation_input_tokens")
        return Usage(
            input_tokens=_count(found, "input_tokens") + cached + written,
            output_tokens=_count(found, "output_tokens"),
            cached_tokens=cached,
            cache_write_tokens=written,
            cache_write_1h_tokens=_count(found.get("cache_creation"), "ephemeral_1h_input_tokens"),
            reasoning_tokens=_count(found.get("output_tokens_details"), "thinking_tokens"),
        )
    chat = "prompt_tokens" in found
    prompt = found.get("prompt_tokens_details" if chat else "input_tokens_details")
    return Usage(
        input_tokens=_count(found, "prompt_tokens" if chat else "input_tokens"),
        output_tokens=_count(found, "completion_tokens" if chat else "output_tokens"),
        cached_tokens=_count(prompt, "cached_tokens"),
        cache_write_tokens=_count(prompt, "cache_write_tokens"),
        reasoning_tokens=_count(
            found.get("completion_tokens_details" if chat else "output_tokens_details"),
            "reasoning_tokens",
        ),
    )


def _count(found: Any, name: str) -> int:
    value = found.get(name) if isinstance(found, dict) else None
    return value if type(value) is int and 0 < value <= MOST_TOKENS else 0


class UsageMeter:
    """Reads the usage out of a stream's events as they pass; the last word of each kind holds."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self.usage: Usage | None = None

    def read(self, events: bytes) -> None:
        """Whole events. Those without usage cost one search each."""
        if b'"usage"' not in events:
            return
        for event in parse_events(events):
            if b'"usage"' in event.data:
                self._take(event.data)

    def _take(self, data: bytes) -> None:
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            return
        if not isinstance(value, dict):
            return
        if self._protocol is Protocol.CHAT:
            self.usage = usage_of(Protocol.CHAT, value) or self.usage
        elif self._protocol is Protocol.RESPONSES:
            self.usage = usage_of(Protocol.RESPONSES, value.get("response")) or self.usage
        elif value.get("type") == "message_start":
            self.usage = usage_of(Protocol.MESSAGES, value.get("message"))
        elif (later := usage_of(Protocol.MESSAGES, value)) is not None:
            self.usage = _later(self.usage, later)


def _later(start: Usage | None, delta: Usage) -> Usage:
    """Anthropic's `message_delta` counts are cumulative; those of the prompt may be left out."""
    if start is None or delta.input_tokens:
        return delta
    return replace(start, output_tokens=delta.output_tokens or start.output_tokens)
