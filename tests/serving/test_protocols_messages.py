"""Requests of an Anthropic client for an upstream of Chat Completions, by OpenAI's own types."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from protocol_oracles import assert_chat_request

from serving.protocols.base import Untranslatable
from serving.protocols.messages_over_chat import MessagesOverChat
from serving.protocols.unsigned_thinking import without_unsigned_thinking

OVER = MessagesOverChat()
ASK = {"role": "user", "content": "Hello"}
PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}
TOOL = {"name": "add", "description": "Adds.", "input_schema": {"type": "object", "properties": {}}}
CLOSED = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


def asked(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The Chat request of a Messages request, which is not changed, and whose fields are known."""
    body = {"model": "m", "max_tokens": 100, "messages": list(messages) or [ASK], **fields}
    before = copy.deepcopy(body)
    chat = OVER.request(body)
    assert body == before
    assert_chat_request(chat)
    return chat


def said(*blocks: dict[str, Any], role: str = "user") -> list[dict[str, Any]]:
    return asked({"role": role, "content": list(blocks)})["messages"]


def refused(*messages: dict[str, Any], **fields: Any) -> str:
    with pytest.raises(Untranslatable) as error:
        asked(*messages, **fields)
    assert error.value.field in error.value.message
    return error.value.field


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def tool_use(id_: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": "add", "input": given}


def tool_result(id_: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id_, "content": content, **fields}


class TestRequest:
    def test_the_smallest(self) -> None:
        assert asked() == {"model": "m", "max_completion_tokens": 100, "messages": [ASK]}

    def test_what_the_upstream_calls_the_limit(self) -> None:
        chat = MessagesOverChat(limit_field="max_tokens").request(
            {"model": "m", "max_tokens": 5, "messages": [ASK]}
        )
        assert chat["max_tokens"] == 5
        assert "max_completion_tokens" not in chat

    @pytest.mark.parametrize(
        ("system", "expected"),
        [
            ("Be kind.", "Be kind."),
            ([text("Be"), text("kind.")], "Be\n\nkind."),
        ],
    )
    def test_system(self, system: Any, expected: str) -> None:
        assert asked(system=system)["messages"] == [{"role": "system", "content": expected}, ASK]

    def test_no_system_message_of_an_empty_one(self) -> None:
        assert asked(system="")["messages"] == asked(system=[])["messages"] == [ASK]

    def test_system_message_among_the_turns(self) -> None:
        late = {"role": "system", "content": [text("Now in French.")]}
        assert asked(ASK, late)["messages"][1] == {"role": "system", "content": "Now in French."}

    def test_images(self) -> None:
        url = {"type": "url", "url": "https://x.test/a.png"}
        (message,) = said(text("?"), *({"type": "image", "source": s} for s in (PNG, url)))
        assert message["content"] == [
            text("?"),
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
            {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
        ]

    def test_documents(self) -> None:
        pdf = PNG | {"media_type": "application/pdf"}
        plain = {"type": "text", "media_type": "text/plain", "data": "abc"}
        nested = {"type": "content", "content": [text("x"), {"type": "image", "source": PNG}]}
        (message,) = said(
            {"type": "document", "source": pdf, "title": "Report"},
            {"type": "document", "source": plain, "title": "Notes", "context": "of May"},
            {"type": "document", "source": nested},
        )
        data = "data:application/pdf;base64,aGk="
        assert message["content"] == [
            {"type": "file", "file": {"filename": "Report.pdf", "file_data": data}},
            text("Notes\nof May"),
            text("abc"),
            text("x"),
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        ]

    def test_search_results_are_text(self) -> None:
        found = {"type": "search_result", "title": "T", "source": "s", "content": [text("found")]}
        assert said(found) == [{"role": "user", "content": "T\ns\n\nfound"}]

    def test_tool_calls(self) -> None:
        (message,) = said(
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            text("Adding. "),
            text("Now."),
            tool_use("toolu_1", x=1),
            tool_use("toolu_2"),
            role="assistant",
        )
        assert message["content"] == "Adding. Now."
        assert [call["id"] for call in message["tool_calls"]] == ["toolu_1", "toolu_2"]
        assert [call["function"] for call in message["tool_calls"]] == [
            {"name": "add", "arguments": '{"x":1}'},
            {"name": "add", "arguments": "{}"},
        ]

    def test_a_turn_of_calls_only_has_null_content(self) -> None:
        (message,) = said(tool_use("toolu_1"), role="assistant")
        assert message["content"] is None

    def test_a_turn_of_thinking_only_is_left_out(self) -> None:
        thinking = {"type": "redacted_thinking", "data": "x"}
        assert said(thinking, role="assistant") == []

    def test_parallel_results_come_before_what_the_user_says(self) -> None:
        messages = said(
            tool_result("a", "1"), text("Go on."), tool_result("b", [text("2"), text("3")])
        )
        assert messages == [
            {"role": "tool", "tool_call_id": "a", "content": "1"},
            {"role": "tool", "tool_call_id": "b", "content": "2\n\n3"},
            {"role": "user", "content": "Go on."},
        ]

    def test_results_that_failed_say_so(self) -> None:
        results = [
            tool_result("a", "no such file", is_error=True),
            tool_result("b", "Error 5", is_error=True),
            {"type": "tool_result", "tool_use_id": "c", "is_error": True},
            {"type": "tool_result", "tool_use_id": "d"},
        ]
        contents = [message["content"] for message in said(*results)]
        assert contents == ["Error: no such file", "Error 5", "Error", ""]

    def test_images_of_results_are_shown_by_the_user(self) -> None:
        image = {"type": "image", "source": PNG}
        first, second, user = said(
            tool_result("a", [text("Shot"), image]), tool_result("b", [image]), text("Well?")
        )
        assert first["content"] == "Shot"
        assert second["content"] == "The result is in the next message."
        kinds = [part["type"] for part in user["content"]]
        assert kinds == ["text", "image_url", "text", "image_url", "text"]
        assert "a:" in user["content"][0]["text"]
        assert "b:" in user["content"][2]["text"]
        assert user["content"][4] == text("Well?")

    def test_tools(self) -> None:
        chat = asked(tools=[TOOL, TOOL | {"name": "s", "strict": True, "input_schema": CLOSED}])
        first, second = (tool["function"] for tool in chat["tools"])
        assert first == {
            "name": "add",
            "description": "Adds.",
            "parameters": TOOL["input_schema"],
        }
        assert second["strict"] is True

    def test_strict_is_only_asked_for_schemas_that_openai_takes_so(self) -> None:
        optional = CLOSED | {"required": []}
        (tool,) = asked(tools=[TOOL | {"strict": True, "input_schema": optional}])["tools"]
        assert "strict" not in tool["function"]
        assert tool["function"]["parameters"] == optional

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            ({"type": "auto"}, "auto"),
            ({"type": "any"}, "required"),
            ({"type": "none"}, "none"),
            ({"type": "tool", "name": "add"}, {"type": "function", "function": {"name": "add"}}),
        ],
    )
    def test_tool_choice(self, choice: dict[str, Any], expected: Any) -> None:
        chat = asked(tools=[TOOL], tool_choice=choice)
        assert chat["tool_choice"] == expected
        assert "parallel_tool_calls" not in chat

    def test_one_call_at_a_time(self) -> None:
        choice = {"type": "auto", "disable_parallel_tool_use": True}
        assert asked(tools=[TOOL], tool_choice=choice)["parallel_tool_calls"] is False

    def test_a_choice_without_tools_is_left_out(self) -> None:
        assert "tool_choice" not in asked(tools=[], tool_choice={"type": "auto"})

    def test_parameters(self) -> None:
        chat = asked(
            temperature=0.5,
            top_p=0.9,
            top_k=4,
            stop_sequences=["END"],
            cache_control={},
            stream=True,
        )
        assert {k: v for k, v in chat.items() if k not in ("model", "messages")} == {
            "max_completion_tokens": 100,
            "temperature": 0.5,
            "top_p": 0.9,
            "stop": ["END"],
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def test_users_are_told_apart(self) -> None:
        assert asked(metadata={"user_id": "u1"})["user"] == "u1"
        long = [asked(metadata={"user_id": "u" * 100 + end})["user"] for end in "aab"]
        assert long[0] == long[1] != long[2]
        assert len(long[0]) <= 64

    @pytest.mark.parametrize(
        ("fields", "effort"),
        [
            ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low"),
            ({"thinking": {"type": "enabled", "budget_tokens": 8000}}, "medium"),
            ({"thinking": {"type": "enabled", "budget_tokens": 32000}}, "high"),
            ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "max"),
            ({"thinking": {"type": "adaptive"}}, None),
            ({"thinking": {"type": "disabled"}}, None),
        ],
    )
    def test_effort(self, fields: dict[str, Any], effort: str | None) -> None:
        assert asked(**fields).get("reasoning_effort") == effort
        body = {"max_tokens": 1, "messages": [ASK], **fields}
        assert "reasoning_effort" not in MessagesOverChat(reasoning_effort=False).request(body)

    @pytest.mark.parametrize("strict", [True, False])
    def test_structured_output(self, strict: bool) -> None:
        schema = CLOSED if strict else {"type": "object"}
        wanted = {"type": "json_schema", "schema": schema}
        chat = asked(output_config={"format": wanted})
        described = {"name": "output", "schema": schema, "strict": strict}
        assert chat["response_format"] == {"type": "json_schema", "json_schema": described}
        assert asked(output_format=wanted)["response_format"] == chat["response_format"]

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"max_tokens": 0}, "max_tokens"),
            ({"max_tokens": "5"}, "max_tokens"),
            ({"temperature": "hot"}, "temperature"),
            ({"stop_sequences": "x"}, "stop_sequences"),
            ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools[0].type"),
            ({"tools": [{"name": "w"}]}, "tools[0].input_schema"),
            ({"tools": [TOOL], "tool_choice": {"type": "other"}}, "tool_choice.type"),
            ({"tools": [TOOL], "tool_choice": {"type": ["auto"]}}, "tool_choice.type"),
            ({"container": {"id": "c"}}, "container"),
            ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
            ({"inference_geo": "us"}, "inference_geo"),
            ({"output_config": {"effort": "huge"}}, "output_config.effort"),
            ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
            ({"messages": "hi"}, "messages"),
            ({"messages": ["hi"]}, "messages[0]"),
            ({"messages": [{"role": "user"}]}, "messages[0].content"),
            ({"messages": [{"role": "owner", "content": "x"}]}, "messages[0].role"),
            ({"system": [{"type": "image", "source": PNG}]}, "system[0].type"),
        ],
    )
    def test_what_cannot_be_told_is_named(self, fields: dict[str, Any], field: str) -> None:
        assert refused(**fields) == field

    @pytest.mark.parametrize(
        ("block", "field"),
        [
            ({"type": "text"}, "text"),
            ({"type": "container_upload", "file_id": "f"}, "type"),
            ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "source.type"),
            ({"type": "document", "source": {"type": "url", "url": "x"}}, "source.type"),
            (tool_result("a", [{"type": "tool_reference", "tool_name": "x"}]), "content[0].type"),
        ],
    )
    def test_blocks_that_cannot_be_told_are_named(self, block: Any, field: str) -> None:
        at = "messages[0].content[0]"
        assert refused({"role": "user", "content": [block]}) == f"{at}.{field}"

    def test_inputs_nested_beyond_what_can_be_written_are_named(self) -> None:
        deep: dict[str, Any] = {}
        for _ in range(300):
            deep = {"a": deep}
        turn = {"role": "assistant", "content": [tool_use("t", a=deep)]}
        with pytest.raises(Untranslatable) as error:
            OVER.request({"messages": [turn]})
        assert error.value.field == "messages[0].content[0].input"


class TestUnsignedThinking:
    def test_only_what_anthropic_signed_is_given_back_to_it(self) -> None:
        ours = {"type": "thinking", "thinking": "hm", "signature": ""}
        signed = ours | {"signature": "s"}
        turns = [
            ASK,
            {"role": "assistant", "content": [ours, signed, tool_use("a")]},
            {"role": "assistant", "content": [ours]},
            {"role": "user", "content": []},
        ]
        body = {"model": "m", "messages": turns}
        before = copy.deepcopy(body)
        kept = without_unsigned_thinking(body)["messages"]
        assert kept == [ASK, {"role": "assistant", "content": [signed, tool_use("a")]}]
        assert body == before

    @pytest.mark.parametrize("messages", [[ASK], [{"role": "user", "content": []}], None, ["x"]])
    def test_a_body_without_any_is_left_as_it_is(self, messages: Any) -> None:
        body = {"model": "m", "messages": messages}
        assert without_unsigned_thinking(body) is body
