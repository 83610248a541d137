"""What an Anthropic client reads of an upstream of Chat Completions, by both official SDKs."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from anthropic.types import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_oracles import raised_by_anthropic, streamed_message, translated
from protocol_strategies import INPUTS, split

from serving.protocols.base import parse_events
from serving.protocols.messages_over_chat import MessagesOverChat
from serving.protocols.messages_over_chat_stream import MessagesStream
from serving.sse import event

OVER = MessagesOverChat()


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def choice(finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}


def answered(first: dict[str, Any], **fields: Any) -> Message:
    body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "gpt", **fields}
    return Message.model_validate(OVER.answer(body | {"choices": [first]}, {}))


def call(id_: str, arguments: Any, name: str = "add") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


class TestAnswer:
    def test_text(self) -> None:
        message = answered(choice(content="Hi"))
        assert (message.id, message.model, message.stop_reason) == ("c1", "gpt", "end_turn")
        assert [block.to_dict() for block in message.content] == [text("Hi")]
        assert message.usage.input_tokens == message.usage.output_tokens == 0

    def test_calls(self) -> None:
        calls = [call("a", '{"x": [1, 2]}'), call("b", ""), call("c", {"y": 1})]
        message = answered(choice("tool_calls", content=None, tool_calls=calls))
        assert message.stop_reason == "tool_use"
        blocks = [block for block in message.content if block.type == "tool_use"]
        assert [block.id for block in blocks] == ["a", "b", "c"]
        assert [block.input for block in blocks] == [{"x": [1, 2]}, {}, {"y": 1}]

    @pytest.mark.parametrize("broken", ['{"x": ', "[1]", '"text"'])
    def test_broken_arguments_are_kept_as_they_are(self, broken: str) -> None:
        message = answered(choice("tool_calls", tool_calls=[call("a", broken)]))
        (block,) = message.content
        assert block.type == "tool_use"
        assert block.input == {"INVALID_JSON": broken}

    @pytest.mark.parametrize(
        ("first", "reason"),
        [
            (choice("length", content="x"), "max_tokens"),
            (choice("content_filter", content="x"), "refusal"),
            (choice("stop", refusal="No."), "refusal"),
            (choice("stop", tool_calls=[call("a", "{}")]), "tool_use"),
            (choice("never heard of", content="x"), "end_turn"),
        ],
    )
    def test_stop_reasons(self, first: dict[str, Any], reason: str) -> None:
        assert answered(first).stop_reason == reason

    @pytest.mark.parametrize("name", ["stop_reason", "matched_stop"])
    def test_servers_that_name_the_stop_sequence(self, name: str) -> None:
        message = answered(choice(content="x") | {name: "END"})
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")
        assert answered(choice(content="x") | {name: 128001}).stop_reason == "end_turn"

    def test_refusals_are_text(self) -> None:
        (block,) = answered(choice(content=None, refusal="No.")).content
        assert block.to_dict() == text("No.")

    @pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
    def test_reasoning_is_thinking(self, name: str) -> None:
        first, second = answered(choice(content="Hi", **{name: "hm"})).content
        assert first.to_dict() == {"type": "thinking", "thinking": "hm", "signature": ""}
        assert second.to_dict() == text("Hi")

    def test_content_in_parts(self) -> None:
        (block,) = answered(choice(content=[text("a"), text("b")])).content
        assert block.to_dict() == text("ab")

    def test_usage_without_the_cached_tokens(self) -> None:
        usage = answered(
            choice(content="x"),
            usage={
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
                "completion_tokens_details": {"reasoning_tokens": 5},
            },
        ).usage
        assert (usage.input_tokens, usage.output_tokens) == (30, 20)
        assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (60, 10)
        assert usage.output_tokens_details is not None
        assert usage.output_tokens_details.thinking_tokens == 5

    @pytest.mark.parametrize(
        "body",
        [{}, [], None, {"choices": []}, {"choices": [{}]}, {"choices": 5}, {"error": {}}],
    )
    def test_no_answer(self, body: Any) -> None:
        with pytest.raises(ValueError, match="without a message"):
            OVER.answer(body, {})


USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}
DONE = b"data: [DONE]\n\n"


def chunk(finish: str | None = None, **delta: Any) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return event({"id": "c1", "model": "gpt", "choices": choices})


def call_chunk(index: int | None, arguments: str, id_: str | None = None) -> bytes:
    function: dict[str, Any] = {"arguments": arguments}
    piece: dict[str, Any] = {} if index is None else {"index": index}
    if id_ is not None:
        piece |= {"id": id_, "type": "function"}
        function["name"] = "add"
    return chunk(tool_calls=[piece | {"function": function}])


def ended(finish: str) -> bytes:
    return chunk(finish) + event({"id": "c1", "choices": [], "usage": USAGE}) + DONE


def streamed(*chunks: bytes) -> Message:
    return streamed_message(translated(OVER.stream({}), b"".join(chunks)))


def inputs(message: Message) -> dict[str, Any]:
    return {block.id: block.input for block in message.content if block.type == "tool_use"}


class TestStream:
    def test_text_with_usage_after_the_end(self) -> None:
        opening = chunk(role="assistant", content="")
        message = streamed(opening, chunk(content="Hel"), chunk(content="lo"), ended("stop"))
        assert [block.to_dict() for block in message.content] == [text("Hello")]
        assert (message.id, message.model, message.stop_reason) == ("c1", "gpt", "end_turn")
        usage = message.usage
        assert usage.input_tokens == 7
        assert usage.cache_read_input_tokens == 2
        assert usage.output_tokens == 4

    def test_reasoning_then_text_then_parallel_calls(self) -> None:
        message = streamed(
            chunk(reasoning_content="h"),
            chunk(reasoning_content="m"),
            chunk(content="Adding"),
            call_chunk(0, "", "a"),
            call_chunk(0, '{"x"'),
            call_chunk(0, ": 1}"),
            call_chunk(1, '{"y": 2}', "b"),
            ended("tool_calls"),
        )
        kinds = [block.type for block in message.content]
        assert kinds == ["thinking", "text", "tool_use", "tool_use"]
        assert inputs(message) == {"a": {"x": 1}, "b": {"y": 2}}
        assert message.stop_reason == "tool_use"

    def test_arguments_that_come_mixed(self) -> None:
        message = streamed(
            call_chunk(0, "", "a"),
            call_chunk(1, "", "b"),
            call_chunk(0, '{"x": {'),
            call_chunk(1, '{"y": '),
            call_chunk(0, "}}"),
            call_chunk(1, "2}"),
            ended("tool_calls"),
        )
        assert inputs(message) == {"a": {"x": {}}, "b": {"y": 2}}

    def test_the_next_call_is_passed_on_while_it_comes(self) -> None:
        stream = MessagesStream()
        for piece in (call_chunk(0, "{}", "a"), call_chunk(1, '{"y', "b")):
            (one,) = parse_events(piece)
            events = stream.feed(one)
        assert b'"partial_json":"{\\"y"' in events

    def test_all_calls_of_one_number(self) -> None:
        message = streamed(call_chunk(0, '{"x":1}', "a"), call_chunk(0, '{"y":2}', "b"), DONE)
        assert inputs(message) == {"a": {"x": 1}, "b": {"y": 2}}

    def test_calls_without_numbers(self) -> None:
        chunks = call_chunk(None, '{"x"', "a"), call_chunk(None, ":1}"), call_chunk(None, "", "b")
        assert inputs(streamed(*chunks, DONE)) == {"a": {"x": 1}, "b": {}}

    def test_ids_and_names_that_are_repeated(self) -> None:
        chunks = call_chunk(0, '{"x"', "a"), call_chunk(0, ":1}", "a"), ended("tool_calls")
        assert inputs(streamed(*chunks)) == {"a": {"x": 1}}

    def test_text_after_a_call(self) -> None:
        message = streamed(call_chunk(0, "{}", "a"), chunk(content="Done"), ended("stop"))
        assert [block.type for block in message.content] == ["tool_use", "text"]

    def test_refusal(self) -> None:
        message = streamed(chunk(refusal="I "), chunk(refusal="won't."), ended("stop"))
        assert [block.to_dict() for block in message.content] == [text("I won't.")]
        assert message.stop_reason == "refusal"

    def test_chunks_without_choices_begin_nothing(self) -> None:
        filtered = event({"id": "", "choices": [], "prompt_filter_results": []})
        message = streamed(filtered, chunk(content="Hi"), DONE)
        assert message.id == "c1"

    def test_a_server_that_sends_no_done(self) -> None:
        assert streamed(chunk(content="Hi"), chunk("length")).stop_reason == "max_tokens"

    def test_an_answer_of_nothing(self) -> None:
        assert streamed(chunk(role="assistant"), ended("stop")).content == []

    def test_after_the_end_there_is_nothing(self) -> None:
        stream = MessagesStream()
        for one in parse_events(chunk(content="Hi") + ended("stop")):
            stream.feed(one)
        (late,) = parse_events(chunk(content="more"))
        assert stream.feed(late) == stream.finish() == b""

    def test_a_cut_stream_is_not_completed(self) -> None:
        stream = MessagesStream()
        fed = b"".join(map(stream.feed, parse_events(chunk(content="Hi"))))
        names = [one.name for one in parse_events(fed)]
        assert names == ["message_start", "content_block_start", "content_block_delta"]

    @pytest.mark.parametrize(
        "rest",
        [
            event({"error": {"message": "too busy", "type": "overloaded_error", "code": None}}),
            event({"error": {"message": "too busy", "code": 529}}),
            event(
                {
                    "error": {"message": "too busy", "code": 529},
                    "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
                }
            ),
        ],
    )
    def test_an_error_of_the_upstream(self, rest: bytes) -> None:
        stream = translated(MessagesStream(), chunk(content="Hi") + rest + DONE)
        assert [one.name for one in parse_events(stream)][-1] == "error"
        error = raised_by_anthropic(stream)
        assert (error.type, error.api_message) == ("overloaded_error", "too busy")

    @pytest.mark.parametrize(
        "stream", [chunk(content="Hi"), b"", DONE, chunk(content="Hi") + b"data: nonsense\n\n"]
    )
    def test_an_answer_that_never_ends_is_an_error(self, stream: bytes) -> None:
        got = translated(MessagesStream(), stream)
        names = [one.name for one in parse_events(got)]
        assert names.count("error") == 1
        assert "message_stop" not in names
        assert raised_by_anthropic(got).type == "api_error"


@settings(max_examples=60, deadline=None)
@given(thought=st.text(), content=st.text(), calls=INPUTS, data=st.data())
def test_a_stream_says_what_a_whole_answer_says_however_it_issplit(
    thought: str, content: str, calls: list[dict[str, Any]], data: st.DataObject
) -> None:
    written = [orjson.dumps(given).decode() for given in calls]
    message: dict[str, Any] = {"content": content, "reasoning_content": thought}
    message["tool_calls"] = [call(f"id{at}", given) for at, given in enumerate(written)]
    finish = "tool_calls" if calls else "stop"
    pieces = [chunk(reasoning_content=piece) for piece in split(thought, data)]
    pieces += [chunk(content=piece) for piece in split(content, data)]
    mixed = [
        [call_chunk(at, "", f"id{at}"), *(call_chunk(at, piece) for piece in split(given, data))]
        for at, given in enumerate(written)
    ]
    while any(mixed):
        pieces.append(data.draw(st.sampled_from([queue for queue in mixed if queue])).pop(0))
    whole = answered(choice(finish, **message), usage=USAGE)
    got = streamed(chunk(role="assistant"), *pieces, ended(finish))
    in_order = sorted(got.content, key=lambda block: getattr(block, "id", ""))
    assert [block.to_dict() for block in in_order] == [b.to_dict() for b in whole.content]
    assert got.usage.model_dump() == whole.usage.model_dump()
    assert got.stop_reason == whole.stop_reason
