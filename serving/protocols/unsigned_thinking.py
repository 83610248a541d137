"""Thinking blocks that Anthropic did not sign, which its own API refuses."""

from __future__ import annotations

from typing import Any


def without_unsigned_thinking(body: dict[str, Any]) -> dict[str, Any]:
    """A Messages body for an upstream of that protocol; `body` itself where there is nothing to do.

    What other models think is sent to a Messages client as thinking with an empty signature. The
    client gives it back as it came, and a router may send the next turn to Anthropic.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not any(map(_has_unsigned, messages)):
        return body
    cleaned = [_cleaned(message) if _has_unsigned(message) else message for message in messages]
    # A turn of nothing but thinking would be one without content.
    return body | {"messages": [m for m in cleaned if not (_is_turn(m) and m["content"] == [])]}


def _cleaned(message: dict[str, Any]) -> dict[str, Any]:
    return message | {"content": [block for block in message["content"] if not _unsigned(block)]}


def _has_unsigned(message: Any) -> bool:
    return _is_turn(message) and any(map(_unsigned, message["content"]))


def _is_turn(message: Any) -> bool:
    return isinstance(message, dict) and isinstance(message.get("content"), list)


def _unsigned(block: Any) -> bool:
    return (
        isinstance(block, dict) and block.get("type") == "thinking" and not block.get("signature")
    )
