"""A Responses request as one of Chat Completions.

What a translation leaves out, and the client can tell from the answer or does not miss:

- `store`: nothing is kept here, the answer says false. Chat's field of that name keeps completions
  for other ends.
- `metadata`: labels of what is stored, which OpenAI's Chat refuses unless `store` is on. The answer
  repeats them.
- `truncation`: `auto` needs the model's context length; the answer says `disabled`.
- `include`: apart from `message.output_text.logprobs`, it names output of tools that are refused,
  and encrypted reasoning, which a Chat upstream has none of.
- `max_tool_calls`: bounds calls of tools that are refused.
- `reasoning.summary`: an upstream's own reasoning is passed on as it is.
- `stream_options`: nothing is padded to hide its length.
"""

from __future__ import annotations

import re
from typing import Any

from serving.errors import clipped
from serving.protocols.base import Untranslatable
from serving.protocols.responses_input import ChatMessages
from serving.protocols.responses_tools import chat_tools
from serving.protocols.shapes import array, mapping, text

LOGPROBS = "message.output_text.logprobs"
"""The entry of `include` that asks for log-probabilities of the answer's tokens."""

_SAME = (
    "model",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "temperature",
    "top_p",
    "user",
)
_ELSEWHERE = (
    "access_programs",
    "background",
    "context_management",
    "conversation",
    "moderation",
    "previous_response_id",
    "prompt",
)
_RENAMED = {
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "logprobs": "top_logprobs",
    "stream_options": "stream",
}
_PLACE = re.compile(r"(\w+)(?:\[(\d+)\])?")


def chat_request(body: dict[str, Any]) -> dict[str, Any]:
    """The Chat body; raises Untranslatable, and ApiError 400 for what is no Responses body."""
    for field in _ELSEWHERE:
        if body.get(field) not in (None, False, []):
            raise Untranslatable(f"{field}: only a model behind Responses has it", field)
    chat = {field: body[field] for field in _SAME if body.get(field) is not None}
    chat["messages"] = ChatMessages(body).messages
    chat |= chat_tools(body).fields
    if body.get("max_output_tokens") is not None:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    chat |= _text(body.get("text"))
    chat |= _reasoning(body.get("reasoning"))
    chat |= _caching(body.get("prompt_cache_options"))
    chat |= _logprobs(body)
    if body.get("stream"):
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return chat


def client_field(body: dict[str, Any], field: str) -> str:
    """The field of the client's `body` that a field of its Chat request was made from."""
    place = _PLACE.match(field)
    if place is None:
        return field
    name, index = place[1], int(place[2]) if place[2] else None
    if index is not None and name in ("messages", "tools"):
        origins = ChatMessages(body).origins if name == "messages" else chat_tools(body).origins
        return origins[index] if index < len(origins) else field
    return "input" if name == "messages" else _RENAMED.get(name, field)


def _text(given: Any) -> dict[str, Any]:
    config = mapping(given, "text") if given is not None else {}
    chat: dict[str, Any] = {}
    if config.get("format") is not None:
        form = mapping(config["format"], "text.format")
        kind = text(form.get("type"), "text.format.type")
        if kind == "json_schema":
            schema = {
                key: form[key] for key in ("description", "strict") if form.get(key) is not None
            }
            schema["name"] = text(form.get("name"), "text.format.name")
            schema["schema"] = mapping(form.get("schema"), "text.format.schema")
            chat["response_format"] = {"type": kind, kind: schema}
        elif kind == "json_object":
            chat["response_format"] = {"type": kind}
        elif kind != "text":
            raise Untranslatable(f"text.format: Chat has no {clipped(kind)!r}", "text.format")
    if config.get("verbosity") is not None:
        chat["verbosity"] = config["verbosity"]
    return chat


def _reasoning(given: Any) -> dict[str, Any]:
    config = mapping(given, "reasoning") if given is not None else {}
    if config.get("mode") not in (None, "standard"):
        raise Untranslatable(
            "reasoning.mode: only a model behind Responses has it", "reasoning.mode"
        )
    effort = config.get("effort")
    return {} if effort is None else {"reasoning_effort": effort}


def _caching(given: Any) -> dict[str, Any]:
    at = "prompt_cache_options"
    options = mapping(given, at) if given is not None else {}
    if options.get("prewarm"):
        raise Untranslatable(
            f"{at}.prewarm: Chat has no request without an answer", f"{at}.prewarm"
        )
    kept = {key: options[key] for key in ("mode", "ttl") if options.get(key) is not None}
    return {at: kept} if kept else {}


def _logprobs(body: dict[str, Any]) -> dict[str, Any]:
    include, top = body.get("include"), body.get("top_logprobs")
    asked = include is not None and LOGPROBS in array(include, "include")
    if not asked and not top:
        return {}
    return {"logprobs": True, "top_logprobs": top} if top else {"logprobs": True}
