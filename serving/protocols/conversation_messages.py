"""The conversation of a request of any protocol, as the Chat messages that routing reads.

Only what a person says is a user's turn: a tool's result is none, though Anthropic's protocol puts
it into a user's message. What is known to be wrong is a 400 in the client's own terms; item and
block types that are not known are passed over, since a newer API's request must not fail here.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import orjson

from serving.errors import bad_request
from serving.protocols.base import Protocol
from serving.protocols.responses_items import input_items, item_type, message_role
from serving.protocols.shapes import array, content, mapping, one_of, text

Messages: TypeAlias = list[dict[str, Any]]

_MESSAGES_ROLES = ("user", "assistant", "system")
# Calls of tools that a server or the client's machine runs: the tool, and what was asked of it.
_CALLS = {
    "web_search_call": ("web_search", "action"),
    "file_search_call": ("file_search", "queries"),
    "code_interpreter_call": ("code_interpreter", "code"),
    "image_generation_call": ("image_generation", "revised_prompt"),
    "computer_call": ("computer", "action"),
    "local_shell_call": ("local_shell", "action"),
    "shell_call": ("shell", "action"),
    "apply_patch_call": ("apply_patch", "operation"),
    "tool_search_call": ("tool_search", "arguments"),
    "program": ("program", "code"),
}
_NAMED_CALLS = {
    "function_call": "arguments",
    "custom_tool_call": "input",
    "mcp_call": "arguments",
    "mcp_approval_request": "arguments",
}
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_OTHER_OUTPUTS = (
    "computer_call_output",
    "local_shell_call_output",
    "shell_call_output",
    "apply_patch_call_output",
    "program_output",
)


def routed_messages(protocol: Protocol, body: dict[str, Any]) -> Messages:
    """Messages for `routing.conversation.normalise`, which takes all that Responses and Messages
    bodies become; those of a Chat body are passed on as they are, and it checks them.

    Raises ApiError 400 that names the field as the client wrote it.
    """
    if protocol is Protocol.RESPONSES:
        return _of_responses(body)
    messages = array(body.get("messages"), "messages")
    if not messages:
        raise bad_request("messages must not be empty", "messages")
    return messages if protocol is Protocol.CHAT else _of_messages(body.get("system"), messages)


class _Turns:
    """Messages under construction: calls join what the assistant said just before them."""

    def __init__(self) -> None:
        self.messages: Messages = []

    def say(self, role: str, said: str | list[dict[str, Any]]) -> None:
        self.messages.append({"role": role, "content": said})

    def call(self, name: str, arguments: Any) -> None:
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.say("assistant", "")
        function = {"name": name, "arguments": _written(arguments)}
        call = {"type": "function", "function": function}
        self.messages[-1].setdefault("tool_calls", []).append(call)


def _of_responses(body: dict[str, Any]) -> Messages:
    turns = _Turns()
    if body.get("instructions") is not None:
        turns.say("system", text(body["instructions"], "instructions"))
    for index, item in enumerate(input_items(body)):
        at = f"input[{index}]"
        _response_item(turns, mapping(item, at), at)
    # An empty turn is what routing takes for "nothing to read here".
    return turns.messages or [{"role": "user", "content": ""}]


def _response_item(turns: _Turns, item: dict[str, Any], at: str) -> None:
    kind = item_type(item, at)
    if kind == "message":
        turns.say(message_role(item, at), content(item.get("content"), f"{at}.content"))
    elif kind in _NAMED_CALLS:
        turns.call(text(item.get("name"), f"{at}.name"), item.get(_NAMED_CALLS[kind]))
        if kind == "mcp_call" and item.get("output") is not None:
            turns.say("tool", _output(item["output"]))
    elif kind in _CALLS:
        tool, asked = _CALLS[kind]
        turns.call(tool, item.get(asked))
    elif kind in _OUTPUTS:
        turns.say("tool", content(item.get("output"), f"{at}.output"))
    elif kind in _OTHER_OUTPUTS:
        turns.say("tool", _output(item.get("output", item.get("result"))))


def _of_messages(system: Any, messages: list[Any]) -> Messages:
    turns = _Turns()
    if system is not None:
        turns.say("system", content(system, "system"))
    for index, message in enumerate(messages):
        at = f"messages[{index}]"
        role = one_of(mapping(message, at).get("role"), _MESSAGES_ROLES, f"{at}.role")
        said = content(message.get("content"), f"{at}.content")
        if isinstance(said, str) or role == "system":
            turns.say(role, said)
        elif role == "assistant":
            _assistant_blocks(turns, said, f"{at}.content")
        else:
            _user_blocks(turns, said, f"{at}.content")
    return turns.messages


def _assistant_blocks(turns: _Turns, blocks: list[dict[str, Any]], at: str) -> None:
    turns.say("assistant", [block for block in blocks if block["type"] == "text"])
    for number, block in enumerate(blocks):
        if block["type"].endswith("tool_use"):  # tool_use, server_tool_use, mcp_tool_use
            turns.call(text(block.get("name"), f"{at}[{number}].name"), block.get("input"))


def _user_blocks(turns: _Turns, blocks: list[dict[str, Any]], at: str) -> None:
    own: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        if not block["type"].endswith("tool_result"):
            own.append(block)
        elif block.get("content") is None:
            turns.say("tool", "")
        elif block["type"] == "tool_result":
            turns.say("tool", content(block["content"], f"{at}[{number}].content"))
        else:
            turns.say("tool", _output(block["content"]))
    if own or not blocks:
        turns.say("user", own)


def _output(value: Any) -> str | list[dict[str, Any]]:
    """The result of a tool whose shapes only its own server knows: text, else a mark or JSON."""
    if isinstance(value, dict) and value.get("type") == "computer_screenshot":
        return [{"type": "input_image"}]
    return _written(value)


def _written(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # nested more deeply than it writes
        return ""
