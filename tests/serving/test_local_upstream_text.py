"""What the local upstream may send of an unfinished answer, and what a prompt holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers

from routing.conversation import normalise
from serving.local_upstream.prompt import ChatPrompt
from serving.local_upstream.text import TextStream


@pytest.fixture(scope="module")
def prompt(base_folder: Path) -> ChatPrompt:
    return ChatPrompt(base_folder, max_tokens=300)


def pieces(tokenizer: tokenizers.Tokenizer, text: str, *stops: str) -> list[str]:
    stream = TextStream(tokenizer, stops)
    sent: list[str] = []
    for token in tokenizer.encode(text, add_special_tokens=False).ids:
        sent.append(stream.push(token))
        if stream.stopped:
            break
    return [*sent, stream.finish()]


@pytest.mark.parametrize("text", ["plain text", "naïve 日本語 👩‍🚀 Ж\n\n", "  spaces  kept  "])
def test_characters_come_whole(prompt: ChatPrompt, text: str) -> None:
    sent = pieces(prompt.tokenizer, text)
    assert "".join(sent) == text
    assert "\ufffd" not in "".join(sent)
    assert len(sent) > 2


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one two three", ["two"], "one "),
        ("one two three", ["three", "two"], "one "),
        ("one two three", ["ne tw"], "o"),
        ("END at once", ["END"], ""),
        ("never met", ["metal"], "never met"),
        ("almost almost done", ["almost done"], "almost "),
    ],
)
def test_nothing_of_a_stop_string_is_sent(
    prompt: ChatPrompt, text: str, stops: list[str], expected: str
) -> None:
    assert "".join(pieces(prompt.tokenizer, text, *stops)) == expected


def text_of(prompt: ChatPrompt, messages: list[dict[str, str]]) -> str:
    tokens = prompt.tokens(normalise(messages))
    return str(prompt.tokenizer.decode(tokens, skip_special_tokens=False))


def test_short_prompt_is_the_templates_own(prompt: ChatPrompt) -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi!"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye {{ 1 }} {% x %}"},
    ]
    assert text_of(prompt, messages) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye {{ 1 }} {% x %}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_long_conversation_keeps_system_and_latest_turns(prompt: ChatPrompt) -> None:
    turns = [
        {"role": ("user", "assistant")[i % 2], "content": f"turn{i} " + "word " * 40}
        for i in range(21)
    ]
    text = text_of(prompt, [{"role": "system", "content": "Be kind."}, *turns])
    assert len(prompt.tokens(normalise(turns))) <= 300
    assert "Be kind." in text
    assert "turn20" in text
    assert "turn19" in text
    assert "turn0 " not in text


def test_message_too_long_keeps_its_ends(prompt: ChatPrompt) -> None:
    message = {"role": "user", "content": "first words " + "word " * 90_000 + "last words"}
    text = text_of(prompt, [message])
    assert len(prompt.tokens(normalise([message]))) <= 300
    assert "first words" in text
    assert "last words" in text
