"""Requests of an OpenAI client for an upstream of Messages, by Anthropic's own types."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_oracles import assert_chat_request, assert_messages_request
from protocol_strategies import INPUTS

from serving.protocols.base import Untranslatable
from serving.protocols.chat_over_messages import DEFAULT_MAX_TOKENS, ChatOverMessages
from serving.protocols.messages_over_chat import MessagesOverChat

OVER = ChatOverMessages()
OLD = ChatOverMessages(sampling=True, budgets=True)
ASK = {"role": "user", "content": "Hello"}
FUNCTION = {"name": "add", "parameters": {"type": "object", "properties": {"x": {}}}}
TOOL = {"type": "function", "function": FUNCTION}
CHOSEN = {"type": "function", "function": {"name": "add"}}
CLOSED = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 3, "description": "A."}},
    "required": ["a"],
    "additionalProperties": False,
}
DATA_URL = "data:image/png;base64,aGk="


def asked(*messages: dict[str, Any], over: ChatOverMessages = OVER, **fields: Any) -> Any:
    """The Messages request of a Chat request, which is not changed, and whose fields are known."""
    body = {"model": "m", "messages": list(messages) or [ASK], **fields}
    before = copy.deepcopy(body)
    request = over.request(body)
    assert body == before
    sampled = {"temperature", "top_p"}  # of the API before its current version
    assert_messages_request({k: v for k, v in request.items() if k not in sampled})
    return request


def refused(*messages: dict[str, Any], **fields: Any) -> str:
    with pytest.raises(Untranslatable) as error:
        asked(*messages, **fields)
    assert error.value.field in error.value.message
    return error.value.field


def call(id_: str, arguments: Any, name: str = "add") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(id_: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_, "content": content}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


class TestRequest:
    def test_the_smallest(self) -> None:
        assert asked() == {"model": "m", "max_tokens": DEFAULT_MAX_TOKENS, "messages": [ASK]}

    def test_limits(self) -> None:
        assert asked(max_tokens=5)["max_tokens"] == 5
        assert asked(max_tokens=5, max_completion_tokens=6)["max_tokens"] == 6
        assert asked(over=ChatOverMessages(max_tokens=7))["max_tokens"] == 7

    def test_system_and_developer_messages(self) -> None:
        one = {"role": "system", "content": "Be kind."}
        two = {"role": "developer", "content": [text("In French."), text("Briefly.")]}
        assert asked(one, ASK)["system"] == "Be kind."
        request = asked(one, ASK, two)
        assert request["system"] == [text("Be kind."), text("In French."), text("Briefly.")]
        assert request["messages"] == [ASK]

    def test_turns_of_one_side_become_one(self) -> None:
        answer = {"role": "assistant", "content": "A"}
        turns = asked(ASK, ASK | {"content": [text("?")]}, answer, answer, ASK)["messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
        assert turns[0]["content"] == [text("Hello"), text("?")]
        assert turns[1]["content"] == [text("A"), text("A")]

    def test_a_tool_loop(self) -> None:
        calls = {"role": "assistant", "content": None}
        calls["tool_calls"] = [call("a", '{"x": 1}'), call("b", "")]
        turns = asked(ASK, calls, result("a", "1"), result("b", [text("2")]), ASK)["messages"]
        assert turns[1]["content"] == [
            {"type": "tool_use", "id": "a", "name": "add", "input": {"x": 1}},
            {"type": "tool_use", "id": "b", "name": "add", "input": {}},
        ]
        assert turns[2]["content"] == [
            {"type": "tool_result", "tool_use_id": "a", "content": "1"},
            {"type": "tool_result", "tool_use_id": "b", "content": "2"},
            text("Hello"),
        ]

    def test_results_come_first_in_their_turn(self) -> None:
        calls = {"role": "assistant", "tool_calls": [call("a", "{}")]}
        kinds = [
            b["type"] for b in asked(ASK, calls, ASK, result("a", "1"))["messages"][2]["content"]
        ]
        assert kinds == ["tool_result", "text"]

    @pytest.mark.parametrize("broken", ['{"x": ', "[1]", "nothing"])
    def test_broken_arguments_are_kept_as_text(self, broken: str) -> None:
        calls = {"role": "assistant", "tool_calls": [call("a", broken)]}
        (block,) = asked(ASK, calls, result("a", "?"))["messages"][1]["content"]
        assert block["input"] == {"INVALID_JSON": broken}

    def test_ids_that_anthropic_refuses_are_replaced_alike(self) -> None:
        calls = {"role": "assistant", "tool_calls": [call("f.add:0", "{}"), call("f.add:1", "{}")]}
        turns = asked(ASK, calls, result("f.add:0", "1"), result("f.add:1", "2"))["messages"]
        used = [block["id"] for block in turns[1]["content"]]
        assert used == [block["tool_use_id"] for block in turns[2]["content"]]
        assert len(set(used)) == 2
        assert all(id_.replace("_", "").isalnum() for id_ in used)

    def test_images(self) -> None:
        urls = [DATA_URL, "data:image/jpg;base64,aGk=", "https://x.test/a.png"]
        parts = [{"type": "image_url", "image_url": {"url": url, "detail": "low"}} for url in urls]
        (turn,) = asked({"role": "user", "content": [text("?"), *parts]})["messages"]
        assert [block.get("source") for block in turn["content"]] == [
            None,
            {"type": "base64", "media_type": "image/png", "data": "aGk="},
            {"type": "base64", "media_type": "image/jpeg", "data": "aGk="},
            {"type": "url", "url": "https://x.test/a.png"},
        ]

    def test_files(self) -> None:
        pdf = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}
        files = [pdf, {"file_data": "aGk="}, {"file_data": "data:text/csv;base64,aGk="}]
        parts = [{"type": "file", "file": file} for file in files]
        (turn,) = asked({"role": "user", "content": parts})["messages"]
        base64 = {"type": "base64", "media_type": "application/pdf", "data": "aGk="}
        plain = {"type": "text", "media_type": "text/plain", "data": "hi"}
        assert turn["content"] == [
            {"type": "document", "source": base64, "title": "a.pdf"},
            {"type": "document", "source": base64},
            {"type": "document", "source": plain},
        ]

    def test_texts_that_say_nothing_are_left_out(self) -> None:
        blank = {"role": "assistant", "content": " \n"}
        calls = {"role": "assistant", "content": "", "tool_calls": [call("a", "{}")]}
        turns = asked(ASK, blank, ASK, calls, result("a", ""))["messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
        assert [block["type"] for block in turns[1]["content"]] == ["tool_use"]
        assert turns[2]["content"] == [{"type": "tool_result", "tool_use_id": "a"}]

    def test_an_answer_to_continue_does_not_end_in_white_space(self) -> None:
        turns = asked(ASK, {"role": "assistant", "content": "It is \n"})["messages"]
        assert turns[1]["content"] == "It is"

    def test_refusals_of_before_are_text(self) -> None:
        part = {"type": "refusal", "refusal": "No."}
        messages = [{"role": "assistant", "content": None, "refusal": "No."}]
        messages.append({"role": "assistant", "content": [part]})
        for message in messages:
            assert asked(ASK, message)["messages"][1] == {"role": "assistant", "content": "No."}

    def test_tools(self) -> None:
        request = asked(tools=[TOOL, {"type": "function", "function": {"name": "now"}}])
        assert request["tools"] == [
            {"name": "add", "input_schema": FUNCTION["parameters"]},
            {"name": "now", "input_schema": {"type": "object", "properties": {}}},
        ]

    def test_strict_tools(self) -> None:
        closed = {"name": "f", "description": "D", "strict": True, "parameters": CLOSED}
        opened = closed | {"parameters": {"type": "object"}}
        tools = [{"type": "function", "function": function} for function in (closed, opened)]
        first, second = asked(tools=tools)["tools"]
        assert first["strict"] is True
        assert first["description"] == "D"
        assert "strict" not in second

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            ("auto", {"type": "auto"}),
            ("required", {"type": "any"}),
            ("none", {"type": "none"}),
            (CHOSEN, {"type": "tool", "name": "add"}),
        ],
    )
    def test_tool_choice(self, choice: Any, expected: dict[str, Any]) -> None:
        assert asked(tools=[TOOL], tool_choice=choice)["tool_choice"] == expected
        one = asked(tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)["tool_choice"]
        assert one.pop("disable_parallel_tool_use", False) is (choice != "none")
        assert one == expected

    def test_one_call_at_a_time_without_a_choice(self) -> None:
        choice = asked(tools=[TOOL], parallel_tool_calls=False)["tool_choice"]
        assert choice == {"type": "auto", "disable_parallel_tool_use": True}
        assert "tool_choice" not in asked(tools=[TOOL], parallel_tool_calls=True)
        assert "tool_choice" not in asked(parallel_tool_calls=False, tool_choice="none")

    def test_allowed_tools(self) -> None:
        allowed = {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [CHOSEN]},
        }
        other = {"type": "function", "function": {"name": "other"}}
        request = asked(tools=[other, TOOL], tool_choice=allowed)
        assert [tool["name"] for tool in request["tools"]] == ["add"]
        assert request["tool_choice"] == {"type": "any"}

    def test_parameters(self) -> None:
        request = asked(stop="END", stream=True, user="u", seed=4, store=True, verbosity="low")
        assert request["stop_sequences"] == ["END"]
        assert request["stream"] is True
        assert request["metadata"] == {"user_id": "u"}
        assert request.keys() == {"model", "max_tokens", "messages"} | {
            "stop_sequences",
            "stream",
            "metadata",
        }
        assert asked(stop=["a", "b"], n=1, logprobs=False)["stop_sequences"] == ["a", "b"]
        assert asked(user="u", safety_identifier="s")["metadata"] == {"user_id": "s"}
        assert len(asked(user="u" * 300)["metadata"]["user_id"]) <= 256

    def test_sampling_is_sent_only_where_it_is_taken(self) -> None:
        fields = {"temperature": 1.7, "top_p": 0.5}
        assert not {"temperature", "top_p"} & asked(**fields).keys()
        request = asked(over=OLD, **fields)
        assert request["temperature"] == 1
        assert "top_p" not in request
        assert asked(over=OLD, top_p=0.5)["top_p"] == 0.5
        assert asked(over=OLD, temperature=0.2)["temperature"] == 0.2

    @pytest.mark.parametrize(
        ("effort", "expected"), [("minimal", "low"), ("medium", "medium"), ("max", "max")]
    )
    def test_effort(self, effort: str, expected: str) -> None:
        request = asked(reasoning_effort=effort)
        assert request["thinking"] == {"type": "adaptive"}
        assert request["output_config"] == {"effort": expected}

    def test_no_effort(self) -> None:
        assert asked(reasoning_effort="none")["thinking"] == {"type": "disabled"}

    def test_no_thinking_where_a_tool_is_forced(self) -> None:
        request = asked(reasoning_effort="high", tools=[TOOL], tool_choice="required")
        assert "thinking" not in request
        assert request["output_config"] == {"effort": "high"}

    def test_budgets(self) -> None:
        def thinking(*messages: dict[str, Any], **fields: Any) -> Any:
            request = asked(*messages, over=OLD, reasoning_effort="high", temperature=0, **fields)
            assert ("thinking" in request) != ("temperature" in request)
            assert "output_config" not in request
            return request.get("thinking")

        assert thinking(max_tokens=64000) == {"type": "enabled", "budget_tokens": 16384}
        assert thinking(max_tokens=4000) == {"type": "enabled", "budget_tokens": 2000}
        assert thinking(max_tokens=1500) is None
        assert thinking(tools=[TOOL], tool_choice="required") is None
        calls = {"role": "assistant", "tool_calls": [call("a", "{}")]}
        assert thinking(ASK, calls, result("a", "1")) is None

    def test_schemas_that_anthropic_enforces(self) -> None:
        wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": CLOSED}}
        request = asked(response_format=wanted, reasoning_effort="low")
        (format_, effort) = (request["output_config"][name] for name in ("format", "effort"))
        assert effort == "low"
        assert format_["type"] == "json_schema"
        assert format_["schema"]["properties"]["a"] == {
            "type": "integer",
            "description": 'A.\n\n{"minimum":3}',
        }
        assert "system" not in request

    @pytest.mark.parametrize(
        "schema",
        [
            {"type": "object", "additionalProperties": {"type": "string"}},
            {"type": "array", "items": {"properties": {"a": {}}}},
            {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
            {
                "$ref": "#/$defs/n",
                "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}},
            },
        ],
    )
    def test_schemas_that_it_cannot_enforce_are_asked_for(self, schema: dict[str, Any]) -> None:
        wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        request = asked({"role": "system", "content": "Hi."}, ASK, response_format=wanted)
        assert "output_config" not in request
        assert request["system"][0] == text("Hi.")
        assert orjson.dumps(schema).decode() in request["system"][1]["text"]

    def test_other_formats(self) -> None:
        assert "JSON" in asked(response_format={"type": "json_object"})["system"]
        assert "system" not in asked(response_format={"type": "text"})

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"n": 2}, "n"),
            ({"logprobs": True}, "logprobs"),
            ({"top_logprobs": 3}, "top_logprobs"),
            ({"logit_bias": {"1": 5}}, "logit_bias"),
            ({"modalities": ["text", "audio"]}, "modalities"),
            ({"audio": {"voice": "x"}}, "audio"),
            ({"functions": [FUNCTION]}, "functions"),
            ({"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"max_completion_tokens": True}, "max_completion_tokens"),
            ({"stop": ["\n"]}, "stop"),
            ({"stop": [4]}, "stop[0]"),
            ({"reasoning_effort": "huge"}, "reasoning_effort"),
            ({"response_format": {"type": "grammar"}}, "response_format.type"),
            ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
            ({"tools": [{"type": "function"}]}, "tools[0].function"),
            ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
            ({"tools": [TOOL], "tool_choice": {"type": "custom"}}, "tool_choice.type"),
            ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
            ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
            ({"messages": [{"role": "user"}]}, "messages[0].content"),
            ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ],
    )
    def test_what_cannot_be_told_is_named(self, fields: dict[str, Any], field: str) -> None:
        assert refused(**fields) == field

    @pytest.mark.parametrize(
        ("part", "field"),
        [
            ({"type": "input_audio", "input_audio": {"data": "", "format": "mp3"}}, "type"),
            ({"type": "image_url", "image_url": {"url": "ftp://x"}}, "image_url.url"),
            (
                {"type": "image_url", "image_url": {"url": "data:image/bmp;base64,aGk="}},
                "image_url.url",
            ),
            ({"type": "file", "file": {"file_id": "f"}}, "file.file_id"),
            ({"type": "file", "file": {"file_data": "data:audio/x;base64,aGk="}}, "file.file_data"),
            ({"type": "file", "file": {"file_data": "data:text/x;base64,/w=="}}, "file.file_data"),
            ({"type": "text"}, "text"),
        ],
    )
    def test_parts_that_cannot_be_told_are_named(self, part: dict[str, Any], field: str) -> None:
        at = "messages[0].content[0]"
        assert refused({"role": "user", "content": [part]}) == f"{at}.{field}"

    @pytest.mark.parametrize("name", ["temperature", "top_p"])
    def test_sampling_that_is_no_number_is_named(self, name: str) -> None:
        assert refused(over=OLD, **{name: "hot"}) == name


SAID = st.text().filter(str.strip)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(SAID, SAID, INPUTS.filter(bool), SAID), min_size=1, max_size=3), SAID)
def test_a_tool_loop_survives_there_and_back(
    turns: list[tuple[str, str, list[dict[str, Any]], str]], system: str
) -> None:
    messages: list[dict[str, Any]] = []
    for number, (question, words, inputs, found) in enumerate(turns):
        ids = [f"toolu_{number}_{at}" for at in range(len(inputs))]
        uses = [
            {"type": "tool_use", "id": id_, "name": "add", "input": value}
            for id_, value in zip(ids, inputs, strict=True)
        ]
        results = [{"type": "tool_result", "tool_use_id": id_, "content": found} for id_ in ids]
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": [text(words), *uses]},
            {"role": "user", "content": results},
            {"role": "assistant", "content": found.rstrip()},
        ]
    body = {"model": "m", "max_tokens": 9, "system": system, "messages": messages}
    chat = MessagesOverChat().request(body)
    assert_chat_request(chat)
    back = asked(*chat.pop("messages"), **chat)
    assert back == body
