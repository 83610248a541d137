"""What the official SDKs make of bodies and streams, since they know their protocols."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import anthropic
import httpx2
import openai
import typing_extensions
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.message_create_params import (
    MessageCreateParamsNonStreaming,
    MessageCreateParamsStreaming,
)
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import TypeAdapter

from serving.protocols.base import Event, StreamTranslation, parse_events

_EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
_DELTAS = {
    "text": {"text_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
}


def translated(stream: StreamTranslation, upstream: bytes) -> bytes:
    """All that the client gets of an upstream's whole stream."""
    return b"".join(map(stream.feed, parse_events(upstream))) + stream.finish()


def streamed_message(stream: bytes) -> Message:
    """What Anthropic's SDK accumulates of a stream, whose events must also be in order."""
    _check_order(list(parse_events(stream)))
    _served[:] = [stream]
    with _anthropic.messages.stream(
        model="m", max_tokens=1, messages=[{"role": "user", "content": "?"}]
    ) as accumulated:
        return Message.model_validate(accumulated.get_final_message().to_dict())


def streamed_completion(stream: bytes) -> ChatCompletion:
    """What OpenAI's SDK accumulates of a stream, whose chunks must also be valid ones."""
    *chunks, done = parse_events(stream)
    assert done.data == b"[DONE]"
    for chunk in chunks:
        ChatCompletionChunk.model_validate_json(chunk.data)
    _served[:] = [stream]
    with _openai.chat.completions.stream(
        model="m", messages=[{"role": "user", "content": "?"}]
    ) as accumulated:
        accumulated.until_done()
        # The final completion is an error where the answer has no regular end.
        return ChatCompletion.model_validate(accumulated.current_completion_snapshot.to_dict())


def raised_by_anthropic(stream: bytes) -> anthropic.APIStatusError:
    """The error with which Anthropic's SDK ends a stream."""
    _served[:] = [stream]
    try:
        with _anthropic.messages.stream(
            model="m", max_tokens=1, messages=[{"role": "user", "content": "?"}]
        ) as accumulated:
            accumulated.until_done()
    except anthropic.APIStatusError as error:
        return error
    raise AssertionError("the stream ended without an error")


def raised_by_openai(stream: bytes) -> openai.APIError:
    """The error with which OpenAI's SDK ends a stream."""
    _served[:] = [stream]
    try:
        for _ in _openai.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "?"}], stream=True
        ):
            pass
    except openai.APIError as error:
        return error
    raise AssertionError("the stream ended without an error")


def assert_messages_request(body: dict[str, Any]) -> None:
    """A body has only fields that Anthropic's SDK knows, with values of their types."""
    params = MessageCreateParamsStreaming if body.get("stream") else MessageCreateParamsNonStreaming
    assert list(_problems(body, params, "body")) == []


def assert_chat_request(body: dict[str, Any]) -> None:
    """A body has only fields that OpenAI's SDK knows, with values of their types."""
    streaming = body.get("stream")
    params = CompletionCreateParamsStreaming if streaming else CompletionCreateParamsNonStreaming
    assert list(_problems(body, params, "body")) == []


def _serve(_: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=_served[-1])


# Made once: clients are slow to make.
_served: list[bytes] = []
_http = httpx2.Client(transport=httpx2.MockTransport(_serve))
_anthropic = anthropic.Anthropic(api_key="k", http_client=_http, max_retries=0)
_openai = openai.OpenAI(api_key="k", http_client=_http, max_retries=0)


def _check_order(events: list[Event]) -> None:
    """Blocks one after the other between a start and an end: the SDK would not miss any of it."""
    kinds = [_EVENTS.validate_json(event.data) for event in events]
    assert [event.name for event in events] == [kind.type for kind in kinds]
    assert [kind.type for kind in kinds[-2:]] == ["message_delta", "message_stop"]
    assert kinds[0].type == "message_start"
    index, block = 0, None
    for kind in kinds[1:-2]:
        assert kind.index == index
        if kind.type == "content_block_start":
            assert block is None
            block = kind.content_block.type
        elif kind.type == "content_block_delta":
            assert kind.delta.type in _DELTAS[block or ""]
        else:
            assert kind.type == "content_block_stop"
            assert block is not None
            index, block = index + 1, None
    assert block is None


def _problems(value: Any, wanted: Any, at: str) -> Iterator[str]:
    """Where a value is not of a type of an SDK's parameters, which pydantic reads only in part."""
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is Any or wanted is object:
        return
    if origin in (typing.Annotated, typing_extensions.Required, typing.Required):
        yield from _problems(value, args[0], at)
    elif origin in (typing.Union, types.UnionType):
        tried = [list(_problems(value, option, at)) for option in args]
        if all(tried):
            yield min(tried, key=lambda found: (-max(map(len, found)), len(found)))[0]
    elif origin in (typing.Literal, typing_extensions.Literal):
        if value not in args:
            yield f"{at}: {value!r} is not of {args}"
    elif typing_extensions.is_typeddict(wanted):
        yield from _field_problems(value, wanted, at)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            yield f"{at}: no object"
    elif origin is not None:  # a list, an iterable, or a sequence that is no string
        if not isinstance(value, list):
            yield f"{at}: no array"
        for number, entry in enumerate(value if isinstance(value, list) else []):
            yield from _problems(entry, args[0], f"{at}[{number}]")
    elif wanted is float:
        if not isinstance(value, int | float):
            yield f"{at}: no number"
    elif wanted not in (str, int, bool, type(None)) or type(value) is not wanted:
        yield f"{at}: {value!r} is no {wanted}"


@functools.cache
def _hints(wanted: Any) -> dict[str, Any]:
    return typing_extensions.get_type_hints(wanted, include_extras=True)


def _field_problems(value: Any, wanted: Any, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at}: no object"
        return
    hints = _hints(wanted)
    for name in value.keys() - hints.keys():
        yield f"{at}.{name}: unknown"
    for name, hint in hints.items():
        if name in value:
            yield from _problems(value[name], hint, f"{at}.{name}")
        elif typing_extensions.get_origin(hint) is typing_extensions.Required:
            yield f"{at}.{name}: missing"
