"""Whole answers of Chat Completions as Responses."""

from __future__ import annotations

from typing import Any

import pytest
from broken_json import spoilt
from openai.types.responses import Response
from responses_requests import (
    LOOK,
    PATCH,
    SPACE,
    TRANSLATION,
    answered,
)

CITATION = {"url": "https://example.org", "title": "t", "start_index": 0, "end_index": 2}


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
