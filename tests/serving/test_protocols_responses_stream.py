"""Chat streams as streams of Responses, read by the official SDK, which minds their order."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from broken_json import spoilt
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response
from pydantic import BaseModel
from responses_streams import (
    DONE,
    REQUEST,
    TRANSLATION,
    USAGE,
    begun_call,
    call_delta,
    chunk,
    events_of,
    kinds,
    more_of_call,
    read_by_sdk,
    sdk_client,
    translated,
)

from serving.protocols.base import Event, parse_events

TEXT = (
    chunk({"role": "assistant", "content": ""})
    + chunk({"content": "Hel"})
    + b": keep-alive\n\n"
    + chunk({"content": "lo."})
    + chunk({}, "stop")
    + chunk(usage=USAGE)
    + DONE
)


def test_a_text_stream() -> None:
    stream = translated(TEXT)
    assert kinds(stream) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert b"[DONE]" not in stream
    events = events_of(stream)
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["id"] == events[-1]["response"]["id"]
    assert events[6]["text"] == "Hello."
    final = read_by_sdk(stream)
    assert final.output_text == "Hello."
    assert (final.status, final.model, final.created_at) == ("completed", "upstream-model", 1000)
    assert final.usage is not None
    assert (final.usage.input_tokens, final.usage.output_tokens) == (10, 5)
    assert final.usage.input_tokens_details.cached_tokens == 4
    assert final.usage.output_tokens_details.reasoning_tokens == 2


def test_a_plain_stream_of_the_sdk_reads_every_event() -> None:
    events = list(sdk_client(translated(TEXT)).responses.create(model="m", input="", stream=True))
    assert all(isinstance(event, BaseModel) for event in events)
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_each_event_comes_as_soon_as_the_upstreams() -> None:
    translation = TRANSLATION.stream(REQUEST)
    told = [translation.feed(event) for event in parse_events(TEXT)]
    assert b"response.created" in told[0]
    assert b'"Hel"' in told[1]
    assert b"response.completed" in told[-1]
    assert translation.finish() == b""
    assert translation.feed(Event(b"[DONE]")) == b""


def test_parallel_calls_whose_arguments_come_in_turns() -> None:
    stream = translated(
        chunk({"role": "assistant", "content": "One moment."})
        + chunk(begun_call(0, "call_a", "look"))
        + chunk(more_of_call(0, '{"a"'))
        + chunk(begun_call(1, "call_b", "read", "{"))
        + chunk(more_of_call(0, ": 1}"))
        + chunk(more_of_call(1, "}"))
        + chunk({}, "tool_calls")
        + DONE
    )
    final = read_by_sdk(stream)
    message, *calls = final.output
    assert message.type == "message"
    assert [
        (c.call_id, c.name, c.arguments, c.status) for c in calls if c.type == "function_call"
    ] == [
        ("call_a", "look", '{"a": 1}', "completed"),
        ("call_b", "read", "{}", "completed"),
    ]
    done = [e for e in events_of(stream) if e["type"] == "response.function_call_arguments.done"]
    assert [(e["output_index"], e["arguments"]) for e in done] == [(1, '{"a": 1}'), (2, "{}")]
    # What was said before is done before the first call begins.
    assert kinds(stream).index("output_item.done") < kinds(stream).index(
        "function_call_arguments.delta"
    )


def test_whole_calls_that_are_all_numbered_0() -> None:
    stream = translated(
        chunk(begun_call(0, "a", "look", "{}"))
        + chunk(begun_call(0, "b", "look", "[]"))
        + chunk({}, "tool_calls")
    )
    output = read_by_sdk(stream).output
    assert [(c.call_id, c.arguments) for c in output if c.type == "function_call"] == [
        ("a", "{}"),
        ("b", "[]"),
    ]


def test_calls_under_a_namespace_and_of_custom_tools() -> None:
    tools = [
        {"type": "custom", "name": "patch"},
        {
            "type": "namespace",
            "name": "mcp__files",
            "description": "Files.",
            "tools": [{"type": "function", "name": "read"}],
        },
    ]
    custom = {"id": "b", "type": "custom", "custom": {"name": "patch", "input": "*** "}}
    stream = translated(
        chunk(begun_call(0, "a", "mcp__files__read", "{}"))
        + chunk(call_delta(1, **custom))
        + chunk(call_delta(1, custom={"input": "x"}))
        + chunk({}, "tool_calls")
        + DONE,
        {"tools": tools},
    )
    assert "custom_tool_call_input.done" in kinds(stream)
    call, patch = events_of(stream)[-1]["response"]["output"]
    assert (call["name"], call["namespace"]) == ("read", "mcp__files")
    assert (patch["type"], patch["name"], patch["input"]) == ("custom_tool_call", "patch", "*** x")
    assert read_by_sdk(stream).tools[0].type == "custom"


def test_reasoning_comes_before_the_answer() -> None:
    stream = translated(
        chunk({"reasoning_content": "Let "})
        + chunk({"reasoning": "me see."})
        + chunk({"content": "Four."})
        + chunk({}, "stop")
        + DONE
    )
    told = kinds(stream)
    assert told.index("reasoning_text.done") < told.index("output_text.delta")
    reasoning, message = read_by_sdk(stream).output
    assert reasoning.type == "reasoning"
    assert reasoning.content is not None
    assert reasoning.content[0].text == "Let me see."
    assert message.type == "message"


def test_a_refusal_is_a_part_of_its_own() -> None:
    stream = translated(
        chunk({"content": "Well, "}) + chunk({"refusal": "N"}) + chunk({"refusal": "o."}, "stop")
    )
    refusal = [e for e in events_of(stream) if e["type"].startswith("response.refusal")]
    assert [e["content_index"] for e in refusal] == [1, 1, 1]
    assert refusal[-1]["refusal"] == "No."
    (item,) = read_by_sdk(stream).output
    assert item.type == "message"
    assert [part.type for part in item.content] == ["output_text", "refusal"]


def test_what_is_said_after_a_call_is_another_message() -> None:
    stream = translated(
        chunk({"content": "a"})
        + chunk(begun_call(0, "1", "f"))
        + chunk({"content": "b"})
        + chunk(more_of_call(0, "{}"), "tool_calls")
        + DONE
    )
    final = read_by_sdk(stream)
    assert [item.type for item in final.output] == ["message", "function_call", "message"]
    assert final.output_text == "ab"


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_a_stream_that_was_cut_short(finish: str, reason: str) -> None:
    stream = translated(chunk({"content": "Hel"}) + chunk({}, finish) + DONE)
    last = events_of(stream)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["status"] == "incomplete"
    assert last["response"]["incomplete_details"] == {"reason": reason}
    assert last["response"]["output"][0]["status"] == "incomplete"
    events = list(sdk_client(stream).responses.create(model="m", input="", stream=True))
    assert events[-1].type == "response.incomplete"


def test_log_probabilities_and_citations() -> None:
    token = {"token": "Hi", "bytes": [72, 105], "logprob": -0.1, "top_logprobs": []}
    citation = {"url": "https://example.org", "title": "t", "start_index": 0, "end_index": 2}
    said = {"index": 0, "delta": {"content": "Hi"}, "logprobs": {"content": [token]}}
    annotations = [{"type": "url_citation", "url_citation": citation}]
    stream = translated(chunk(choices=[said]) + chunk({"annotations": annotations}, "stop") + DONE)
    events = events_of(stream)
    delta = next(e for e in events if e["type"] == "response.output_text.delta")
    assert delta["logprobs"] == [{"token": "Hi", "logprob": -0.1, "top_logprobs": []}]
    part = events[-1]["response"]["output"][0]["content"][0]
    assert part["logprobs"] == [token]
    assert part["annotations"] == [{"type": "url_citation", **citation}]
    assert "output_text.annotation.added" in kinds(stream)
    read_by_sdk(stream)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ({"message": "overloaded", "code": 503}, "server_error", "overloaded"),
        ({"message": "slow down", "code": "429"}, "rate_limit_exceeded", "slow down"),
        ("broken", "server_error", "broken"),
    ],
)
def test_an_error_of_the_upstreams_fails_the_response(error: Any, code: str, message: str) -> None:
    broken = b"data: " + orjson.dumps({"error": error}) + b"\n\n"
    stream = translated(chunk({"content": "Hel"}) + broken + DONE)
    last = events_of(stream)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": code, "message": message}
    assert last["response"]["output"][0]["status"] == "incomplete"


def test_an_end_without_a_reason_is_no_completion() -> None:
    assert kinds(translated(chunk({"content": "Hel"})))[-1] == "failed"
    assert kinds(translated(chunk({"content": "Hel"}) + DONE))[-1] == "completed"
    assert kinds(translated(chunk({"content": "Hel"}, "stop")))[-1] == "completed"


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b'{"choices": {"a": 1}}',
        b'{"choices": ["x"]}',
        b'{"choices": [{"delta": "x"}]}',
        b'{"choices": [{"delta": {"tool_calls": 3}}]}',
        b'{"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {}}]}}]}',
    ],
)
def test_what_is_no_chunk(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        TRANSLATION.stream(REQUEST).feed(Event(data))


MIXED = (
    chunk({"role": "assistant", "reasoning": "Hm. "})
    + chunk({"content": "Grüße, "})
    + chunk({"content": "Welt\n\n."})
    + chunk(begun_call(0, "a", "look", '{"a":'))
    + chunk(more_of_call(0, " 1}"))
    + chunk({}, "tool_calls")
    + chunk(usage=USAGE)
    + DONE
)


def test_no_spoilt_chunk_is_a_fault_of_ours() -> None:
    token = {"token": "x", "bytes": [1], "logprob": -1.0, "top_logprobs": []}
    citation = {"url": "u", "title": "t", "start_index": 0, "end_index": 1}
    delta = {
        "content": "x",
        "reasoning": "x",
        "refusal": "x",
        "annotations": [{"url_citation": citation}],
        "tool_calls": [
            {"index": 0, "id": "1", "function": {"name": "f", "arguments": "{}"}},
            {"index": 1, "id": "2", "custom": {"name": "g", "input": "x"}},
        ],
    }
    choice = {"index": 0, "delta": delta, "finish_reason": "stop", "logprobs": {"content": [token]}}
    value = {
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": USAGE,
        "service_tier": "flex",
    }
    count = 0
    for spoiled in spoilt(value):
        stream = TRANSLATION.stream(REQUEST)
        try:
            first = stream.feed(Event(orjson.dumps(spoiled)))
        except ValueError:
            continue
        Response.model_validate(events_of(first + stream.finish())[-1]["response"])
        count += 1
    assert count


def without_chance(text: bytes) -> bytes:
    """Ids in the order of their appearance, and no times."""
    seen: dict[bytes, bytes] = {}
    text = re.sub(rb'"completed_at":\d+', b"", text)
    return re.sub(
        rb"(resp|msg|rs|fc|call)_[0-9a-f]{32}",
        lambda m: seen.setdefault(m[0], b"%b_%d" % (m[1], len(seen))),
        text,
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, len(MIXED) - 1), max_size=12))
def test_where_the_bytes_are_cut_changes_nothing(pieces: list[int]) -> None:
    assert without_chance(translated(MIXED, pieces=pieces)) == without_chance(translated(MIXED))


LETTERS = st.text(alphabet='ab{}" é\n', max_size=12)


@settings(deadline=None, max_examples=40)
@given(LETTERS, LETTERS, LETTERS, st.lists(LETTERS, max_size=2), st.integers(1, 4))
def test_a_stream_ends_with_what_the_whole_answer_says(
    thought: str, said: str, refused: str, asked: list[str], size: int
) -> None:
    message = {
        "reasoning": thought,
        "content": said,
        "refusal": refused,
        "tool_calls": [
            {"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": arguments}}
            for n, arguments in enumerate(asked)
        ],
    }
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"created": 1000, "model": "upstream-model", "usage": USAGE}
    whole = TRANSLATION.answer({**head, "choices": [choice]}, REQUEST)

    def cut(text: str) -> list[str]:
        return [text[at : at + size] for at in range(0, len(text), size)]

    deltas: list[dict[str, Any]] = [
        {field: piece}
        for field in ("reasoning", "content", "refusal")
        for piece in cut(message[field])
    ]
    for number, arguments in enumerate(asked):
        deltas.append(begun_call(number, f"c{number}", "f"))
        deltas += [more_of_call(number, piece) for piece in cut(arguments)]
    stream = b"".join(map(chunk, deltas)) + chunk({}, "stop") + chunk(usage=USAGE) + DONE
    last = events_of(translated(stream))[-1]
    assert last["type"] == "response.completed"
    assert without_chance(orjson.dumps(last["response"])) == without_chance(orjson.dumps(whole))
