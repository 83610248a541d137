"""A stream of Messages events as a stream of Chat completion chunks.

https://platform.openai.com/docs/api-reference/chat/streaming
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import orjson

from serving import sse
from serving.errors import ApiError
from serving.protocols.base import Event, Protocol
from serving.protocols.chat_over_messages_answer import finish_reason, head, refusal
from serving.protocols.errors import error_event, reshape_event
from serving.protocols.token_usage import chat_usage
from serving.protocols.tool_arguments import written

DONE = b"data: [DONE]\n\n"
_TEXTS = {"text": "content", "thinking": "reasoning_content"}
"""Fields of a delta for what is written in a block, by the block's type."""


class ChatStream:
    """A StreamTranslation; with `usage` the counts come in a chunk of their own, before the end."""

    def __init__(self, *, usage: bool) -> None:
        self._told_usage = usage
        self._head: dict[str, Any] | None = None
        self._over = False
        self._calls: dict[int, _Call] = {}
        self._stop: str | None = None
        self._usage: dict[str, Any] = {}

    def feed(self, event: Event) -> bytes:
        """The client's chunks for one event; pings and what newer APIs add have none."""
        if self._over:
            return b""
        try:
            value = orjson.loads(event.data)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            return self._broken("sent something that is no event of an answer")
        kind = value.get("type") or event.name
        if kind == "error" or value.get("error"):
            self._over = True
            return reshape_event(Protocol.CHAT, event.data)
        if kind == "message_start":
            return self._start(_part(value, "message"))
        if self._head is None:
            return b""
        if kind == "content_block_start":
            return self._begin(_index(value), _part(value, "content_block"))
        if kind == "content_block_delta":
            return self._delta(_index(value), _part(value, "delta"))
        if kind == "content_block_stop":
            return self._complete(_index(value))
        if kind == "message_delta":
            return self._message_delta(value)
        return self._end() if kind == "message_stop" else b""

    def finish(self) -> bytes:
        """The end, unless it was told before; an error where the answer never ended."""
        if self._over:
            return b""
        if self._stop is None:
            return self._broken("ended the stream before the answer was complete")
        return self._end()

    def _start(self, message: dict[str, Any]) -> bytes:
        if self._head is not None:
            return b""
        self._head = head(message, "chat.completion.chunk")
        self._count(message.get("usage"))
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def _begin(self, index: int, block: dict[str, Any]) -> bytes:
        kind = block.get("type")
        if kind == "tool_use":
            given = block.get("input")
            call = _Call(len(self._calls), given if isinstance(given, dict) else {})
            self._calls[index] = call
            return self._chunk(
                {
                    "tool_calls": [
                        {
                            "index": call.number,
                            "id": block.get("id") or f"call_{uuid.uuid4().hex}",
                            "type": "function",
                            "function": {"name": block.get("name") or "", "arguments": ""},
                        }
                    ]
                }
            )
        return self._write(kind, block)

    def _delta(self, index: int, delta: dict[str, Any]) -> bytes:
        kind = delta.get("type")
        if kind == "input_json_delta":
            return self._arguments(self._calls.get(index), delta.get("partial_json"))
        return self._write(kind.removesuffix("_delta") if isinstance(kind, str) else None, delta)

    def _write(self, kind: Any, holder: dict[str, Any]) -> bytes:
        if not isinstance(kind, str) or kind not in _TEXTS:
            return b""
        text = holder.get(kind)
        return self._chunk({_TEXTS[kind]: text}) if isinstance(text, str) and text else b""

    def _arguments(self, call: _Call | None, piece: Any) -> bytes:
        if call is None or not isinstance(piece, str) or not piece:
            return b""
        call.written = True
        arguments = {"index": call.number, "function": {"arguments": piece}}
        return self._chunk({"tool_calls": [arguments]})

    def _complete(self, index: int) -> bytes:
        """Arguments that came with the block's start, or none at all, which OpenAI writes too."""
        call = self._calls.get(index)
        if call is None or call.written:
            return b""
        try:
            return self._arguments(call, written(call.input))
        except ValueError:
            return self._broken("called a tool with an input that is nested too deeply")

    def _message_delta(self, value: dict[str, Any]) -> bytes:
        delta = _part(value, "delta")
        self._count(value.get("usage"))
        if delta.get("stop_reason") is not None:
            self._stop = finish_reason(delta["stop_reason"])
        said = refusal(delta.get("stop_details"))
        return self._chunk({"refusal": said}) if said else b""

    def _count(self, usage: Any) -> None:
        """Counts of a message_delta are totals that take the place of those before."""
        if isinstance(usage, dict):
            self._usage |= {name: count for name, count in usage.items() if count is not None}

    def _end(self) -> bytes:
        self._over = True
        chunks = self._chunk({}, self._stop or "stop")
        if self._told_usage:
            assert self._head is not None, "only a stream that started can end"
            usage = chat_usage(self._usage)
            chunks += sse.event(self._head | {"choices": [], "usage": usage})
        return chunks + DONE

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        assert self._head is not None, "message_start comes first"
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = self._head | {"choices": [choice]}
        return sse.event(chunk | {"usage": None} if self._told_usage else chunk)

    def _broken(self, what: str) -> bytes:
        self._over = True
        error = ApiError(502, f"The model's provider {what}.", "upstream_error")
        return error_event(Protocol.CHAT, error)


@dataclass(slots=True)
class _Call:
    """A tool call under way: its number among the calls, and the input that its start held."""

    number: int
    input: dict[str, Any]
    written: bool = False


def _part(value: dict[str, Any], name: str) -> dict[str, Any]:
    part = value.get(name)
    return part if isinstance(part, dict) else {}


def _index(value: dict[str, Any]) -> int:
    index = value.get("index")
    return index if isinstance(index, int) else -1
