"""Streams of Chat Completions as Responses, read event by event and by the official SDK."""

from __future__ import annotations

import typing
from itertools import pairwise
from typing import Any

import httpx
import openai
import orjson
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

from serving.protocols.base import Protocol, parse_events
from serving.protocols.responses_over_chat import ResponsesOverChat
from serving.sse import EventSplitter

TRANSLATION = ResponsesOverChat()
EVENTS: dict[str, type[BaseModel]] = {
    typing.get_args(kind.model_fields["type"].annotation)[0]: kind
    for kind in typing.get_args(typing.get_args(ResponseStreamEvent)[0])
}
REQUEST: dict[str, Any] = {"model": "router:x", "input": "hi", "stream": True}
USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
DONE = b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    """One event of a Chat stream."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    value = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1000,
        "model": "upstream-model",
        "choices": choices,
        **more,
    }
    return b"data: " + orjson.dumps(value) + b"\n\n"


def call_delta(index: int, **fields: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, **fields}]}


def begun_call(index: int, call_id: str, name: str, arguments: str = "") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return call_delta(index, id=call_id, type="function", function=function)


def more_of_call(index: int, arguments: str) -> dict[str, Any]:
    return call_delta(index, function={"arguments": arguments})


def translated(
    stream: bytes, request: dict[str, Any] | None = None, pieces: list[int] | None = None
) -> bytes:
    """The client's bytes for an upstream's, which arrive cut at `pieces`."""
    translation = TRANSLATION.stream(REQUEST | (request or {}))
    splitter = EventSplitter(Protocol.CHAT)
    cuts = [0, *sorted(pieces or []), len(stream)]
    out = b""
    for start, end in pairwise(cuts):
        for event in parse_events(splitter.feed(stream[start:end])):
            out += translation.feed(event)
    for event in parse_events(splitter.rest()):
        out += translation.feed(event)
    return out + translation.finish()


def events_of(stream: bytes) -> list[dict[str, Any]]:
    """Events of a stream, each checked against the SDK's type of its name."""
    found = []
    for number, event in enumerate(parse_events(stream)):
        value = orjson.loads(event.data)
        assert value["type"] == event.name
        EVENTS[value["type"]].model_validate(value)
        assert value["sequence_number"] == number
        found.append(value)
    return found


def kinds(stream: bytes) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events_of(stream)]


def sdk_client(stream: bytes) -> openai.OpenAI:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream)

    transport = httpx.MockTransport(answer)
    return openai.OpenAI(
        api_key="unused", max_retries=0, http_client=httpx.Client(transport=transport)
    )


def read_by_sdk(stream: bytes) -> Response:
    """The final Response, after the SDK has put its own together from the deltas."""
    with sdk_client(stream).responses.stream(model="m", input="hi") as events:
        said = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        final = events.get_final_response()
    assert final.output_text == said
    return final
