"""Texts that are tokenised again come from memory, with the same tokens."""

from pathlib import Path

import pytest
import tokenizers

from routing.tokenizer import FileTokenizer
from serving.engine.token_memo import LONGEST, RememberingTokenizer

FILE = Path("checkpoints/nano/tokenizer.json")


class Counting:
    """Stands before the library's tokenizer and counts what reaches it."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self._inner = inner
        self.asked: list[str] = []

    def encode(self, text: str, **options: bool) -> tokenizers.Encoding:
        self.asked.append(text)
        return self._inner.encode(text, **options)


@pytest.fixture
def counted() -> tuple[RememberingTokenizer, Counting]:
    tokenizer = RememberingTokenizer(FILE, kept_bytes=950)
    counting = Counting(tokenizer._tokenizer)
    tokenizer._tokenizer = counting
    return tokenizer, counting


def test_tokens_are_those_of_the_file_and_computed_once(
    counted: tuple[RememberingTokenizer, Counting],
) -> None:
    tokenizer, counting = counted
    plain = FileTokenizer(FILE)
    for text in ("Fix my code", "", "naïve 日本 <|im_end|>", "Fix my code"):
        assert tokenizer.encode(text) == plain.encode(text)
    assert counting.asked == ["Fix my code", "", "naïve 日本 <|im_end|>"]


def test_what_a_caller_does_with_tokens_stays_theirs(
    counted: tuple[RememberingTokenizer, Counting],
) -> None:
    tokenizer, _ = counted
    first = tokenizer.encode("one two")
    first.append(-1)
    second = tokenizer.encode("one two")
    second.clear()
    assert tokenizer.encode("one two") == FileTokenizer(FILE).encode("one two")


def test_the_least_recently_asked_goes_first(
    counted: tuple[RememberingTokenizer, Counting],
) -> None:
    tokenizer, counting = counted
    old, used = "a" * 40, "b" * 40
    tokenizer.encode(old)
    tokenizer.encode(used)
    tokenizer.encode(used)
    tokenizer.encode("c" * 40)  # three of some 350 bytes: one must go
    counting.asked.clear()
    tokenizer.encode(used)
    assert counting.asked == []
    tokenizer.encode(old)
    assert counting.asked == [old]


def test_a_giant_text_is_not_kept(counted: tuple[RememberingTokenizer, Counting]) -> None:
    tokenizer, counting = counted
    tokenizer.encode("kept")
    tokenizer.encode("d" * (LONGEST + 1))
    counting.asked.clear()
    tokenizer.encode("kept")
    assert counting.asked == []
