"""A client of OpenAI's Chat Completions, an upstream of Anthropic's Messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serving.protocols.base import StreamTranslation
from serving.protocols.chat_over_messages_answer import completion_of
from serving.protocols.chat_over_messages_request import Accepts, messages_request
from serving.protocols.chat_over_messages_stream import ChatStream

DEFAULT_MAX_TOKENS = 16_384
"""Output tokens of a request that sets no limit; Messages requires one. Thinking counts towards it,
and every model that Anthropic serves today can write as much."""


@dataclass(frozen=True, slots=True)
class ChatOverMessages:
    """A Translation. The two switches are about what an upstream takes beside the current API, that
    of version 2026-10-21: Claude models of before 4.6, and other makers' servers of this protocol.

    Dropped is what only tunes an answer or its price: `seed`, the penalties, `verbosity`, `store`,
    `metadata`, `prediction`, `service_tier` and the prompt cache's fields.
    """

    max_tokens: int = DEFAULT_MAX_TOKENS
    sampling: bool = False
    """Whether to send `temperature`, brought into Anthropic's range, and `top_p`. The current API
    refuses both at any value, as Claude models since 4.7 do in every version."""
    budgets: bool = False
    """Whether `reasoning_effort` becomes a budget of thinking, not effort and adaptive thinking."""

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """A Messages body of a Chat Completions body; raises Untranslatable."""
        return messages_request(body, Accepts(self.max_tokens, self.sampling, self.budgets))

    def answer(self, body: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        """A Chat completion of a Message; raises ValueError for what is none."""
        return completion_of(body)

    def stream(self, request: dict[str, Any]) -> StreamTranslation:
        """A Chat stream of a Messages stream, with usage where the client asked for it."""
        options = request.get("stream_options")
        return ChatStream(usage=isinstance(options, dict) and bool(options.get("include_usage")))
