"""A Chat completion as a Message, and what its stream's translation shares with it."""

from __future__ import annotations

import uuid
from typing import Any

from serving.protocols.fields import objects_in
from serving.protocols.token_usage import messages_usage
from serving.protocols.tool_arguments import parsed

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def message_of(completion: Any) -> dict[str, Any]:
    """The Message of a completion's first choice. Raises ValueError where there is none."""
    choices = completion.get("choices") if isinstance(completion, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    said = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(said, dict):
        raise ValueError("the model's provider sent an answer without a message")
    content: list[dict[str, Any]] = []
    if thought := thinking_in(said):
        # The signature is a proof of Anthropic's; there is none of other models.
        content.append({"type": "thinking", "thinking": thought, "signature": ""})
    if text := text_in(said.get("content")):
        content.append({"type": "text", "text": text})
    refusal = said.get("refusal")
    if refused := isinstance(refusal, str) and bool(refusal):
        content.append({"type": "text", "text": refusal})
    calls = objects_in(said.get("tool_calls"))
    content += [_tool_use(call) for call in calls]
    stop, sequence = stop_reason(choice, called=bool(calls), refused=refused)
    return head(completion) | {
        "content": content,
        "stop_reason": stop,
        "stop_sequence": sequence,
        "usage": messages_usage(completion.get("usage")),
    }


def head(completion: dict[str, Any]) -> dict[str, Any]:
    """The fields of a Message that name it."""
    return {
        "id": completion.get("id") or f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": completion.get("model") or "",
    }


def stop_reason(choice: dict[str, Any], *, called: bool, refused: bool) -> tuple[str, str | None]:
    """Anthropic's stop reason and stop sequence of a choice that ended.

    The sequence is known only of servers that tell it: vLLM calls it `stop_reason` and SGLang
    `matched_stop`; both put a token's number there where it was no text.
    """
    if refused:
        return "refusal", None
    reason = _STOP_REASONS.get(str(choice.get("finish_reason")), "end_turn")
    if reason == "end_turn" and called:  # OpenAI says so of a call that was forced
        return "tool_use", None
    for name in ("stop_reason", "matched_stop"):
        if reason == "end_turn" and isinstance(choice.get(name), str):
            return "stop_sequence", choice[name]
    return reason, None


def thinking_in(message: dict[str, Any]) -> str:
    """Reasoning that servers send beside the content: no part of OpenAI's protocol, but common."""
    for name in ("reasoning_content", "reasoning"):
        value = message.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def text_in(content: Any) -> str:
    """The text of a message's content, which some servers send as parts."""
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in objects_in(content)]
    return "".join(text for text in texts if isinstance(text, str))


def tool_id(call: dict[str, Any]) -> str:
    """A call's id, or a new one where the server gave it none."""
    return call.get("id") or f"toolu_{uuid.uuid4().hex}"


def _tool_use(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    return {
        "type": "tool_use",
        "id": tool_id(call),
        "name": function.get("name") or "",
        "input": parsed(function.get("arguments")),
    }
