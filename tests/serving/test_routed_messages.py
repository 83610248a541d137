"""The conversation of a request of any protocol, as routing reads it."""

from __future__ import annotations

from typing import Any

import pytest
from broken_json import spoilt

from routing.conversation import Conversation, normalise
from serving.errors import ApiError
from serving.protocols.base import Protocol
from serving.protocols.conversation_messages import routed_messages


def conversation(protocol: Protocol, **body: Any) -> Conversation:
    return normalise(routed_messages(protocol, body))


def turns(protocol: Protocol, **body: Any) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in conversation(protocol, **body).turns]


CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "find the bug"},
        {
            "role": "assistant",
            "content": "One moment.",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "ls", "arguments": "{}"}},
                {
                    "id": "2",
                    "type": "function",
                    "function": {"name": "cat", "arguments": '{"at":"a.py"}'},
                },
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "a.py"},
        {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "x = 1"}]},
        {"role": "assistant", "content": "Line 1."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "fix it like here"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
            ],
        },
    ]
}
RESPONSES: dict[str, Any] = {
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": "find the bug"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "One moment.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "1", "name": "ls", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "cat", "arguments": '{"at":"a.py"}'},
        {"type": "function_call_output", "call_id": "1", "output": "a.py"},
        {
            "type": "function_call_output",
            "call_id": "2",
            "output": [{"type": "input_text", "text": "x = 1"}],
        },
        {"role": "assistant", "content": "Line 1."},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "fix it like here"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
            ],
        },
    ],
}
MESSAGES: dict[str, Any] = {
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": "find the bug"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "text", "text": "One moment."},
                {"type": "tool_use", "id": "1", "name": "ls", "input": {}},
                {"type": "tool_use", "id": "2", "name": "cat", "input": {"at": "a.py"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": "a.py"},
                {
                    "type": "tool_result",
                    "tool_use_id": "2",
                    "content": [{"type": "text", "text": "x = 1"}],
                },
            ],
        },
        {"role": "assistant", "content": "Line 1."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "fix it like here"},
                {"type": "image", "source": {"type": "base64", "data": "AA"}},
            ],
        },
    ],
}
BODIES = {Protocol.CHAT: CHAT, Protocol.RESPONSES: RESPONSES, Protocol.MESSAGES: MESSAGES}


@pytest.mark.parametrize("protocol", Protocol)
def test_the_same_conversation_reads_alike_in_all_protocols(protocol: Protocol) -> None:
    assert turns(protocol, **BODIES[protocol]) == [
        ("system", "Be brief."),
        ("user", "find the bug"),
        ("assistant", 'One moment.\n[tool call] ls {}\n[tool call] cat {"at":"a.py"}'),
        ("tool", "a.py"),
        ("tool", "x = 1"),
        ("assistant", "Line 1."),
        ("user", "fix it like here\n[image]"),
    ]


@pytest.mark.parametrize(
    ("protocol", "fields"),
    [
        (Protocol.RESPONSES, ("input", "instructions")),
        (Protocol.MESSAGES, ("messages", "system")),
    ],
)
def test_a_spoilt_body_is_refused_by_its_field_or_taken_by_routing_too(
    protocol: Protocol, fields: tuple[str, ...]
) -> None:
    refused: list[str | None] = []
    accepted = 0
    for body in spoilt(BODIES[protocol]):
        try:
            messages = routed_messages(protocol, body)
        except ApiError as error:
            refused.append(error.param)
            continue
        normalise(messages)
        accepted += 1
    assert accepted
    assert refused
    assert all(param is not None and param.startswith(fields) for param in refused)


def test_chat_messages_are_passed_on_as_they_are() -> None:
    assert routed_messages(Protocol.CHAT, CHAT) is CHAT["messages"]


# Anthropic Messages


def test_a_result_of_a_tool_is_no_turn_of_the_user() -> None:
    opening = MESSAGES["messages"][:1]
    loop = MESSAGES["messages"][:3]
    before = conversation(Protocol.MESSAGES, messages=opening).up_to_last_user_turn()
    after = conversation(Protocol.MESSAGES, messages=loop).up_to_last_user_turn()
    assert after == before


def test_words_beside_a_result_are_a_turn_and_come_after_it() -> None:
    content = [
        {"type": "tool_result", "tool_use_id": "1", "content": "ok"},
        {"type": "text", "text": "<system-reminder>be good</system-reminder>"},
        {"type": "text", "text": "now write a test"},
    ]
    told = turns(Protocol.MESSAGES, messages=[{"role": "user", "content": content}])
    assert told == [("tool", "ok"), ("user", "now write a test")]
    reminder = turns(Protocol.MESSAGES, messages=[{"role": "user", "content": content[:2]}])
    assert reminder == [("tool", "ok")]


def test_results_of_all_kinds() -> None:
    content = [
        {"type": "tool_result", "tool_use_id": "1"},
        {"type": "tool_result", "tool_use_id": "2", "content": [{"type": "image", "source": {}}]},
        {"type": "mcp_tool_result", "tool_use_id": "3", "content": [{"type": "odd", "text": 3}]},
    ]
    told = turns(Protocol.MESSAGES, messages=[{"role": "user", "content": content}])
    assert told == [("tool", ""), ("tool", "[image]"), ("tool", '[{"type":"odd","text":3}]')]


def test_blocks_that_are_no_words() -> None:
    messages = [
        {"role": "user", "content": [{"type": "document", "source": {}}, {"type": "hologram"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "redacted_thinking", "data": "x"},
                {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {"q": "x"}},
                {"type": "web_search_tool_result", "tool_use_id": "1", "content": []},
            ],
        },
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": []},
    ]
    assert turns(Protocol.MESSAGES, messages=messages, system="Be brief.") == [
        ("system", "Be brief."),
        ("user", "[file]\n[file]"),
        ("assistant", '[tool call] web_search {"q":"x"}'),
        ("system", "Be kind."),
    ]


# Responses


def test_a_string_is_what_the_user_says() -> None:
    assert turns(Protocol.RESPONSES, input="hi") == [("user", "hi")]


def test_a_tool_loop_of_responses_does_not_move_the_decision() -> None:
    opening, loop = RESPONSES["input"][:1], RESPONSES["input"][:7]
    before = conversation(Protocol.RESPONSES, input=opening).up_to_last_user_turn()
    assert conversation(Protocol.RESPONSES, input=loop).up_to_last_user_turn() == before


EVERY_ITEM: list[dict[str, Any]] = [
    {"type": "custom_tool_call", "call_id": "1", "name": "patch", "input": "*** x"},
    {"type": "custom_tool_call_output", "call_id": "1", "output": "done"},
    {"type": "web_search_call", "id": "1", "status": "completed", "action": {"query": "x"}},
    {"type": "file_search_call", "id": "1", "queries": ["x"], "status": "completed"},
    {"type": "code_interpreter_call", "id": "1", "code": "1+1", "outputs": None},
    {"type": "image_generation_call", "id": "1", "result": "AA", "status": "completed"},
    {"type": "computer_call", "id": "1", "call_id": "1", "action": {"type": "wait"}},
    {
        "type": "computer_call_output",
        "call_id": "1",
        "output": {"type": "computer_screenshot", "image_url": "data:"},
    },
    {"type": "local_shell_call", "id": "1", "call_id": "1", "action": {"command": ["ls"]}},
    {"type": "local_shell_call_output", "id": "1", "output": "a.py"},
    {"type": "shell_call", "call_id": "1", "action": {"commands": ["ls"]}},
    {"type": "shell_call_output", "call_id": "1", "output": [{"stdout": "a", "stderr": ""}]},
    {"type": "apply_patch_call", "call_id": "1", "operation": {"type": "delete_file"}},
    {"type": "apply_patch_call_output", "call_id": "1", "status": "completed"},
    {"type": "mcp_call", "id": "1", "name": "read", "arguments": "{}", "output": "text"},
    {"type": "mcp_approval_request", "id": "1", "name": "write", "arguments": "{}"},
    {"type": "mcp_approval_response", "approval_request_id": "1", "approve": True},
    {"type": "mcp_list_tools", "id": "1", "tools": []},
    {"type": "tool_search_call", "arguments": {"q": "x"}},
    {"type": "tool_search_output", "tools": []},
    {"type": "additional_tools", "role": "developer", "tools": []},
    {"type": "configuration_update", "reasoning": {"effort": "low"}},
    {"type": "program", "id": "1", "call_id": "1", "code": "f()", "fingerprint": "x"},
    {"type": "program_output", "id": "1", "call_id": "1", "result": "3"},
    {"type": "compaction", "encrypted_content": "x"},
    {"type": "compaction_trigger"},
    {"type": "item_reference", "id": "msg_1"},
    {"id": "msg_1"},
    {"type": "a_newer_apis_item", "content": 3},
]


def test_every_kind_of_item_is_taken_and_none_is_a_turn_of_the_user() -> None:
    said = {"role": "user", "content": "go on"}
    told = turns(Protocol.RESPONSES, input=[said, *EVERY_ITEM])
    assert [role for role, _ in told].count("user") == 1
    assert told[1:] == [
        ("assistant", "[tool call] patch *** x"),
        ("tool", "done"),
        (
            "assistant",
            '[tool call] web_search {"query":"x"}\n[tool call] file_search ["x"]\n'
            "[tool call] code_interpreter 1+1\n[tool call] image_generation\n"
            '[tool call] computer {"type":"wait"}',
        ),
        ("tool", "[image]"),
        ("assistant", '[tool call] local_shell {"command":["ls"]}'),
        ("tool", "a.py"),
        ("assistant", '[tool call] shell {"commands":["ls"]}'),
        ("tool", '[{"stdout":"a","stderr":""}]'),
        ("assistant", '[tool call] apply_patch {"type":"delete_file"}'),
        ("tool", ""),
        ("assistant", "[tool call] read {}"),
        ("tool", "text"),
        (
            "assistant",
            '[tool call] write {}\n[tool call] tool_search {"q":"x"}\n[tool call] program f()',
        ),
        ("tool", "3"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": {"id": "conv_1"}, "input": []},
        {"prompt": {"id": "pmpt_1"}},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": ""},
    ],
)
def test_a_body_that_tells_no_words_is_legal_and_has_no_turns(body: dict[str, Any]) -> None:
    assert turns(Protocol.RESPONSES, **body) == []


BAD: list[tuple[Protocol, dict[str, Any], str]] = [
    (Protocol.CHAT, {}, "messages"),
    (Protocol.CHAT, {"messages": []}, "messages"),
    (Protocol.CHAT, {"messages": "hi"}, "messages"),
    (Protocol.RESPONSES, {}, "input"),
    (Protocol.RESPONSES, {"input": []}, "input"),
    (Protocol.RESPONSES, {"input": 3}, "input"),
    (Protocol.RESPONSES, {"input": ["hi"]}, "input[0]"),
    (Protocol.RESPONSES, {"input": [{}]}, "input[0].type"),
    (Protocol.RESPONSES, {"input": "x", "instructions": ["x"]}, "instructions"),
    (Protocol.RESPONSES, {"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
    (Protocol.RESPONSES, {"input": [{"role": "user"}]}, "input[0].content"),
    (
        Protocol.RESPONSES,
        {"input": [{"role": "user", "content": "a"}, {"role": "user", "content": [{"text": "b"}]}]},
        "input[1].content[0].type",
    ),
    (
        Protocol.RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": 3}]}]},
        "input[0].content[0].text",
    ),
    (Protocol.RESPONSES, {"input": [{"type": "function_call"}]}, "input[0].name"),
    (Protocol.RESPONSES, {"input": [{"type": "function_call_output"}]}, "input[0].output"),
    (
        Protocol.RESPONSES,
        {"input": [{"type": "function_call_output", "output": [{"type": "input_text"}]}]},
        "input[0].output[0].text",
    ),
    (Protocol.MESSAGES, {}, "messages"),
    (Protocol.MESSAGES, {"messages": []}, "messages"),
    (Protocol.MESSAGES, {"messages": ["hi"]}, "messages[0]"),
    (Protocol.MESSAGES, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    (Protocol.MESSAGES, {"messages": [{"role": "user"}]}, "messages[0].content"),
    (
        Protocol.MESSAGES,
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
    ),
    (
        Protocol.MESSAGES,
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": 3}]}]},
        "messages[0].content[0].content",
    ),
    (
        Protocol.MESSAGES,
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {}}]}]},
        "messages[0].content[0].name",
    ),
    (
        Protocol.MESSAGES,
        {"system": [{"type": "text"}], "messages": [{"role": "user", "content": "x"}]},
        "system[0].text",
    ),
]


@pytest.mark.parametrize(("protocol", "body", "field"), BAD)
def test_bad_shapes_are_named_in_the_clients_terms(
    protocol: Protocol, body: dict[str, Any], field: str
) -> None:
    with pytest.raises(ApiError) as caught:
        routed_messages(protocol, body)
    assert (caught.value.status, caught.value.param) == (400, field)
    assert caught.value.message.startswith(field)


def test_an_input_nested_beyond_writing_is_taken() -> None:
    deep: Any = "x"
    for _ in range(2000):
        deep = [deep]
    block = {"type": "tool_use", "id": "1", "name": "f", "input": {"a": deep}}
    told = turns(Protocol.MESSAGES, messages=[{"role": "assistant", "content": [block]}])
    assert told == [("assistant", "[tool call] f")]
