"""Requests of Responses that cannot be told in the words of Chat, and malformed ones."""

from __future__ import annotations

from typing import Any

import pytest
from broken_json import spoilt
from responses_requests import (
    LOOK,
    PATCH,
    PICTURE,
    SPACE,
    TRANSLATION,
    function_call,
    output_of,
    requested,
)

from serving.errors import ApiError
from serving.protocols.base import Untranslatable

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
