"""Responses clients over Chat upstreams, whole: the official SDK's types are the oracle of both."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from broken_json import spoilt
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses import Response
from pydantic import TypeAdapter

from serving.errors import ApiError
from serving.protocols.base import Translation, Untranslatable
from serving.protocols.responses_over_chat import ResponsesOverChat

TRANSLATION: Translation = ResponsesOverChat()
CHAT_PARAMS: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsNonStreaming)
PICTURE = "data:image/png;base64,AAAA"


def requested(**fields: Any) -> dict[str, Any]:
    """The Chat request for a Responses body, checked against the SDK's type."""
    body = {"model": "m", "input": "hi", **fields}
    before = copy.deepcopy(body)
    chat = TRANSLATION.request(body)
    assert body == before
    exhausted(CHAT_PARAMS.validate_python({k: v for k, v in chat.items() if k != "stream"}))
    return chat


def exhausted(value: Any) -> None:
    """Pydantic checks the items of an Iterable only when they are read."""
    if isinstance(value, dict):
        for item in value.values():
            exhausted(item)
    elif isinstance(value, list | Iterator) or type(value).__name__ == "ValidatorIterator":
        for item in value:
            exhausted(item)


def messages(*items: Any, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = requested(input=list(items), **fields)["messages"]
    return found


def function_call(call_id: str, name: str, arguments: str = "{}", **more: Any) -> dict[str, Any]:
    return {
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        **more,
    }


def output_of(call_id: str, output: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


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


LOOK = {
    "type": "function",
    "name": "look",
    "description": "Looks.",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}
PATCH = {
    "type": "custom",
    "name": "patch",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /x/"},
}
SPACE = {
    "type": "namespace",
    "name": "mcp__files",
    "description": "Files.",
    "tools": [{"type": "function", "name": "read", "parameters": {"type": "object"}}],
}


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


UNTRANSLATABLE: list[tuple[dict[str, Any], str]] = [
    *(
        ({"tools": [LOOK, {"type": kind}]}, "tools[1]")
        for kind in (
            "web_search",
            "file_search",
            "code_interpreter",
            "computer",
            "mcp",
            "image_generation",
            "local_shell",
            "tool_search",
        )
    ),
    ({"tools": [{**SPACE, "tools": [{"type": "mcp"}]}]}, "tools[0].tools[0]"),
    ({"tools": [LOOK], "tool_choice": {"type": "file_search"}}, "tool_choice"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"background": True}, "background"),
    ({"prompt": {"id": "pmpt_1"}, "input": None}, "prompt"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
    ({"text": {"format": {"type": "grammar"}}}, "text.format"),
    ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
    ({"input": [{"id": "x"}]}, "input[0]"),
    ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0]"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input[0].content[0].file_id",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}]},
        "input[0].content[0].file_url",
    ),
    ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "input[0].content[0]"),
    (
        {"input": [{"role": "system", "content": [{"type": "input_image", "image_url": "u"}]}]},
        "input[0].content[0]",
    ),
]


@pytest.mark.parametrize(("fields", "field"), UNTRANSLATABLE)
def test_what_chat_has_no_words_for_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        requested(**fields)
    assert caught.value.field == field
    assert caught.value.message.startswith(field)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"input": None}, "input"),
    ({"input": {}}, "input"),
    ({"input": []}, "input"),
    ({"input": ["hi"]}, "input[0]"),
    ({"input": [{}]}, "input[0].type"),
    ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": ["x"]}]}, "input[0].content[0]"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
        "input[0].content[0].text",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
        "input[0].content[0].image_url",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
        "input[0].content[0].file_data",
    ),
    ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
    ({"input": [{"type": "function_call", "call_id": "1"}]}, "input[0].name"),
    ({"input": [function_call("1", "f", None)]}, "input[0].arguments"),  # type: ignore[arg-type]
    ({"input": [{"type": "function_call_output", "output": ""}]}, "input[0].call_id"),
    ({"input": [output_of("1", None)]}, "input[0].output"),
    ({"instructions": ["x"]}, "instructions"),
    ({"tools": {}}, "tools"),
    ({"tools": ["x"]}, "tools[0]"),
    ({"tools": [{}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [LOOK, LOOK]}, "tools[1]"),
    ({"tools": [{**SPACE, "name": 3}]}, "tools[0].name"),
    ({"tools": [LOOK], "tool_choice": "maybe"}, "tool_choice"),
    ({"tools": [LOOK], "tool_choice": {"type": "function"}}, "tool_choice.name"),
    ({"text": "json"}, "text"),
    ({"text": {"format": "json"}}, "text.format"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ({"reasoning": "high"}, "reasoning"),
    ({"include": "x"}, "include"),
]


@pytest.mark.parametrize(("fields", "field"), BAD)
def test_bad_shapes_are_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiError) as caught:
        requested(**fields)
    assert (caught.value.status, caught.value.param) == (400, field)


def test_no_spoilt_request_is_a_fault_of_ours() -> None:
    body = {
        "model": "m",
        "instructions": "Be brief.",
        "input": [
            {"role": "developer", "content": [{"type": "input_text", "text": "Dev."}]},
            {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
            {"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]},
            {"role": "user", "content": [{"type": "input_file", "file_id": "f"}]},
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
            function_call("1", "read", namespace="mcp__files"),
            {"type": "custom_tool_call", "call_id": "2", "name": "grep", "input": "x"},
            output_of("1", [{"type": "input_text", "text": "x"}]),
            output_of("2", [{"type": "input_image", "image_url": PICTURE}]),
        ],
        "tools": [LOOK, PATCH, SPACE],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [LOOK, PATCH]},
        "parallel_tool_calls": True,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}, "verbosity": "low"},
        "reasoning": {"effort": "low"},
        "prompt_cache_options": {"mode": "explicit"},
        "include": ["reasoning.encrypted_content"],
        "top_logprobs": 2,
        "stream": True,
    }
    count = 0
    for spoiled in spoilt(body):
        try:
            TRANSLATION.request(spoiled)
        except (Untranslatable, ApiError):
            continue
        TRANSLATION.stream(spoiled)
        count += 1
    assert count


# Whole answers

CITATION = {"url": "https://example.org", "title": "t", "start_index": 0, "end_index": 2}


def answered(
    text: str | None = None,
    calls: list[tuple[str, str, str]] | None = None,
    *,
    finish: str = "stop",
    request: dict[str, Any] | None = None,
    message: dict[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """The Response for a Chat answer, checked against the SDK's type."""
    told = {"role": "assistant", "content": text, "refusal": None, **(message or {})}
    if calls:
        told["tool_calls"] = [
            {"id": i, "type": "function", "function": {"name": n, "arguments": a}}
            for i, n, a in calls
        ]
    chat = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1000,
        "model": "upstream-model",
        "choices": [{"index": 0, "message": told, "finish_reason": finish, "logprobs": None}],
        **fields,
    }
    answer = TRANSLATION.answer(chat, {"model": "router:x", "input": "hi", **(request or {})})
    Response.model_validate(answer)
    return answer


def test_a_text_answer() -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    answer = answered("Hello.", usage=usage, service_tier="default")
    (item,) = answer["output"]
    assert item["id"].startswith("msg_")
    assert item["status"] == "completed"
    assert item["content"] == [
        {"type": "output_text", "text": "Hello.", "annotations": [], "logprobs": []}
    ]
    assert answer["id"].startswith("resp_")
    assert (answer["model"], answer["created_at"]) == ("upstream-model", 1000)
    assert (answer["status"], answer["incomplete_details"]) == ("completed", None)
    assert answer["completed_at"] is not None
    assert answer["service_tier"] == "default"
    assert answer["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    }


def test_an_answer_repeats_the_request() -> None:
    request = {
        "instructions": "Be brief.",
        "tools": [LOOK, PATCH, SPACE],
        "tool_choice": {"type": "function", "name": "look"},
        "parallel_tool_calls": False,
        "temperature": 0.2,
        "top_p": 0.9,
        "max_output_tokens": 99,
        "metadata": {"a": "b"},
        "reasoning": {"effort": "low"},
        "text": {"verbosity": "low"},
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "user": "u",
        "top_logprobs": 2,
        "max_tool_calls": 4,
    }
    answer = answered("x", request={**request, "store": True, "truncation": "auto"})
    text = {"verbosity": "low", "format": {"type": "text"}}
    assert {key: answer[key] for key in request} == {**request, "text": text}
    assert answer["store"] is False
    assert answer["truncation"] == "disabled"


def test_defaults_where_the_request_says_nothing() -> None:
    answer = answered("x")
    assert answer["tools"] == []
    assert answer["tool_choice"] == "auto"
    assert answer["parallel_tool_calls"] is True
    assert answer["metadata"] == {}
    assert answer["usage"] is None
    assert answer["text"] == {"format": {"type": "text"}}


def test_reasoning_text_and_calls_in_their_order() -> None:
    answer = answered(
        "One moment.",
        [("call_1", "look", '{"a": 1}'), ("", "look", "{}")],
        message={"reasoning_content": "Let me see."},
        finish="tool_calls",
    )
    kinds = [item["type"] for item in answer["output"]]
    assert kinds == ["reasoning", "message", "function_call", "function_call"]
    assert answer["output"][0]["content"] == [{"type": "reasoning_text", "text": "Let me see."}]
    call = answer["output"][2]
    assert (call["call_id"], call["name"], call["arguments"]) == ("call_1", "look", '{"a": 1}')
    assert call["id"].startswith("fc_")
    assert answer["output"][3]["call_id"].startswith("call_")
    assert len({item["id"] for item in answer["output"]}) == 4
    assert answer["status"] == "completed"


def test_custom_calls() -> None:
    call = {"id": "c", "type": "custom", "custom": {"name": "patch", "input": "*** x"}}
    (item,) = answered(message={"tool_calls": [call]})["output"]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "patch", "*** x")


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_was_cut_short(finish: str, reason: str) -> None:
    answer = answered("Hel", finish=finish)
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert answer["output"][-1]["status"] == "incomplete"


def test_a_refusal() -> None:
    (item,) = answered(message={"refusal": "No."})["output"]
    assert item["content"] == [{"type": "refusal", "refusal": "No."}]


def test_nothing_said_is_no_item() -> None:
    assert answered("", finish="length")["output"] == []


def test_citations_and_log_probabilities() -> None:
    top = {"token": "Hi", "bytes": [72, 105], "logprob": -0.1}
    told = {
        "content": "Hi",
        "annotations": [{"type": "url_citation", "url_citation": CITATION}],
    }
    token = {**top, "bytes": None, "top_logprobs": [top]}
    choice = {"message": told, "finish_reason": "stop", "logprobs": {"content": [token]}}
    part = answered(choices=[choice])["output"][0]["content"][0]
    assert part["annotations"] == [{"type": "url_citation", **CITATION}]
    assert part["logprobs"] == [{**top, "bytes": [], "top_logprobs": [top]}]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": [{}]},
        {"choices": ["x"]},
        {"error": {"message": "no"}},
        {"choices": [{"message": {"tool_calls": [{"id": "1", "function": {}}]}}]},
        {"choices": [{"message": {"tool_calls": {"id": "1"}}}]},
    ],
)
def test_what_is_no_answer(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"answer|tool"):
        TRANSLATION.answer(body, {"input": "hi"})


def test_no_spoilt_answer_is_a_fault_of_ours() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    citation = {"type": "url_citation", "url_citation": dict(CITATION)}
    token: dict[str, Any] = {"token": "x", "bytes": [1], "logprob": -1.0, "top_logprobs": []}
    message = {
        "content": [{"type": "text", "text": "x"}],
        "refusal": "x",
        "reasoning": "x",
        "annotations": [citation],
        "tool_calls": [call, {"id": "2", "type": "custom", "custom": {"name": "g", "input": ""}}],
    }
    choice = {"message": message, "finish_reason": "stop", "logprobs": {"content": [token]}}
    token["top_logprobs"] = [{**token}]
    details = {"prompt_tokens_details": {"cached_tokens": 1}}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, **details}
    chat = {"id": "1", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    count = 0
    for spoiled in spoilt(chat):
        try:
            answer = TRANSLATION.answer(spoiled, {"model": "m", "input": "hi"})
        except ValueError:
            continue
        Response.model_validate(answer)
        count += 1
    assert count
