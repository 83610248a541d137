"""A Chat stream as the events of a Response.

https://platform.openai.com/docs/api-reference/responses-streaming

A message or reasoning ends when the model turns to something else, and begins anew should it come
back to it. Calls stay open until the end, since Chat lets the arguments of several come in turns.
"""

from __future__ import annotations

from typing import Any

import orjson

from serving.protocols.base import Event
from serving.protocols.responses_objects import (
    begun,
    citations,
    ended,
    item_status,
    said,
    service_tier,
    thought,
    token_logprobs,
)
from serving.protocols.responses_stream_items import Call, Emitter, Message, Reasoning
from serving.protocols.responses_tools import ToolNames

_TOO_MANY = ("429", "rate_limit_exceeded", "rate_limit_error")


class ResponsesStream:
    """One stream; `request` is the client's body."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request
        self._names = ToolNames(request)
        self._emit = Emitter()
        self._response: dict[str, Any] | None = None
        self._items: list[Message | Reasoning | Call] = []
        self._calls: dict[int, Call] = {}
        self._finish: str | None = None
        self._usage: Any = None
        self._over = False

    def feed(self, event: Event) -> bytes:
        """The events for one of Chat's; raises ValueError for data that is no chunk."""
        if self._over:
            return b""
        if event.data.strip() == b"[DONE]":
            self._complete()
        else:
            chunk = orjson.loads(event.data)
            if not isinstance(chunk, dict):
                raise ValueError("a chunk is no object")
            self._chunk(chunk)
        return self._emit.taken()

    def finish(self) -> bytes:
        """The last events, unless Chat's closing `[DONE]` has brought them already."""
        if not self._over and self._finish is None:
            self._fail("The model's answer ended without a reason.", "server_error")
        elif not self._over:
            self._complete()
        return self._emit.taken()

    def _chunk(self, chunk: dict[str, Any]) -> None:
        choices = chunk.get("choices") or []
        if chunk.get("error") and not choices:
            self._refused(chunk["error"])
            return
        self._begin(chunk)
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        if self._response is not None and (tier := service_tier(chunk)):
            self._response["service_tier"] = tier
        if not isinstance(choices, list) or not all(isinstance(c, dict) for c in choices):
            raise ValueError("choices is no array of objects")
        for choice in choices:
            if choice.get("index") in (0, None):
                self._choice(choice)

    def _choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or {}
        if not isinstance(delta, dict):
            raise ValueError("a delta is no object")
        if reasoning := thought(delta):
            self._reasoning().add(reasoning)
        if text := said(delta.get("content")):
            self._message().add_text(text, token_logprobs(choice))
        if refusal := said(delta.get("refusal")):
            self._message().add_refusal(refusal)
        for annotation in citations(delta.get("annotations")):
            self._message().annotate(annotation)
        calls = delta.get("tool_calls") or []
        if not isinstance(calls, list):
            raise ValueError("tool_calls is no array")
        for call in calls:
            self._call(call)
        if isinstance(choice.get("finish_reason"), str):
            self._finish = choice["finish_reason"]

    def _message(self) -> Message:
        last = self._items[-1] if self._items else None
        if isinstance(last, Message):
            return last
        self._close_talk()
        message = Message(self._emit, len(self._items))
        self._items.append(message)
        return message

    def _reasoning(self) -> Reasoning:
        last = self._items[-1] if self._items else None
        if isinstance(last, Reasoning):
            return last
        self._close_talk()
        reasoning = Reasoning(self._emit, len(self._items))
        self._items.append(reasoning)
        return reasoning

    def _call(self, delta: Any) -> None:
        if not isinstance(delta, dict):
            raise ValueError("a tool call is no object")
        custom = isinstance(delta.get("custom"), dict)
        body = delta.get("custom" if custom else "function") or {}
        if not isinstance(body, dict):
            raise ValueError("a tool call names nothing")
        name, call_id = said(body.get("name")), said(delta.get("id"))
        index = delta.get("index")
        index = index if isinstance(index, int) else 0
        call = self._calls.get(index)
        # Some upstreams number all calls 0, and tell them apart by a new name and id.
        if call is None or (name and call_id and call_id != call.call_id):
            if not name:
                raise ValueError("a tool call has no name")
            self._close_talk()
            call = Call(
                self._emit, len(self._items), call_id, self._names.fields(name), custom=custom
            )
            self._calls[index] = call
            self._items.append(call)
        call.add(said(body.get("input" if custom else "arguments")))

    def _close_talk(self) -> None:
        if self._items and not isinstance(self._items[-1], Call):
            self._items[-1].close("completed")

    def _begin(self, chunk: dict[str, Any]) -> None:
        if self._response is None:
            self._response = begun(self._request, chunk)
            self._emit("response.created", response=self._response)
            self._emit("response.in_progress", response=self._response)

    def _complete(self) -> None:
        self._begin({})
        assert self._response is not None
        status = item_status(self._finish)
        output = self._closed(status)
        response = ended(self._response, output, self._finish, self._usage)
        self._emit(f"response.{status}", response=response)
        self._over = True

    def _refused(self, error: Any) -> None:
        told = error if isinstance(error, dict) else {"message": error}
        limited = any(str(told.get(key)) in _TOO_MANY for key in ("code", "type"))
        self._fail(
            said(told.get("message")) or "The model's provider sent an error.",
            "rate_limit_exceeded" if limited else "server_error",
        )

    def _fail(self, message: str, code: str) -> None:
        self._begin({})
        assert self._response is not None
        response = {
            **self._response,
            "status": "failed",
            "error": {"code": code, "message": message},
            "output": self._closed("incomplete"),
        }
        self._emit("response.failed", response=response)
        self._over = True

    def _closed(self, status: str) -> list[dict[str, Any]]:
        """All items; the last has `status`, those before it are complete."""
        for item in self._items[:-1]:
            item.close("completed")
        if self._items:
            self._items[-1].close(status)
        return [item.item for item in self._items]
