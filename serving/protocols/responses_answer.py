"""A whole Chat answer as a Response."""

from __future__ import annotations

from typing import Any

from serving.protocols.responses_objects import (
    begun,
    call_item,
    citations,
    ended,
    item_status,
    message_item,
    new_id,
    reasoning_item,
    reasoning_part,
    refusal_part,
    said,
    text_part,
    thought,
    token_logprobs,
)
from serving.protocols.responses_tools import ToolNames


def response_of(chat: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """The Response; `request` is the client's body. Raises ValueError for no Chat answer."""
    choices = chat.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise ValueError("the answer has no message")
    output: list[dict[str, Any]] = []
    if reasoning := thought(message):
        output.append(reasoning_item(new_id("rs"), [reasoning_part(reasoning)], "completed"))
    content: list[dict[str, Any]] = []
    if text := said(message.get("content")):
        annotations = citations(message.get("annotations"))
        content.append(text_part(text, annotations, token_logprobs(choice)))
    if refusal := said(message.get("refusal")):
        content.append(refusal_part(refusal))
    if content:
        output.append(message_item(new_id("msg"), content, "completed"))
    names = ToolNames(request)
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise ValueError("tool_calls is no array")
    output += [_call(call, names) for call in calls]
    finish = choice.get("finish_reason")
    finish = finish if isinstance(finish, str) else None
    if output:
        output[-1]["status"] = item_status(finish)
    return ended(begun(request, chat), output, finish, chat.get("usage"))


def _call(call: Any, names: ToolNames) -> dict[str, Any]:
    custom = isinstance(call, dict) and isinstance(call.get("custom"), dict)
    body = call.get("custom" if custom else "function") if isinstance(call, dict) else None
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        raise ValueError("a tool call has no name")
    call_id = call.get("id")
    return call_item(
        new_id("ctc" if custom else "fc"),
        call_id if isinstance(call_id, str) and call_id else new_id("call"),
        names.fields(body["name"]),
        said(body.get("input" if custom else "arguments")),
        "completed",
        custom=custom,
    )
