"""A Chat Completions request as a Messages request.

https://platform.openai.com/docs/api-reference/chat/create
https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from serving.protocols.base import Untranslatable
from serving.protocols.chat_over_messages_tools import tool_fields
from serving.protocols.chat_over_messages_turns import conversation
from serving.protocols.fields import a_limit, a_number, a_string, an_object, only_here
from serving.protocols.output_schemas import for_anthropic

MAX_USER_CHARACTERS = 256
"""The most that Anthropic takes as `metadata.user_id`; a longer one is sent as its SHA-256."""
MIN_BUDGET = 1024
"""Tokens of the smallest thinking budget that Anthropic takes."""
_BUDGETS: Mapping[str, int] = {"low": 1024, "medium": 4096, "high": 16384}
_EFFORTS: Mapping[str, str] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
# Fields whose effect a client would miss, and how to call them.
_ONLY_THERE = {
    "logprobs": "log-probabilities",
    "top_logprobs": "log-probabilities",
    "logit_bias": "logit bias",
    "audio": "spoken answers",
    "functions": "functions other than `tools`",
    "function_call": "functions other than `tools`",
    "web_search_options": "web search of this protocol",
    "moderation": "moderation of this protocol",
}


@dataclass(frozen=True, slots=True)
class Accepts:
    """What an upstream takes; see ChatOverMessages."""

    max_tokens: int
    sampling: bool
    budgets: bool


def messages_request(body: dict[str, Any], accepts: Accepts) -> dict[str, Any]:
    """The Messages body. Raises Untranslatable."""
    _refuse(body)
    system, turns = conversation(body.get("messages"))
    request: dict[str, Any] = {"max_tokens": _limit(body, accepts), "messages": turns}
    if "model" in body:
        request["model"] = body["model"]
    if stops := _stops(body.get("stop")):
        request["stop_sequences"] = stops
    if user := _user(body):
        request["metadata"] = {"user_id": user}
    if body.get("stream"):
        request["stream"] = True
    request |= tool_fields(body)
    output, instruction = _output_format(body.get("response_format"))
    system += instruction
    if system:
        texts = [{"type": "text", "text": text} for text in system]
        request["system"] = system[0] if len(system) == 1 else texts
    thinking, effort = _thinking(body, request, accepts)
    request |= thinking
    if output | effort:
        request["output_config"] = output | effort
    if accepts.sampling and request.get("thinking", {}).get("type") in (None, "disabled"):
        request |= _sampling(body)
    return request


def _refuse(body: dict[str, Any]) -> None:
    for name, what in _ONLY_THERE.items():
        if body.get(name):
            raise only_here(what, name)
    if body.get("n") not in (None, 1):
        raise only_here("way to answer more than once", "n")
    if body.get("modalities") not in (None, [], ["text"]):
        raise only_here("answers other than text", "modalities")


def _limit(body: dict[str, Any], accepts: Accepts) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        if body.get(name) is not None:
            return a_limit(body[name], name)
    return accepts.max_tokens


def _stops(stop: Any) -> list[str]:
    if stop is None:
        return []
    if not isinstance(stop, list):
        stop = [a_string(stop, "stop")]
    stops = [a_string(text, f"stop[{number}]") for number, text in enumerate(stop)]
    if any(not text.strip() for text in stops):
        raise only_here("stop sequences of nothing but white space", "stop")
    return stops


def _user(body: dict[str, Any]) -> str | None:
    for name in ("safety_identifier", "user"):
        if body.get(name):
            user = a_string(body[name], name)
            long = len(user) > MAX_USER_CHARACTERS
            return hashlib.sha256(user.encode("utf-8", "replace")).hexdigest() if long else user
    return None


def _output_format(wanted: Any) -> tuple[dict[str, Any], list[str]]:
    """The format for `output_config`, or where Anthropic cannot enforce it an instruction for the
    system prompt: for any JSON, and for schemas with open objects or recursion. OpenAI does not
    enforce the former either, except by `strict`, which does not allow open objects."""
    if wanted is None:
        return {}, []
    at = "response_format"
    kind = an_object(wanted, at).get("type")
    if kind == "text":
        return {}, []
    if kind == "json_object":
        return {}, ["Answer with one JSON object and nothing else."]
    if kind != "json_schema":
        raise only_here("such format", f"{at}.type")
    described = an_object(wanted.get("json_schema"), f"{at}.json_schema")
    if described.get("schema") is None:
        return {}, ["Answer with JSON and nothing else."]
    schema = an_object(described["schema"], f"{at}.json_schema.schema")
    if (enforced := for_anthropic(schema)) is not None:
        return {"format": {"type": "json_schema", "schema": enforced}}, []
    try:
        text = orjson.dumps(schema).decode()
    except TypeError:
        raise Untranslatable(f"{at}: the schema is nested too deeply", at) from None
    return {}, [f"Answer with JSON that fits this schema, and with nothing else:\n{text}"]


def _thinking(
    body: dict[str, Any], request: dict[str, Any], accepts: Accepts
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The field `thinking`, and the effort for `output_config`, of `reasoning_effort`."""
    wanted = body.get("reasoning_effort")
    if wanted is None:
        return {}, {}
    if wanted == "none":
        return {"thinking": {"type": "disabled"}}, {}
    effort = _EFFORTS.get(a_string(wanted, "reasoning_effort"))
    if effort is None:
        raise only_here(f"effort {wanted!r}", "reasoning_effort")
    # Thinking and a tool that must be called exclude each other.
    forced = request.get("tool_choice", {}).get("type") in ("any", "tool")
    if not accepts.budgets:
        return {} if forced else {"thinking": {"type": "adaptive"}}, {"effort": effort}
    # Half is left for the answer, since OpenAI's clients do not count thinking separately.
    budget = min(_BUDGETS.get(effort, _BUDGETS["high"]), request["max_tokens"] // 2)
    if forced or budget < MIN_BUDGET or _answers_tools(request["messages"]):
        return {}, {}
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}, {}


def _answers_tools(turns: list[dict[str, Any]]) -> bool:
    """Whether the last turn holds tool results: with a budget, the call must then come with the
    signed thinking before it, which a Chat client cannot give back."""
    last = turns[-1]["content"]
    return isinstance(last, list) and any(block["type"] == "tool_result" for block in last)


def _sampling(body: dict[str, Any]) -> dict[str, Any]:
    """One of the two, since many models refuse both; Anthropic's temperatures end at 1."""
    if body.get("temperature") is not None:
        return {"temperature": min(max(a_number(body["temperature"], "temperature"), 0), 1)}
    if body.get("top_p") is not None:
        return {"top_p": a_number(body["top_p"], "top_p")}
    return {}
