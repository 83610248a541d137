"""Token counts of OpenAI's Chat Completions and Anthropic's Messages.

OpenAI's `prompt_tokens` are all input tokens, those read from or written to a cache included.
Anthropic's `input_tokens` are only the others; the three are added up for the total:
https://platform.claude.com/docs/en/build-with-claude/prompt-caching#tracking-cache-performance
"""

from __future__ import annotations

from typing import Any


def messages_usage(usage: Any) -> dict[str, Any]:
    """Anthropic's counts of a Chat answer's usage; 0 for what the upstream does not tell."""
    prompt = _details(usage, "prompt_tokens_details")
    read, wrote = _count(prompt, "cached_tokens"), _count(prompt, "cache_write_tokens")
    counts: dict[str, Any] = {
        "input_tokens": max(_count(usage, "prompt_tokens") - read - wrote, 0),
        "cache_creation_input_tokens": wrote,
        "cache_read_input_tokens": read,
        "output_tokens": _count(usage, "completion_tokens"),
    }
    completion = _details(usage, "completion_tokens_details")
    if thought := _count(completion, "reasoning_tokens"):
        counts["output_tokens_details"] = {"thinking_tokens": thought}
    return counts


def chat_usage(usage: Any) -> dict[str, Any]:
    """OpenAI's counts of a Messages answer's usage; 0 for what the upstream does not tell."""
    read = _count(usage, "cache_read_input_tokens")
    wrote = _count(usage, "cache_creation_input_tokens")
    prompt = _count(usage, "input_tokens") + read + wrote
    completion = _count(usage, "output_tokens")
    thought = _count(_details(usage, "output_tokens_details"), "thinking_tokens")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": wrote},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


def _details(usage: Any, name: str) -> Any:
    return usage.get(name) if isinstance(usage, dict) else None


def _count(counts: Any, name: str) -> int:
    value = counts.get(name) if isinstance(counts, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
