"""A Message as a Chat completion, and what its stream's translation shares with it."""

from __future__ import annotations

import time
import uuid
from typing import Any

from serving.protocols.fields import objects_in
from serving.protocols.token_usage import chat_usage
from serving.protocols.tool_arguments import written

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def completion_of(message: Any) -> dict[str, Any]:
    """The completion of a Message. Raises ValueError for what is none.

    Blocks of tools that a server runs, which no Chat request can ask for, are left out.
    """
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(content, list):
        raise ValueError("the model's provider sent an answer without content")
    blocks = objects_in(content)
    said: dict[str, Any] = {
        "role": "assistant",
        "content": _joined(blocks, "text"),
        "refusal": refusal(message.get("stop_details")),
    }
    if (thought := _joined(blocks, "thinking")) is not None:
        said["reasoning_content"] = thought
    if calls := [_call(block) for block in blocks if block.get("type") == "tool_use"]:
        said["tool_calls"] = calls
    choice = {
        "index": 0,
        "message": said,
        "logprobs": None,
        "finish_reason": finish_reason(message.get("stop_reason")),
    }
    usage = chat_usage(message.get("usage"))
    return head(message, "chat.completion") | {"choices": [choice], "usage": usage}


def head(message: dict[str, Any], kind: str) -> dict[str, Any]:
    """The fields of a completion, or of a chunk, that name it."""
    return {
        "id": message.get("id") or f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": message.get("model") or "",
    }


def finish_reason(stop_reason: Any) -> str:
    """OpenAI's word for why the answer ended."""
    return _FINISH_REASONS.get(str(stop_reason), "stop")


def refusal(details: Any) -> str | None:
    """What a refusal's details explain, if anything."""
    text = details.get("explanation") if isinstance(details, dict) else None
    return text if isinstance(text, str) and text else None


def _joined(blocks: list[dict[str, Any]], kind: str) -> str | None:
    """The text of all blocks of a kind, whose field has the same name; None without any."""
    texts = [block.get(kind) for block in blocks if block.get("type") == kind]
    return "".join(text for text in texts if isinstance(text, str)) or None


def _call(block: dict[str, Any]) -> dict[str, Any]:
    given = block.get("input")
    arguments = written(given if isinstance(given, dict) else {})
    function = {"name": block.get("name") or "", "arguments": arguments}
    id_ = block.get("id") or f"call_{uuid.uuid4().hex}"
    return {"id": id_, "type": "function", "function": function}
