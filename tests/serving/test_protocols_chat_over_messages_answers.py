"""What an OpenAI client reads of an upstream of Anthropic's Messages, by both official SDKs."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from protocol_oracles import raised_by_openai, streamed_completion, translated
from protocol_strategies import INPUTS, split

from serving.protocols.base import parse_events
from serving.protocols.chat_over_messages import ChatOverMessages

OVER = ChatOverMessages()


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def message(*content: dict[str, Any], stop: str = "end_turn", **fields: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": list(content),
        "stop_reason": stop,
        "usage": USAGE,
        **fields,
    }


USAGE = {
    "input_tokens": 30,
    "cache_read_input_tokens": 60,
    "cache_creation_input_tokens": 10,
    "output_tokens": 20,
    "output_tokens_details": {"thinking_tokens": 5},
}


def answered(body: dict[str, Any]) -> ChatCompletion:
    return ChatCompletion.model_validate(OVER.answer(body, {}))


class TestAnswer:
    def test_text_and_thinking(self) -> None:
        thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
        completion = answered(message(thinking, text("a"), text("b")))
        (choice,) = completion.choices
        assert (completion.id, completion.model) == ("msg_1", "claude")
        assert (choice.message.content, choice.finish_reason) == ("ab", "stop")
        assert choice.message.to_dict()["reasoning_content"] == "hm"

    def test_calls(self) -> None:
        use = {"type": "tool_use", "id": "t1", "name": "add", "input": {"x": [1]}}
        (choice,) = answered(message(use, use | {"id": "t2", "input": {}}, stop="tool_use")).choices
        calls = choice.message.tool_calls or []
        assert choice.message.content is None
        assert choice.finish_reason == "tool_calls"
        assert [call.id for call in calls] == ["t1", "t2"]
        arguments = [call.function.arguments for call in calls if call.type == "function"]
        assert arguments == ['{"x":[1]}', "{}"]

    @pytest.mark.parametrize(
        ("stop", "finish"),
        [
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("stop_sequence", "stop"),
            ("pause_turn", "stop"),
            ("refusal", "content_filter"),
            ("never heard of", "stop"),
        ],
    )
    def test_finish_reasons(self, stop: str, finish: str) -> None:
        assert answered(message(text("x"), stop=stop)).choices[0].finish_reason == finish

    def test_refusals_are_explained(self) -> None:
        details = {"type": "refusal", "explanation": "Too risky."}
        (choice,) = answered(message(stop="refusal", stop_details=details)).choices
        assert choice.message.refusal == "Too risky."

    def test_usage_with_the_cached_tokens(self) -> None:
        usage = answered(message(text("x"))).usage
        assert usage is not None
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (100, 20, 120)
        assert usage.prompt_tokens_details is not None
        assert usage.prompt_tokens_details.cached_tokens == 60
        assert usage.prompt_tokens_details.cache_write_tokens == 10
        assert usage.completion_tokens_details is not None
        assert usage.completion_tokens_details.reasoning_tokens == 5

    def test_an_answer_of_nothing(self) -> None:
        assert answered(message()).choices[0].message.content is None

    @pytest.mark.parametrize("body", [{}, [], None, {"type": "error", "error": {}}])
    def test_no_answer(self, body: Any) -> None:
        with pytest.raises(ValueError, match="without content"):
            OVER.answer(body, {})


def sent(kind: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
    events = sent("content_block_start", index=index, content_block=start)
    for delta in deltas:
        events += sent("content_block_delta", index=index, delta=delta)
    return events + sent("content_block_stop", index=index)


def text_block(index: int, *pieces: str) -> bytes:
    return block(index, text(""), *({"type": "text_delta", "text": piece} for piece in pieces))


def thinking_block(index: int, *pieces: str) -> bytes:
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    deltas.append({"type": "signature_delta", "signature": "s"})
    return block(index, {"type": "thinking", "thinking": "", "signature": ""}, *deltas)


def call_block(index: int, id_: str, *pieces: str, **given: Any) -> bytes:
    start = {"type": "tool_use", "id": id_, "name": "add", "input": given}
    deltas = ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)
    return block(index, start, *deltas)


START = sent(
    "message_start",
    message=message(
        stop_reason=None, usage=USAGE | {"output_tokens": 1, "output_tokens_details": None}
    ),
)


def stopped(stop: str = "end_turn", **fields: Any) -> bytes:
    counts = {"output_tokens": 20, "output_tokens_details": {"thinking_tokens": 5}}
    return sent("message_delta", delta={"stop_reason": stop, **fields}, usage=counts)


END = sent("message_stop")
COUNTED = {"stream_options": {"include_usage": True}}


def streamed(*events: bytes, request: dict[str, Any] = COUNTED) -> ChatCompletion:
    return streamed_completion(translated(OVER.stream(request), b"".join(events)))


def arguments(completion: ChatCompletion) -> dict[str, Any]:
    calls = completion.choices[0].message.tool_calls or []
    return {c.id: orjson.loads(c.function.arguments) for c in calls if c.type == "function"}


class TestStream:
    def test_text_with_usage(self) -> None:
        completion = streamed(START, sent("ping"), text_block(0, "Hel", "lo"), stopped(), END)
        assert completion.choices[0].message.content == "Hello"
        assert completion.choices[0].finish_reason == "stop"
        assert completion.usage == answered(message()).usage

    def test_usage_only_where_it_was_asked_for(self) -> None:
        events = START + text_block(0, "Hi") + stopped() + END
        chunks = translated(OVER.stream({"stream_options": None}), events)
        assert b"usage" not in chunks
        asked_for = list(parse_events(translated(OVER.stream(COUNTED), events)))
        *others, counted = [orjson.loads(one.data) for one in asked_for[:-1]]
        assert counted["choices"] == []
        assert all(chunk["usage"] is None for chunk in others)

    def test_the_role_comes_first(self) -> None:
        chunks = parse_events(translated(OVER.stream({}), START + text_block(0, "Hi") + stopped()))
        assert orjson.loads(next(chunks).data)["choices"][0]["delta"]["role"] == "assistant"

    def test_thinking_then_text_then_parallel_calls(self) -> None:
        completion = streamed(
            START,
            thinking_block(0, "h", "m"),
            text_block(1, "Adding"),
            call_block(2, "a", "", '{"x"', ": 1}"),
            call_block(3, "b"),
            call_block(4, "c", x=3),
            stopped("tool_use"),
            END,
        )
        said = completion.choices[0].message
        assert said.content == "Adding"
        assert said.to_dict()["reasoning_content"] == "hm"
        assert arguments(completion) == {"a": {"x": 1}, "b": {}, "c": {"x": 3}}
        assert completion.choices[0].finish_reason == "tool_calls"

    def test_a_refusal(self) -> None:
        details = {"type": "refusal", "explanation": "Too risky."}
        completion = streamed(START, stopped("refusal", stop_details=details), END)
        assert completion.choices[0].finish_reason == "content_filter"
        assert completion.choices[0].message.refusal == "Too risky."

    def test_what_newer_apis_add_is_passed_over(self) -> None:
        cited = {"type": "citations_delta", "citation": {}}
        events = block(0, {"type": "new_block"}, {"type": "new_delta"}), block(1, text("Hi"), cited)
        completion = streamed(START, *events, sent("new_event"), stopped(), END)
        assert completion.choices[0].message.content == "Hi"

    def test_after_the_end_there_is_nothing(self) -> None:
        stream = OVER.stream({})
        for one in parse_events(START + text_block(0, "Hi") + stopped() + END):
            stream.feed(one)
        (late,) = parse_events(END)
        assert stream.feed(late) == stream.finish() == b""

    def test_a_server_that_does_not_send_the_last_event(self) -> None:
        assert streamed(START, stopped("max_tokens")).choices[0].finish_reason == "length"

    def test_a_cut_stream_is_not_completed(self) -> None:
        stream = OVER.stream(COUNTED)
        fed = b"".join(map(stream.feed, parse_events(START + text_block(0, "Hi"))))
        assert b"[DONE]" not in fed
        reasons = [
            orjson.loads(one.data)["choices"][0]["finish_reason"] for one in parse_events(fed)
        ]
        assert reasons == [None, None]

    def test_an_error_of_the_upstream(self) -> None:
        error = {"type": "overloaded_error", "message": "too busy"}
        events = START + text_block(0, "Hi") + sent("error", error=error)
        stream = translated(OVER.stream({}), events + END)
        assert b"[DONE]" not in stream
        raised = raised_by_openai(stream)
        assert (raised.message, raised.type) == ("too busy", "overloaded_error")

    @pytest.mark.parametrize(
        "events", [b"", START + text_block(0, "Hi"), START + b"data: nonsense\n\n" + END, END]
    )
    def test_an_answer_that_never_ends_is_an_error(self, events: bytes) -> None:
        stream = translated(OVER.stream({}), events)
        assert stream.count(b'"error"') == 1
        assert b"[DONE]" not in stream
        assert raised_by_openai(stream).type == "upstream_error"


@settings(max_examples=60, deadline=None)
@given(st.text(), st.text(), INPUTS, st.data())
def test_a_stream_says_what_a_whole_answer_says_however_it_issplit(
    thought: str, content: str, inputs: list[dict[str, Any]], data: st.DataObject
) -> None:
    uses = [
        {"type": "tool_use", "id": f"t{at}", "name": "add", "input": value}
        for at, value in enumerate(inputs)
    ]
    blocks = [{"type": "thinking", "thinking": thought, "signature": "s"}, text(content), *uses]
    events = thinking_block(0, *split(thought, data)) + text_block(1, *split(content, data))
    for at, value in enumerate(inputs):
        pieces = split(orjson.dumps(value).decode(), data)
        events += call_block(at + 2, f"t{at}", *pieces)
    whole = answered(message(*blocks, stop="tool_use"))
    got = streamed(START, events, stopped("tool_use"), END)
    said, expected = got.choices[0].message, whole.choices[0].message
    assert (said.content or None) == expected.content
    assert said.to_dict().get("reasoning_content") == expected.to_dict().get("reasoning_content")
    assert arguments(got) == arguments(whole)
    assert got.usage == whole.usage
    assert got.choices[0].finish_reason == whole.choices[0].finish_reason
