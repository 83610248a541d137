"""Which translation lets a client of one protocol talk to an upstream of another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from serving.protocols.base import Protocol, Translation
from serving.protocols.chain import chained
from serving.protocols.chat_over_messages import DEFAULT_MAX_TOKENS, ChatOverMessages
from serving.protocols.messages_over_chat import MessagesOverChat
from serving.protocols.responses_over_chat import ResponsesOverChat


@dataclass(frozen=True, slots=True)
class Dialect:
    """What an upstream takes beside what its protocol's current version says."""

    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    reasoning_effort: bool = True
    default_max_tokens: int = DEFAULT_MAX_TOKENS
    sampling: bool = False
    thinking_budgets: bool = False


@cache
def translation(client: Protocol, upstream: Protocol, dialect: Dialect) -> Translation | None:
    """The translation, or None where both speak the same."""
    if client is upstream:
        return None
    if upstream is Protocol.CHAT:
        if client is Protocol.RESPONSES:
            return ResponsesOverChat()
        return MessagesOverChat(dialect.max_tokens_field, dialect.reasoning_effort)
    if upstream is Protocol.MESSAGES:
        anthropic = ChatOverMessages(
            dialect.default_max_tokens, dialect.sampling, dialect.thinking_budgets
        )
        return anthropic if client is Protocol.CHAT else chained(ResponsesOverChat(), anthropic)
    raise ValueError(f"no translation from {client} to {upstream}")
