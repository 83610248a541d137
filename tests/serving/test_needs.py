"""What a request asks of a model, read off bodies of the three protocols, and who can give it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.eligibility import HARD, Capabilities, why_not
from serving.errors import ApiError
from serving.needs import (
    AUDIO_TOKENS,
    FILE_TOKENS,
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    Need,
    need_of,
    parse_tags,
)
from serving.protocols.base import Protocol

CHAT, RESPONSES, MESSAGES = Protocol.CHAT, Protocol.RESPONSES, Protocol.MESSAGES
BASE64 = "QUJD" * 50_000
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "x" * 400}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        (CHAT, {"messages": [user("x" * 400)]}),
        (CHAT, {"messages": [user([{"type": "text", "text": "x" * 400}])]}),
        (RESPONSES, {"input": [user([{"type": "input_text", "text": "x" * 400}])]}),
        (MESSAGES, {"messages": [user([{"type": "text", "text": "x" * 400}])]}),
    ],
)
def test_the_same_words_are_the_same_tokens_in_every_protocol(
    protocol: Protocol, body: dict[str, Any]
) -> None:
    assert need_of(protocol, body) == Need(prompt_tokens=100 + MESSAGE_TOKENS)


@pytest.mark.parametrize(
    ("protocol", "body", "at_least"),
    [
        (RESPONSES, {"input": "x" * 400}, 100),
        (RESPONSES, {"instructions": "x" * 400, "input": "x" * 400}, 200),
        (RESPONSES, {"input": [{"type": "function_call_output", "output": "x" * 400}]}, 100),
        (RESPONSES, {"input": [{"type": "function_call", "arguments": "x" * 400}]}, 100),
        (MESSAGES, {"system": "x" * 400, "messages": []}, 100),
        (MESSAGES, {"system": [{"type": "text", "text": "x" * 400}], "messages": []}, 100),
        (
            MESSAGES,
            {"messages": [user([{"type": "tool_use", "input": {"code": "x" * 400}}])]},
            100,
        ),
        (
            MESSAGES,
            {"messages": [user([{"type": "tool_result", "content": [{"text": "x" * 400}]}])]},
            100,
        ),
        (
            MESSAGES,
            {
                "messages": [
                    user(
                        [{"type": "document", "source": {"type": "text", "data": "x" * 400}}],
                    )
                ]
            },
            100,
        ),
        (CHAT, {"messages": [{"role": "assistant", "tool_calls": [CALL]}]}, 100),
        (CHAT, {"messages": [user("é" * 400)]}, 200),
        (CHAT, {"messages": [], "tools": [{"function": {"description": "x" * 400}}]}, 100),
    ],
)
def test_whatever_a_model_reads_is_counted(
    protocol: Protocol, body: dict[str, Any], at_least: int
) -> None:
    need = need_of(protocol, body)
    assert at_least <= need.prompt_tokens <= at_least + 20
    assert not need.files


IMAGES = [
    (CHAT, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}}),
    (RESPONSES, {"type": "input_image", "image_url": f"data:image/png;base64,{BASE64}"}),
    (MESSAGES, {"type": "image", "source": {"type": "base64", "data": BASE64}}),
    (
        MESSAGES,
        {
            "type": "tool_result",
            "content": [{"type": "image", "source": {"type": "base64", "data": BASE64}}],
        },
    ),
]


@pytest.mark.parametrize(("protocol", "part"), IMAGES)
def test_an_image_needs_sight_and_is_not_counted_by_its_bytes(
    protocol: Protocol, part: dict[str, Any]
) -> None:
    key = "input" if protocol is RESPONSES else "messages"
    need = need_of(protocol, {key: [user([part])]})
    assert (need.vision, need.audio, need.files) == (True, False, False)
    assert need.prompt_tokens == IMAGE_TOKENS + MESSAGE_TOKENS


def test_audio_and_files_are_told_apart() -> None:
    audio = {"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}}
    need = need_of(CHAT, {"messages": [user([audio])]})
    assert (need.vision, need.audio, need.files) == (False, True, False)
    assert need.prompt_tokens == AUDIO_TOKENS + MESSAGE_TOKENS
    assert need_of(CHAT, {"messages": [user("sing")], "modalities": ["text", "audio"]}).audio
    for protocol, part in (
        (CHAT, {"type": "file", "file": {"file_data": BASE64}}),
        (RESPONSES, {"type": "input_file", "file_data": BASE64}),
        (MESSAGES, {"type": "document", "source": {"type": "base64", "data": BASE64}}),
    ):
        key = "input" if protocol is RESPONSES else "messages"
        need = need_of(protocol, {key: [user([part])]})
        assert (need.vision, need.audio, need.files) == (False, False, True)
        assert need.prompt_tokens == FILE_TOKENS + MESSAGE_TOKENS


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}),
        (CHAT, {"response_format": {"type": "json_object"}}),
        (RESPONSES, {"text": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
        (MESSAGES, {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
        (MESSAGES, {"output_format": {"type": "json_schema", "schema": SCHEMA}}),
    ],
)
def test_a_format_of_the_answer_is_a_need(protocol: Protocol, body: dict[str, Any]) -> None:
    assert need_of(protocol, body).structured_output
    assert not need_of(protocol, {}).structured_output
    assert not need_of(protocol, {"response_format": {"type": "text"}}).structured_output


@pytest.mark.parametrize(
    ("protocol", "body", "cap"),
    [
        (CHAT, {"max_tokens": 7}, 7),
        (CHAT, {"max_tokens": 7, "max_completion_tokens": 9}, 9),
        (RESPONSES, {"max_output_tokens": 7}, 7),
        (RESPONSES, {"max_tokens": 7}, None),
        (MESSAGES, {"max_tokens": 7}, 7),
        (MESSAGES, {"max_tokens": True}, None),
        (MESSAGES, {"max_tokens": -7}, None),
        (MESSAGES, {"max_tokens": "7"}, None),
    ],
)
def test_the_cap_is_the_protocols_own_field(
    protocol: Protocol, body: dict[str, Any], cap: int | None
) -> None:
    assert need_of(protocol, body).max_output_tokens == cap


def test_tools_and_streams_are_needs() -> None:
    need = need_of(CHAT, {"tools": [{"type": "function"}], "stream": True})
    assert (need.tools, need.stream) == (True, True)
    assert need_of(CHAT, {"functions": [{"name": "f"}]}).tools
    need = need_of(CHAT, {"tools": [], "stream": None})
    assert (need.tools, need.stream) == (False, False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "source", "input", "text", "tools", "x"]),
            inner | st.sampled_from(["image", "document", "input_audio", "tool_use"]),
            max_size=5,
        )
    ),
    max_leaves=25,
)
FIELDS = [
    *("messages", "input", "system", "instructions", "tools", "functions", "max_tokens"),
    *("response_format", "text", "output_config", "output_format", "modalities", "stream"),
]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(Protocol), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6))
def test_no_body_is_too_odd(protocol: Protocol, body: dict[str, Any]) -> None:
    need = need_of(protocol, body)
    assert need.prompt_tokens >= 0
    assert need.max_output_tokens is None or need.max_output_tokens > 0


@pytest.mark.parametrize("field", ["messages", "tools"])
def test_depth_is_no_obstacle(field: str) -> None:
    deep: Any = "x" * 400
    for _ in range(5000):
        deep = [{"content": deep}]
    assert need_of(CHAT, {field: deep}).prompt_tokens >= 100


def test_tags_of_a_header() -> None:
    assert parse_tags([]) == ()
    assert parse_tags([" "]) == ()
    both = (("region", "eu"), ("data", "no-train"))
    assert parse_tags(["region=eu, data = no-train"]) == both
    assert parse_tags(["region=eu", "data=no-train"]) == both


@pytest.mark.parametrize(
    "value", ["region", "=eu", "region=", "a=b,", "a=b c", "a=b=c", "a=é", "a=x, a=y", "a=a\nb"]
)
def test_a_header_that_is_no_list_of_tags_is_refused(value: str) -> None:
    with pytest.raises(ApiError, match="x-pointsman-tags") as caught:
        parse_tags([f"ok=1, {value}"])
    assert caught.value.status == 400
    assert caught.value.param == "x-pointsman-tags"


def test_no_more_tags_than_anyone_needs() -> None:
    with pytest.raises(ApiError, match="more than 16"):
        parse_tags([",".join(f"t{i}=x" for i in range(17))])


# Eligibility

EVERYTHING = Need(
    prompt_tokens=1000,
    max_output_tokens=500,
    vision=True,
    audio=True,
    files=True,
    tools=True,
    structured_output=True,
    tags=(("region", "eu"),),
)
EU = {"region": "eu"}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Capabilities(tags=EU), None),
        (Capabilities(), "tags"),
        (Capabilities(tags={"region": "us"}), "tags"),
        (Capabilities(tags=EU, vision=False), "vision"),
        (Capabilities(tags=EU, audio=False), "audio"),
        (Capabilities(tags=EU, files=False), "files"),
        (Capabilities(tags=EU, tools=False), "tools"),
        (Capabilities(tags=EU, structured_output=False), "structured_output"),
        (Capabilities(tags=EU, vision=True, tools=True, context_tokens=1500), None),
        (Capabilities(tags=EU, context_tokens=1499), "context"),
        (Capabilities(tags=EU, max_output_tokens=499), "output"),
        (Capabilities(tags=EU, max_output_tokens=500), None),
        (Capabilities(tags=EU, context_tokens=1, vision=False), "vision"),
    ],
)
def test_only_what_is_known_excludes(model: Capabilities, reason: str | None) -> None:
    assert why_not(model, EVERYTHING) == reason
    assert why_not(model, Need(tags=EVERYTHING.tags)) in (None, "tags")


def test_what_nobody_asked_for_excludes_nobody() -> None:
    unable = Capabilities(vision=False, audio=False, files=False, tools=False, tags={"a": "b"})
    assert why_not(unable, Need(prompt_tokens=10)) is None


def test_two_values_of_one_tag_hold_for_nobody() -> None:
    need = Need(tags=(("region", "eu"), ("region", "us")))
    assert why_not(Capabilities(tags=EU), need) == "tags"


def test_estimates_are_not_hard() -> None:
    assert HARD.isdisjoint({"context", "output"})
