"""Conversation normalisation: what clients send, and what the routing model may read of it."""

from __future__ import annotations

from typing import Any

import pytest

from routing.conversation import normalise
from routing.errors import InvalidRequest


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def texts(messages: list[Any]) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in normalise(messages).turns]


def test_roles_of_newer_and_older_apis_become_four() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        user("hi"),
        {"role": "assistant", "content": "hello"},
        {"role": "function", "name": "f", "content": "3"},
    ]
    assert [role for role, _ in texts(messages)] == ["system", "user", "assistant", "tool"]


def test_parts_are_joined_and_other_media_marked() -> None:
    parts = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {}},
        {"type": "hologram", "hologram": {}},
    ]
    assert texts([user(parts)]) == [("user", "what is this?\n[image]\n[audio]\n[file]")]


def test_tool_calls_are_told_after_the_assistants_words() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    custom = {"id": "2", "type": "custom", "custom": {"name": "grep", "input": "x"}}
    message = {"role": "assistant", "content": "One moment.", "tool_calls": [call, custom]}
    expected = 'One moment.\n[tool call] look {"at": 1}\n[tool call] grep x'
    assert texts([user("go"), message])[1] == ("assistant", expected)


def test_assistant_may_have_no_content() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": []}
    assert texts([user("go"), message])[1] == ("assistant", "")


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("<system-reminder>be good</system-reminder>\nfix the test", "fix the test"),
        ("fix it<System-Reminder>\nlines\n</System-Reminder> now", "fix it now"),
        ("<user-prompt-submit-hook>x</user-prompt-submit-hook>go", "go"),
        ("go <system-reminder> never closed", "go"),
        ("<environment_context>\n<cwd>/a</cwd>\n</environment_context> go", "go"),
        ("go\n<environment_details>\n# Files\n</environment_details>", "go"),
        ("a < b and <b>bold</b>", "a < b and <b>bold</b>"),
    ],
)
def test_envelopes_are_taken_off(said: str, left: str) -> None:
    assert texts([user(said)]) == [("user", left)]


def test_other_envelopes_may_be_named() -> None:
    messages = [user("<memo>x</memo> go"), user("<memo>y</memo>")]
    turns = normalise(messages, envelopes=("memo",)).turns
    assert [turn.text for turn in turns] == ["go"]


def test_a_pure_envelope_is_no_turn() -> None:
    messages = [user("write a test"), user("<system-reminder>x</system-reminder>"), user("  ")]
    assert texts(messages) == [("user", "write a test")]


def test_a_tool_loop_does_not_move_the_decision() -> None:
    opening = [user("find the bug")]
    loop = [
        {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "ls"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "main.py"},
    ]
    before = normalise(opening).up_to_last_user_turn()
    assert normalise(opening + loop).up_to_last_user_turn() == before


def test_images_alone_are_no_text() -> None:
    picture = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    assert not normalise([user(picture)]).has_user_text
    assert normalise([user("look"), user(picture)]).has_user_text
    assert normalise([user(picture)]).user_messages == [0]


def test_no_user_turn_leaves_nothing_to_decide() -> None:
    conversation = normalise([{"role": "system", "content": "x"}])
    assert conversation.up_to_last_user_turn().turns == ()


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ("hello", "messages"),
        ([], "messages"),
        (["hi"], "messages[0]"),
        ([{"content": "hi"}], "messages[0].role"),
        ([{"role": ["user"], "content": "hi"}], "messages[0].role"),
        ([{"role": "robot", "content": "hi"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": 7}], "messages[0].content"),
        ([user("a"), user([{"text": "x"}])], "messages[1].content[0]"),
        ([user([{"type": "text", "text": 3}])], "messages[0].content[0].text"),
        ([{"role": "assistant", "tool_calls": {}, "content": ""}], None),
        (
            [{"role": "assistant", "tool_calls": [{"type": "function"}]}],
            "messages[0].tool_calls[0]",
        ),
        ([{"role": "assistant", "tool_calls": ["x"]}], "messages[0].tool_calls[0]"),
    ],
)
def test_bad_messages_name_their_field(messages: Any, field: str | None) -> None:
    if field is None:
        normalise(messages)  # an empty object is what some clients send for "no calls"
        return
    with pytest.raises(InvalidRequest) as caught:
        normalise(messages)
    assert caught.value.field == field
