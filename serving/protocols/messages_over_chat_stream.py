"""A stream of Chat completion chunks as a stream of Messages events.

https://platform.claude.com/docs/en/build-with-claude/streaming#event-types
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from serving import sse
from serving.errors import ApiError
from serving.protocols.base import Event, Protocol
from serving.protocols.errors import error_event, reshape_event
from serving.protocols.fields import objects_in
from serving.protocols.messages_over_chat_answer import (
    head,
    stop_reason,
    text_in,
    thinking_in,
    tool_id,
)
from serving.protocols.token_usage import messages_usage
from serving.protocols.tool_arguments import is_whole


class MessagesStream:
    """A StreamTranslation.

    Messages sends its blocks one after the other, while Chat may mix the arguments of several
    calls. So only the first unfinished block is sent as it comes; the others wait for their turn,
    which comes as soon as the arguments of the call before are a whole JSON object.
    """

    def __init__(self) -> None:
        self._started = False
        self._over = False
        self._blocks: list[_Block] = []
        self._calls: dict[int, _Block] = {}
        self._index = 0
        self._ended: dict[str, Any] | None = None
        self._refused = False
        self._usage: Any = None

    def feed(self, event: Event) -> bytes:
        """The client's events for one chunk; usage comes after the choice has ended, so the end is
        told at `[DONE]`, or by finish() for servers that do not send it."""
        if self._over:
            return b""
        if event.data.strip() == b"[DONE]":
            return self._end()
        try:
            chunk = orjson.loads(event.data)
        except orjson.JSONDecodeError:
            return self._broken("sent something that is no chunk of an answer")
        if not isinstance(chunk, dict):
            return self._broken("sent something that is no chunk of an answer")
        if event.name == "error" or chunk.get("error"):
            self._over = True
            return reshape_event(Protocol.MESSAGES, event.data)
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict) or choice.get("index"):
            return b""
        started = self._start(chunk)
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._take(delta)
        if choice.get("finish_reason"):
            self._ended = choice
        return started + self._advance()

    def finish(self) -> bytes:
        """The end, unless it was told before; an error where the answer never ended."""
        if self._over:
            return b""
        if self._ended is None:
            return self._broken("ended the stream before the answer was complete")
        return self._end()

    def _start(self, chunk: dict[str, Any]) -> bytes:
        if self._started:
            return b""
        self._started = True
        message = head(chunk) | {"content": [], "stop_reason": None, "stop_sequence": None}
        return _event("message_start", message=message | {"usage": messages_usage(self._usage)})

    def _take(self, delta: dict[str, Any]) -> None:
        if thought := thinking_in(delta):
            self._said("thinking", thought)
        if text := text_in(delta.get("content")):
            self._said("text", text)
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            self._refused = True
            self._said("text", refusal)
        for call in objects_in(delta.get("tool_calls")):
            self._called(call)

    def _said(self, kind: Literal["text", "thinking"], text: str) -> None:
        if not self._blocks or self._blocks[-1].kind != kind:
            self._blocks.append(_Block(kind))
        self._blocks[-1].add(text)

    def _called(self, call: dict[str, Any]) -> None:
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        name, id_ = function.get("name"), call.get("id")
        index = call.get("index")
        if not isinstance(index, int):
            index = len(self._calls) if id_ else max(len(self._calls) - 1, 0)
        block = self._calls.get(index)
        # Some servers number all calls 0, and tell them apart by their ids.
        if block is None or (name and id_ and block.name and block.id != id_):
            block = _Block("tool_use", id=tool_id(call))
            self._blocks.append(block)
            self._calls[index] = block
        block.name = block.name or name or ""
        if isinstance(function.get("arguments"), str):
            block.add(function["arguments"])

    def _advance(self) -> bytes:
        events = b""
        while self._blocks:
            events += self._blocks[0].flush(self._index)
            if len(self._blocks) == 1 or not self._blocks[0].complete():
                break
            events += self._close()
        return events

    def _close(self) -> bytes:
        closed = self._blocks.pop(0)
        if not closed.started:
            return b""
        self._index += 1
        return _event("content_block_stop", index=self._index - 1)

    def _end(self) -> bytes:
        if not self._started:
            return self._broken("sent no answer")
        self._over = True
        events = b""
        while self._blocks:
            events += self._blocks[0].flush(self._index) + self._close()
        called = any(block.started for block in self._calls.values())
        stop, sequence = stop_reason(self._ended or {}, called=called, refused=self._refused)
        events += _event(
            "message_delta",
            delta={"stop_reason": stop, "stop_sequence": sequence},
            usage=messages_usage(self._usage),
        )
        return events + _event("message_stop")

    def _broken(self, what: str) -> bytes:
        self._over = True
        error = ApiError(502, f"The model's provider {what}.", "upstream_error")
        return error_event(Protocol.MESSAGES, error)


@dataclass(slots=True)
class _Block:
    """A content block that is under way; `pieces` are those that were not sent yet."""

    kind: Literal["text", "thinking", "tool_use"]
    id: str = ""
    name: str = ""
    started: bool = False
    pieces: list[str] = field(default_factory=list)
    _sent: list[str] = field(default_factory=list)

    def add(self, piece: str) -> None:
        if piece:
            self.pieces.append(piece)

    def complete(self) -> bool:
        """Whether nothing more can come once another block has begun."""
        if self.kind != "tool_use":
            return True
        # Most pieces do not end an object, and then the whole need not be parsed.
        return (
            bool(self._sent)
            and self._sent[-1].rstrip().endswith("}")
            and is_whole("".join(self._sent))
        )

    def flush(self, index: int) -> bytes:
        """The events of what has come since; a call whose name is not known yet has none."""
        if self.kind == "tool_use" and not self.name:
            return b""
        events = b""
        if not self.started:
            self.started = True
            events += _event("content_block_start", index=index, content_block=self._empty())
        for piece in self.pieces:
            events += _event("content_block_delta", index=index, delta=self._delta(piece))
        if self.kind == "tool_use":
            self._sent += self.pieces
        self.pieces.clear()
        return events

    def _empty(self) -> dict[str, Any]:
        if self.kind == "tool_use":
            return {"type": "tool_use", "id": self.id, "name": self.name, "input": {}}
        if self.kind == "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
        return {"type": "text", "text": ""}

    def _delta(self, piece: str) -> dict[str, Any]:
        if self.kind == "tool_use":
            return {"type": "input_json_delta", "partial_json": piece}
        return {"type": f"{self.kind}_delta", self.kind: piece}


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\n" + sse.event({"type": kind, **fields})
