"""A client of Anthropic's Messages, an upstream of OpenAI's Chat Completions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from serving.protocols.base import StreamTranslation
from serving.protocols.messages_over_chat_answer import message_of
from serving.protocols.messages_over_chat_request import chat_request
from serving.protocols.messages_over_chat_stream import MessagesStream


@dataclass(frozen=True, slots=True)
class MessagesOverChat:
    """A Translation. Thinking of earlier turns is dropped, as is what only saves the owner money or
    time (`cache_control`, `service_tier`, `speed`) and `top_k`, for which OpenAI has no field."""

    limit_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """What the upstream calls the limit of output tokens. OpenAI's reasoning models refuse
    `max_tokens`; many servers that speak its protocol know nothing else."""
    reasoning_effort: bool = True
    """Whether the upstream takes that field; OpenAI's models that do not reason refuse it."""

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """A Chat Completions body of a Messages body; raises Untranslatable."""
        return chat_request(body, limit_field=self.limit_field, effort=self.reasoning_effort)

    def answer(self, body: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        """A Message of a Chat completion; raises ValueError for what is none."""
        return message_of(body)

    def stream(self, request: dict[str, Any]) -> StreamTranslation:
        """A Messages stream of a Chat stream; nothing of the request is needed for it."""
        return MessagesStream()
