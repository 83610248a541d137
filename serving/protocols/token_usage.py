"""The usage of an answer of Chat Completions in Anthropic's words, and the other way round."""

from __future__ import annotations

from typing import Any

from serving.protocols.base import Protocol
from serving.usage import Usage, usage_of


def messages_usage(usage: Any) -> dict[str, Any]:
    """Anthropic's counts of a Chat answer's usage; 0 for what the upstream does not tell."""
    told = usage_of(Protocol.CHAT, {"usage": usage}) or Usage()
    counts: dict[str, Any] = {
        "input_tokens": max(told.input_tokens - told.cached_tokens - told.cache_write_tokens, 0),
        "cache_creation_input_tokens": told.cache_write_tokens,
        "cache_read_input_tokens": told.cached_tokens,
        "output_tokens": told.output_tokens,
    }
    if told.reasoning_tokens:
        counts["output_tokens_details"] = {"thinking_tokens": told.reasoning_tokens}
    return counts


def chat_usage(usage: Any) -> dict[str, Any]:
    """OpenAI's counts of a Messages answer's usage; 0 for what the upstream does not tell."""
    told = usage_of(Protocol.MESSAGES, {"usage": usage}) or Usage()
    return {
        "prompt_tokens": told.input_tokens,
        "completion_tokens": told.output_tokens,
        "total_tokens": told.input_tokens + told.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": told.cached_tokens,
            "cache_write_tokens": told.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": told.reasoning_tokens},
    }
