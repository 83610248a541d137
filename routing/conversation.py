"""Conversation normalisation: OpenAI Chat messages in, plain turns out.

What the routing model reads is text. Images, audio and files become marks, tool calls and tool
results become short marked text, and envelopes that coding agents wrap around a user's words are
taken off, so that only what the person said decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, get_args

from routing.errors import InvalidRequest
from routing.values import value_type

Role = Literal["system", "user", "assistant", "tool"]

_ROLES: dict[str, Role] = {
    **{role: role for role in get_args(Role)},
    "developer": "system",
    "function": "tool",
}
_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_MARKED_PARTS = {
    "image_url": "[image]",
    "input_image": "[image]",
    "image": "[image]",
    "input_audio": "[audio]",
    "file": "[file]",
    "input_file": "[file]",
    "document": "[file]",
}
_MARKS = re.compile(r"\[(?:image|audio|file)\]")
ENVELOPES = (
    # Claude Code
    *("system-reminder", "user-prompt-submit-hook", "local-command-caveat"),
    *("local-command-stdout", "task-notification", "ide_opened_file"),
    *("environment_context", "user_instructions"),  # Codex
    "environment_details",  # Cline, Roo Code
)
"""Tags that coding agents put into users' messages around what no person has said."""


@value_type
class Turn:
    """One message as the routing model may read it; `message` is its index in the request."""

    role: Role
    text: str
    message: int


@value_type
class Conversation:
    """Turns in order; empty user turns (pure envelopes, blank text) are already dropped."""

    turns: tuple[Turn, ...]

    def up_to_last_user_turn(self) -> Conversation:
        """The part that decides: a tool loop after the last user turn does not change the route."""
        if self.turns and self.turns[-1].role == "user":
            return self
        for index in range(len(self.turns) - 1, -1, -1):
            if self.turns[index].role == "user":
                return Conversation(self.turns[: index + 1])
        return Conversation(())

    @property
    def user_messages(self) -> list[int]:
        """Message indices of the user turns: one decision each."""
        return [turn.message for turn in self.turns if turn.role == "user"]

    @property
    def has_user_text(self) -> bool:
        """Whether any user turn says more than marks of images and files."""
        return any(t.role == "user" and _says_something(t.text) for t in self.turns)


def _says_something(text: str) -> bool:
    said = text.strip()
    return bool(_MARKS.sub("", said).strip() if said.startswith("[") else said)


def normalise(messages: Sequence[Any], envelopes: tuple[str, ...] = ENVELOPES) -> Conversation:
    """Turns of OpenAI Chat messages (https://platform.openai.com/docs/api-reference/chat).

    `envelopes` are the tags that are taken off users' messages with what they enclose. Raises
    InvalidRequest, naming the field, for anything that is not such a message.
    """
    if not isinstance(messages, list | tuple):
        raise InvalidRequest("messages must be an array", field="messages")
    if not messages:
        raise InvalidRequest("messages must not be empty", field="messages")
    turns: list[Turn] = []
    for index, message in enumerate(messages):
        turn = _turn(message, index, envelopes)
        if turn.text or turn.role != "user":
            turns.append(turn)
    return Conversation(tuple(turns))


def _turn(message: Any, index: int, envelopes: tuple[str, ...]) -> Turn:
    # Most messages are plain text: names of fields are put together only for those that are not.
    if not isinstance(message, dict):
        at = f"messages[{index}]"
        raise InvalidRequest(f"{at} must be an object", field=at)
    role = message.get("role")
    known = _ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        field = f"messages[{index}].role"
        raise InvalidRequest(f"{field} must be one of {', '.join(_ROLES)}", field=field)
    calls: list[str] = []
    if role == "assistant" and message.get("tool_calls"):
        calls = _tool_calls(message["tool_calls"], f"messages[{index}].tool_calls")
    content = message.get("content")
    if isinstance(content, str):
        text = content.strip()
    else:
        text = _content(content, f"messages[{index}].content", required=role != "assistant")
    if role == "user":
        text = strip_envelopes(text, envelopes)
    if calls:
        text = "\n".join([text, *calls] if text else calls)
    return Turn(known, text, index)


def strip_envelopes(text: str, envelopes: tuple[str, ...] = ENVELOPES) -> str:
    """Text without agents' envelopes; an unclosed one swallows the rest, as its writer meant."""
    if "<" in text:
        lowered = text.lower()  # far faster than the pattern is on pages of HTML
        if any(f"<{tag}>" in lowered for tag in envelopes):
            text = _enveloped(envelopes).sub("", text)
    return text.strip()


@lru_cache(maxsize=8)
def _enveloped(tags: tuple[str, ...]) -> re.Pattern[str]:
    names = "|".join(map(re.escape, tags))
    return re.compile(rf"<({names})>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)


def _content(content: Any, at: str, *, required: bool) -> str:
    if content is None:
        if required:
            raise InvalidRequest(f"{at} is required", field=at)
        return ""
    if not isinstance(content, list):
        raise InvalidRequest(f"{at} must be a string or an array of parts", field=at)
    return "\n".join(_part(part, f"{at}[{number}]") for number, part in enumerate(content)).strip()


def _part(part: Any, at: str) -> str:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise InvalidRequest(f"{at} must be an object with a type", field=at)
    kind = part["type"]
    if kind in _TEXT_PARTS:
        text = part.get(_TEXT_PARTS[kind])
        if not isinstance(text, str):
            field = f"{at}.{_TEXT_PARTS[kind]}"
            raise InvalidRequest(f"{field} must be a string", field=field)
        return text
    # An unknown kind is a newer API's: mark it rather than fail a request over it.
    return _MARKED_PARTS.get(kind, "[file]")


def _tool_calls(calls: Any, at: str) -> list[str]:
    if not isinstance(calls, list):
        raise InvalidRequest(f"{at} must be an array", field=at)
    texts: list[str] = []
    for number, call in enumerate(calls):
        body = call.get(call.get("type", "function")) if isinstance(call, dict) else None
        if not isinstance(body, dict) or not isinstance(body.get("name"), str):
            field = f"{at}[{number}]"
            raise InvalidRequest(f"{field} must name a function", field=field)
        arguments = body.get("arguments", body.get("input", ""))
        texts.append(f"[tool call] {body['name']} {arguments}".strip())
    return texts
