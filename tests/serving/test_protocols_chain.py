"""Two translations in a row, with small fakes for the inner one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from serving.protocols.base import Event, StreamTranslation, Untranslatable, parse_events
from serving.protocols.chain import chained
from serving.protocols.responses_over_chat import ResponsesOverChat


class Marked:
    """A translation that signs all that passes through it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "through": [*body.get("through", []), self.name]}

    def answer(self, body: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        return {**body, self.name: request.get("through", [])}

    def stream(self, request: dict[str, Any]) -> StreamTranslation:
        return MarkedStream(self.name, request.get("through", []))


class MarkedStream:
    """Signs each event, splits one that says so, and closes with an event of its own."""

    def __init__(self, name: str, through: list[str]) -> None:
        self.name = name
        self.through = through

    def feed(self, event: Event) -> bytes:
        if event.data == b"hold":
            return b""
        pieces = event.data.split(b"|")
        return b"".join(b"data: %b.%b\n\n" % (piece, self.name.encode()) for piece in pieces)

    def finish(self) -> bytes:
        return b"data: end-%b-%d\n\n" % (self.name.encode(), len(self.through))


CHAIN = chained(Marked("outer"), Marked("inner"))


def test_a_request_goes_through_the_outer_first() -> None:
    body: dict[str, Any] = {"a": 1}
    assert CHAIN.request(body) == {"a": 1, "through": ["outer", "inner"]}
    assert body == {"a": 1}


def test_an_answer_comes_back_through_the_inner_first_each_with_its_own_request() -> None:
    answer = CHAIN.answer({"text": "x"}, {"a": 1})
    assert list(answer) == ["text", "inner", "outer"]
    assert answer == {"text": "x", "inner": ["outer"], "outer": []}


def test_a_stream_is_piped_event_by_event() -> None:
    stream = CHAIN.stream({"a": 1})
    assert stream.feed(Event(b"hold")) == b""
    assert stream.feed(Event(b"a|b")) == b"data: a.inner.outer\n\ndata: b.inner.outer\n\n"
    assert stream.finish() == b"data: end-inner-1.outer\n\ndata: end-outer-0\n\n"


class Silent(Marked):
    """An upstream protocol that has no words for much of Chat."""

    def __init__(self, field: str) -> None:
        super().__init__("silent")
        self.field = field

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        raise Untranslatable(f"{self.field} cannot be said", self.field)


BODY = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [
        {"role": "developer", "content": "Dev."},
        {"type": "reasoning", "id": "rs", "summary": []},
        {"role": "user", "content": "x"},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": ""},
    ],
    "tools": [
        {"type": "function", "name": "f"},
        {"type": "namespace", "name": "n", "tools": [{"type": "custom", "name": "g"}]},
    ],
}


@pytest.mark.parametrize(
    ("between", "field"),
    [
        ("messages[0].content", "instructions"),
        ("messages[1].content[0]", "input[2]"),
        ("messages[2].tool_calls[0]", "input[3]"),
        ("messages[3]", "input[4]"),
        ("messages", "input"),
        ("tools[0]", "tools[0]"),
        ("tools[1].custom", "tools[1].tools[0]"),
        ("response_format.json_schema", "text.format"),
        ("max_completion_tokens", "max_output_tokens"),
        ("reasoning_effort", "reasoning.effort"),
        ("logprobs", "top_logprobs"),
        ("service_tier", "service_tier"),
        ("messages[9]", "messages[9]"),
    ],
)
def test_a_field_is_named_as_the_client_calls_it(between: str, field: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        chained(ResponsesOverChat(), Silent(between)).request(BODY)
    assert caught.value.field == field
    assert caught.value.message == f"{field} cannot be said"


def test_an_outer_that_cannot_tell_leaves_the_field_as_it_is() -> None:
    with pytest.raises(Untranslatable) as caught:
        chained(Marked("outer"), Silent("messages[0]")).request({})
    assert caught.value.field == "messages[0]"


class Shouted(Marked):
    """Speaks Chat to clients, and to its upstream a protocol that is one word an event."""

    def answer(self, body: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": body["word"]}
        return {"model": request["model"], "choices": [{"message": message}]}

    def stream(self, request: dict[str, Any]) -> StreamTranslation:
        return ShoutedStream(self.name, [])


class ShoutedStream(MarkedStream):
    def feed(self, event: Event) -> bytes:
        return self._chunk({"content": event.data.decode()}, None)

    def finish(self) -> bytes:
        return self._chunk({}, "stop") + b"data: [DONE]\n\n"

    @staticmethod
    def _chunk(delta: dict[str, Any], finish: str | None) -> bytes:
        chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        return b"data: " + orjson.dumps(chunk) + b"\n\n"


def test_a_client_of_responses_reaches_a_third_protocol() -> None:
    chain = chained(ResponsesOverChat(), Shouted("shouted"))
    assert chain.request(BODY)["messages"][1] == {"role": "user", "content": "x"}
    answer = chain.answer({"word": "Hello"}, BODY)
    assert answer["output"][0]["content"][0]["text"] == "Hello"
    assert answer["tools"] == BODY["tools"]
    stream = chain.stream(BODY)
    told = stream.feed(Event(b"Hel")) + stream.feed(Event(b"lo")) + stream.finish()
    events = [orjson.loads(event.data) for event in parse_events(told)]
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "Hello"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
