"""A Messages request as a Chat Completions request.

https://platform.claude.com/docs/en/api/messages/create
https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from serving.protocols.base import Untranslatable
from serving.protocols.fields import a_limit, a_number, a_string, an_object, objects, only_here
from serving.protocols.messages_over_chat_blocks import (
    assistant_message,
    blocks_of,
    text_of_blocks,
    user_messages,
)
from serving.protocols.output_schemas import fits_openai

MAX_USER_CHARACTERS = 64
"""The most that OpenAI takes as `user`; a longer one is sent as its SHA-256."""
_MEDIUM_BUDGET, _HIGH_BUDGET = 4096, 16384
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
# Fields that decide what the model can do or where it runs.
_ONLY_THERE = {
    "container": "containers",
    "mcp_servers": "MCP servers of its own",
    "inference_geo": "choice of the region",
}
_HARMLESS_VALUES: tuple[Any, ...] = (None, [], {}, "global")


def chat_request(body: dict[str, Any], *, limit_field: str, effort: bool) -> dict[str, Any]:
    """The Chat body; `limit_field` is what the upstream calls `max_tokens`, and `effort` says
    whether it takes `reasoning_effort`. Raises Untranslatable."""
    for name, what in _ONLY_THERE.items():
        if body.get(name) not in _HARMLESS_VALUES:
            raise only_here(what, name)
    chat: dict[str, Any] = {"messages": _messages(body)}
    if "model" in body:
        chat["model"] = body["model"]
    if body.get("max_tokens") == 0:
        raise only_here("way to fill a cache without an answer", "max_tokens")
    if body.get("max_tokens") is not None:
        chat[limit_field] = a_limit(body["max_tokens"], "max_tokens")
    for name in ("temperature", "top_p"):
        if body.get(name) is not None:
            chat[name] = a_number(body[name], name)
    if stops := body.get("stop_sequences"):
        if not isinstance(stops, list):
            raise Untranslatable("stop_sequences must be an array", "stop_sequences")
        chat["stop"] = stops
    if user := _user(body):
        chat["user"] = user
    if body.get("stream"):
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    chat |= _tools(body)
    output = an_object(body.get("output_config") or {}, "output_config")
    chat |= _response_format(body, output)
    if effort and (asked := _effort(body, output)):
        chat["reasoning_effort"] = asked
    return chat


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    chat: list[dict[str, Any]] = []
    if system := _system(body.get("system") or "", "system"):
        chat.append({"role": "system", "content": system})
    for message, at in objects(body.get("messages"), "messages"):
        role, where = message.get("role"), f"{at}.content"
        if role == "system":
            chat.append({"role": "system", "content": _system(message.get("content"), where)})
        elif role == "user":
            chat += user_messages(blocks_of(message.get("content"), where))
        elif role == "assistant":
            chat += assistant_message(blocks_of(message.get("content"), where))
        else:
            raise Untranslatable(f"{at}.role must be user, assistant or system", f"{at}.role")
    return chat


def _system(content: Any, at: str) -> str:
    # Written as one text: many servers take only a string as a system message.
    return text_of_blocks(blocks_of(content, at))


def _user(body: dict[str, Any]) -> str | None:
    metadata = an_object(body.get("metadata") or {}, "metadata")
    if metadata.get("user_id") is None:
        return None
    user = a_string(metadata["user_id"], "metadata.user_id")
    if len(user) > MAX_USER_CHARACTERS:
        return hashlib.sha256(user.encode("utf-8", "replace")).hexdigest()
    return user


def _tools(body: dict[str, Any]) -> dict[str, Any]:
    """`tools`, and what else is said of them; a choice without tools is refused by OpenAI."""
    tools = [_tool(tool, at) for tool, at in objects(body.get("tools") or [], "tools")]
    if not tools:
        return {}
    fields: dict[str, Any] = {"tools": tools}
    choice = body.get("tool_choice")
    if choice is None:
        return fields
    choice = an_object(choice, "tool_choice")
    fields["tool_choice"] = _tool_choice(choice)
    if choice.get("disable_parallel_tool_use"):
        fields["parallel_tool_calls"] = False
    return fields


def _tool(tool: dict[str, Any], at: str) -> dict[str, Any]:
    if tool.get("type") not in (None, "custom"):
        raise only_here(f"tool {tool['type']!r}", f"{at}.type")
    schema = an_object(tool.get("input_schema"), f"{at}.input_schema")
    name = a_string(tool.get("name"), f"{at}.name")
    function: dict[str, Any] = {"name": name, "parameters": schema}
    if tool.get("description"):
        function["description"] = tool["description"]
    if tool.get("strict") and fits_openai(schema):
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice(choice: dict[str, Any]) -> Any:
    kind = choice.get("type")
    if kind == "tool":
        name = a_string(choice.get("name"), "tool_choice.name")
        return {"type": "function", "function": {"name": name}}
    known = {"auto": "auto", "any": "required", "none": "none"}
    if not isinstance(kind, str) or kind not in known:
        raise only_here("such choice", "tool_choice.type")
    return known[kind]


def _response_format(body: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
    # Before it moved into output_config, a beta had the format at the top.
    at = "output_config.format" if output.get("format") is not None else "output_format"
    wanted = output.get("format") or body.get("output_format")
    if wanted is None:
        return {}
    if an_object(wanted, at).get("type") != "json_schema":
        raise only_here("such output format", f"{at}.type")
    schema = an_object(wanted.get("schema"), f"{at}.schema")
    described = {"name": "output", "schema": schema, "strict": fits_openai(schema)}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def _effort(body: dict[str, Any], output: dict[str, Any]) -> str | None:
    """The effort asked for by name, else one in proportion to the budget; None where neither is
    said. Thinking that is switched off is not told: `none` is refused by models that must think."""
    named = output.get("effort")
    if named is not None and named not in _EFFORTS:
        raise Untranslatable(f"output_config.effort must be of {_EFFORTS}", "output_config.effort")
    thinking = an_object(body.get("thinking") or {}, "thinking")
    if named is not None or thinking.get("type") != "enabled":
        return named
    budget = a_number(thinking.get("budget_tokens"), "thinking.budget_tokens")
    return _level(budget, ((_HIGH_BUDGET, "high"), (_MEDIUM_BUDGET, "medium")))


def _level(budget: float, levels: Iterable[tuple[int, str]]) -> str:
    return next((name for least, name in levels if budget >= least), "low")
