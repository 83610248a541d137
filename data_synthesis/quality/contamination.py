"""Keeping benchmarks out of training data: no long run of words in common.

A user's line is contaminated if it shares n words in a row with a benchmark's user message, or,
where it is shorter than that, if it is a benchmark's whole message of at least `SHORTEST` words.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from data_synthesis.quality.duplicates import words
from routing.errors import InvalidRecord

SHORTEST = 5
"""Words; shorter messages, such as "yes, please", belong to nobody."""


class Contamination:
    """Word runs of benchmarks, as hashes."""

    def __init__(self, gram: int, messages: Iterable[str] = ()) -> None:
        self._gram = gram
        self._grams: set[int] = set()
        self._whole: set[int] = set()
        for message in messages:
            found = words(message)
            self._grams.update(_grams(found, gram))
            if SHORTEST <= len(found) < gram:
                self._whole.add(hash(tuple(found)))

    def __bool__(self) -> bool:
        return bool(self._grams or self._whole)

    def touches(self, text: str) -> bool:
        """Whether a user's line is contaminated."""
        found = words(text)
        if len(found) < self._gram:
            return len(found) >= SHORTEST and hash(tuple(found)) in self._whole
        return any(gram in self._grams for gram in _grams(found, self._gram))


def benchmark_messages(paths: Sequence[Path]) -> Iterator[str]:
    """User messages of files of decision or conversation records; InvalidRecord with file, line."""
    for path in paths:
        opener = gzip.open if path.suffix == ".gz" else open
        try:
            with opener(path, "rt", encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    yield from _user_texts(line, f"{path}:{number}")
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise InvalidRecord(f"cannot read {path}: {error}") from None


def _user_texts(line: str, at: str) -> list[str]:
    if not line.strip():
        return []
    try:
        messages = json.loads(line)["messages"]
        return [
            m["content"]
            for m in messages
            if m["role"] == "user" and isinstance(m.get("content"), str)
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRecord(f"{at}: no messages to compare with: {error!r}") from None


def _grams(found: Sequence[str], size: int) -> Iterator[int]:
    # Hashes of strings differ between processes; only a forked process shares this one's.
    return (hash(tuple(found[i : i + size])) for i in range(len(found) - size + 1))
