"""The objects of Responses that answers and streams are made of.

https://platform.openai.com/docs/api-reference/responses/object
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "user": None,
}
_CITATION = {"url": str, "title": str, "start_index": int, "end_index": int}
_TOKEN = {"token": str, "logprob": int | float}
_TIERS = ("auto", "default", "flex", "scale", "priority", "fast", "ultrafast")
_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}


def new_id(prefix: str) -> str:
    """`resp_…`, `msg_…`, `fc_…`, `ctc_…` or `rs_…`: nothing can be fetched by it."""
    return f"{prefix}_{uuid.uuid4().hex}"


def begun(request: dict[str, Any], chat: dict[str, Any]) -> dict[str, Any]:
    """A Response in progress, of the client's request and the upstream's answer or first chunk."""
    echoed = {
        field: default if request.get(field) is None else request[field]
        for field, default in _ECHOED.items()
    }
    text = request.get("text") or {}
    model, created = chat.get("model"), chat.get("created")
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": created if isinstance(created, int) else int(time.time()),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        **echoed,
        "model": model if isinstance(model, str) else request.get("model"),
        "output": [],
        "previous_response_id": None,
        "service_tier": service_tier(chat) or request.get("service_tier"),
        "store": False,
        "text": {**text, "format": text.get("format") or {"type": "text"}},
        "truncation": "disabled",
        "usage": None,
    }


def ended(
    response: dict[str, Any], output: list[dict[str, Any]], finish: str | None, usage: Any
) -> dict[str, Any]:
    """`response` when the model has stopped, for Chat's reason `finish`."""
    reason = _REASONS.get(finish or "")
    return {
        **response,
        "status": item_status(finish),
        "completed_at": None if reason else int(time.time()),
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "usage": usage_of(usage),
    }


def service_tier(chat: dict[str, Any]) -> str | None:
    """The tier that served a Chat answer or chunk; None for one of another provider's own."""
    tier = chat.get("service_tier")
    return tier if isinstance(tier, str) and tier in _TIERS else None


def item_status(finish: str | None) -> str:
    """The status of a response, and of the last of its items, that ended for Chat's `finish`."""
    return "incomplete" if finish in _REASONS else "completed"


def usage_of(usage: Any) -> dict[str, Any] | None:
    """Chat's count of tokens in the words of Responses; None where the upstream gives none."""
    if not isinstance(usage, dict):
        return None
    read, written = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    inputs, outputs = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return {
        "input_tokens": read,
        "input_tokens_details": {
            "cached_tokens": _count(inputs, "cached_tokens"),
            "cache_write_tokens": _count(inputs, "cache_write_tokens"),
        },
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": _count(outputs, "reasoning_tokens")},
        "total_tokens": _count(usage, "total_tokens") or read + written,
    }


def message_item(item_id: str, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
    """What the model says."""
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def text_part(
    text: str, annotations: list[dict[str, Any]], logprobs: list[dict[str, Any]]
) -> dict[str, Any]:
    """Text of a message."""
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": logprobs}


def refusal_part(text: str) -> dict[str, Any]:
    """A message's refusal."""
    return {"type": "refusal", "refusal": text}


def reasoning_part(text: str) -> dict[str, Any]:
    """The model's own words, not a summary of them."""
    return {"type": "reasoning_text", "text": text}


def reasoning_item(item_id: str, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
    """What the model thinks before it answers."""
    return {
        "id": item_id,
        "type": "reasoning",
        "summary": [],
        "content": content,
        "status": status,
    }


def call_item(
    item_id: str, call_id: str, named: dict[str, str], asked: str, status: str, *, custom: bool
) -> dict[str, Any]:
    """A call of a function, or of a custom tool; `named` has its name, and perhaps a namespace."""
    return {
        "id": item_id,
        "type": "custom_tool_call" if custom else "function_call",
        "status": status,
        "call_id": call_id,
        **named,
        "input" if custom else "arguments": asked,
    }


def said(value: Any) -> str:
    """Chat's content: a string, though some upstreams give parts; other parts than text are
    passed over."""
    if isinstance(value, list):
        return "".join(said(part.get("text")) for part in value if isinstance(part, dict))
    return value if isinstance(value, str) else ""


def thought(message: dict[str, Any]) -> str:
    """Reasoning in a Chat message or delta: `reasoning`, of older servers `reasoning_content`.

    OpenAI has neither: https://docs.vllm.ai/en/latest/features/reasoning_outputs/
    """
    return said(message.get("reasoning")) or said(message.get("reasoning_content"))


def citations(value: Any) -> list[dict[str, Any]]:
    """Chat's annotations of a message, whose only kind nests its fields."""
    return [
        {"type": "url_citation", **{field: one[field] for field in _CITATION}}
        for annotation in _objects(value)
        if isinstance(one := annotation.get("url_citation"), dict) and _has(one, _CITATION)
    ]


def token_logprobs(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """Log-probabilities of the tokens of a choice's text."""
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    return [
        {**_token(one), "top_logprobs": [_token(top) for top in _tokens(one.get("top_logprobs"))]}
        for one in _tokens(tokens)
    ]


def _tokens(value: Any) -> list[dict[str, Any]]:
    return [one for one in _objects(value) if _has(one, _TOKEN)]


def _token(one: dict[str, Any]) -> dict[str, Any]:
    raw = one.get("bytes")
    raw = raw if isinstance(raw, list) and all(isinstance(byte, int) for byte in raw) else []
    return {"token": one["token"], "bytes": raw, "logprob": one["logprob"]}


def _has(value: dict[str, Any], fields: Mapping[str, Any]) -> bool:
    return all(isinstance(value.get(field), kind) for field, kind in fields.items())


def _objects(value: Any) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _count(counts: Any, name: str) -> int:
    value = counts.get(name) if isinstance(counts, dict) else None
    return value if isinstance(value, int) else 0
