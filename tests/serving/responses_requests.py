"""Requests and answers of Responses, checked against the SDK, for tests of their translation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses import Response
from pydantic import TypeAdapter

from serving.protocols.base import Translation
from serving.protocols.responses_over_chat import ResponsesOverChat

TRANSLATION: Translation = ResponsesOverChat()
CHAT_PARAMS: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsNonStreaming)
PICTURE = "data:image/png;base64,AAAA"
LOOK = {
    "type": "function",
    "name": "look",
    "description": "Looks.",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}
PATCH = {
    "type": "custom",
    "name": "patch",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /x/"},
}
SPACE = {
    "type": "namespace",
    "name": "mcp__files",
    "description": "Files.",
    "tools": [{"type": "function", "name": "read", "parameters": {"type": "object"}}],
}


def requested(**fields: Any) -> dict[str, Any]:
    """The Chat request for a Responses body, checked against the SDK's type."""
    body = {"model": "m", "input": "hi", **fields}
    before = copy.deepcopy(body)
    chat = TRANSLATION.request(body)
    assert body == before
    exhausted(CHAT_PARAMS.validate_python({k: v for k, v in chat.items() if k != "stream"}))
    return chat


def exhausted(value: Any) -> None:
    """Pydantic checks the items of an Iterable only when they are read."""
    if isinstance(value, dict):
        for item in value.values():
            exhausted(item)
    elif isinstance(value, list | Iterator) or type(value).__name__ == "ValidatorIterator":
        for item in value:
            exhausted(item)


def messages(*items: Any, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = requested(input=list(items), **fields)["messages"]
    return found


def function_call(call_id: str, name: str, arguments: str = "{}", **more: Any) -> dict[str, Any]:
    return {
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        **more,
    }


def output_of(call_id: str, output: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def answered(
    text: str | None = None,
    calls: list[tuple[str, str, str]] | None = None,
    *,
    finish: str = "stop",
    request: dict[str, Any] | None = None,
    message: dict[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """The Response for a Chat answer, checked against the SDK's type."""
    told = {"role": "assistant", "content": text, "refusal": None, **(message or {})}
    if calls:
        told["tool_calls"] = [
            {"id": i, "type": "function", "function": {"name": n, "arguments": a}}
            for i, n, a in calls
        ]
    chat = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1000,
        "model": "upstream-model",
        "choices": [{"index": 0, "message": told, "finish_reason": finish, "logprobs": None}],
        **fields,
    }
    answer = TRANSLATION.answer(chat, {"model": "router:x", "input": "hi", **(request or {})})
    Response.model_validate(answer)
    return answer
