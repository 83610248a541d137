"""Responses clients over Chat upstreams, whole: the official SDK's types are the oracle of both."""

from __future__ import annotations

from typing import Any

import pytest
from responses_requests import (
    LOOK,
    PATCH,
    PICTURE,
    SPACE,
    answered,
    function_call,
    messages,
    output_of,
    requested,
)


def test_a_string_is_what_the_user_says() -> None:
    assert requested() == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_an_agents_conversation_becomes_chat_turns() -> None:
    turns = messages(
        {
            "type": "message",
            "role": "developer",
            "content": [{"type": "input_text", "text": "Dev."}],
        },
        {"role": "user", "content": "list the files"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "One ", "annotations": []},
                {"type": "output_text", "text": "moment.", "annotations": []},
            ],
        },
        function_call("call_1", "ls", '{"at": "."}', id="fc_1", status="completed"),
        {"type": "custom_tool_call", "call_id": "call_2", "name": "grep", "input": "x y"},
        output_of("call_1", "main.py"),
        {"type": "reasoning", "id": "rs_2", "summary": []},
        {
            "type": "custom_tool_call_output",
            "call_id": "call_2",
            "output": [{"type": "input_text", "text": "1: x y"}],
        },
        function_call("call_3", "cat"),
        output_of("call_3", ""),
        {"role": "user", "content": [{"type": "input_text", "text": "thanks"}]},
        instructions="Be brief.",
    )
    function = {"name": "ls", "arguments": '{"at": "."}'}
    assert turns == [
        {"role": "system", "content": "Be brief.\n\nDev."},
        {"role": "user", "content": "list the files"},
        {
            "role": "assistant",
            "content": "One moment.",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": function},
                {"id": "call_2", "type": "custom", "custom": {"name": "grep", "input": "x y"}},
            ],
        },
        {"role": "tool", "content": "main.py", "tool_call_id": "call_1"},
        {"role": "tool", "content": "1: x y", "tool_call_id": "call_2"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_3",
                    "type": "function",
                    "function": {"name": "cat", "arguments": "{}"},
                }
            ],
        },
        {"role": "tool", "content": "", "tool_call_id": "call_3"},
        {"role": "user", "content": "thanks"},
    ]


def test_a_users_parts_become_chats() -> None:
    parts = [
        {"type": "input_text", "text": "look", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "input_image", "image_url": PICTURE, "detail": "low", "file_id": None},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
        {"type": "input_file", "file_id": "file-1", "detail": "low"},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
    ]
    (turn,) = messages({"role": "user", "content": parts})
    assert turn["content"] == [
        {"type": "text", "text": "look", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
        },
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
    ]


def test_a_refusal_is_something_the_assistant_said() -> None:
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    assert messages({"role": "user", "content": "x"}, refusal)[1]["content"] == "No."


def test_pictures_of_tools_follow_their_results_in_a_users_turn() -> None:
    picture = {"type": "input_image", "image_url": PICTURE}
    turns = messages(
        {"role": "user", "content": "look at both"},
        function_call("a", "shot"),
        function_call("b", "shot"),
        output_of("a", [{"type": "input_text", "text": "taken"}, picture]),
        output_of("b", [picture]),
        {"role": "assistant", "content": "Seen."},
    )
    assert [turn["role"] for turn in turns] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "user",
        "assistant",
    ]
    assert [turn["content"] for turn in turns[2:4]] == ["taken", ""]
    image = {"type": "image_url", "image_url": {"url": PICTURE}}
    assert turns[4]["content"] == [
        {"type": "text", "text": "Output of a:"},
        image,
        {"type": "text", "text": "Output of b:"},
        image,
    ]


def test_fields_that_chat_has_too() -> None:
    same = {
        "temperature": 0.0,
        "top_p": 0.5,
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "service_tier": "flex",
    }
    chat = requested(
        **same,
        max_output_tokens=7,
        reasoning={"effort": "low", "summary": "auto"},
        text={"verbosity": "high", "format": {"type": "text"}},
        prompt_cache_options={"mode": "explicit", "ttl": "30m", "comparison_response_id": "r"},
        top_logprobs=3,
        stream=True,
        stream_options={"include_obfuscation": False},
    )
    del chat["messages"]
    assert chat == {
        "model": "m",
        **same,
        "max_completion_tokens": 7,
        "reasoning_effort": "low",
        "verbosity": "high",
        "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
        "logprobs": True,
        "top_logprobs": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_nulls_and_what_only_a_store_would_need_are_left_out() -> None:
    nulls: dict[str, Any] = dict.fromkeys(
        (
            "instructions",
            "temperature",
            "tools",
            "tool_choice",
            "text",
            "reasoning",
            "user",
        )
    )
    chat = requested(
        **nulls,
        store=True,
        metadata={"a": "b"},
        truncation="auto",
        include=["reasoning.encrypted_content"],
        max_tool_calls=3,
        background=False,
        previous_response_id=None,
        context_management=[],
        stream=False,
        routing_preferences=[],
    )
    assert set(chat) == {"model", "messages"}


def test_log_probabilities_may_be_asked_for_by_include() -> None:
    chat = requested(include=["message.output_text.logprobs"], top_logprobs=0)
    assert chat["logprobs"] is True
    assert "top_logprobs" not in chat


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
            {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
            },
        ),
    ],
)
def test_forms_of_the_answer(form: dict[str, Any], expected: dict[str, Any]) -> None:
    assert requested(text={"format": form})["response_format"] == expected


def test_tools() -> None:
    chat = requested(tools=[LOOK, PATCH, SPACE], tool_choice="auto", parallel_tool_calls=False)
    function = {key: value for key, value in LOOK.items() if key != "type"}
    grammar = {"syntax": "lark", "definition": "start: /x/"}
    custom = {"name": "patch", "format": {"type": "grammar", "grammar": grammar}}
    read = {"name": "mcp__files__read", "parameters": {"type": "object"}}
    assert chat["tools"] == [
        {"type": "function", "function": function},
        {"type": "custom", "custom": custom},
        {"type": "function", "function": read},
    ]
    assert chat["tool_choice"] == "auto"
    assert chat["parallel_tool_calls"] is False


def test_a_choice_among_no_tools_is_left_out() -> None:
    chat = requested(tools=[], tool_choice="auto", parallel_tool_calls=True)
    assert set(chat) == {"model", "messages"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", "required"),
        ({"type": "function", "name": "look"}, {"type": "function", "function": {"name": "look"}}),
        ({"type": "custom", "name": "patch"}, {"type": "custom", "custom": {"name": "patch"}}),
    ],
)
def test_choices_of_a_tool(choice: Any, expected: Any) -> None:
    assert requested(tools=[LOOK, PATCH], tool_choice=choice)["tool_choice"] == expected


def test_allowed_tools_are_the_only_ones_offered() -> None:
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{**PATCH}]}
    chat = requested(tools=[LOOK, PATCH], tool_choice=allowed)
    assert chat["tool_choice"] == "required"
    assert [tool["type"] for tool in chat["tools"]] == ["custom"]


def test_a_namespaced_call_is_told_and_answered_under_one_name() -> None:
    long = {**SPACE, "name": "n" * 60}
    for space in (SPACE, long):
        call = function_call("1", "read", namespace=space["name"])
        chat = requested(
            tools=[space],
            input=[{"role": "user", "content": "go"}, call, output_of("1", "")],
        )
        name = chat["tools"][0]["function"]["name"]
        assert len(name) <= 64
        assert chat["messages"][1]["tool_calls"][0]["function"]["name"] == name
        answer = answered(calls=[("2", name, "{}")], request={"tools": [space]})
        (item,) = answer["output"]
        assert (item["name"], item["namespace"]) == ("read", space["name"])
