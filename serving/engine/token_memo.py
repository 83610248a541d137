"""Tokens of texts that come again: a conversation brings all its turns at every request."""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from pathlib import Path

from routing.tokenizer import FileTokenizer

KEPT_CHARACTERS = 4 * 2**20
"""Of all texts that are remembered together."""
LONGEST = 2**16
"""Characters; a longer text is one of a kind, and would push out many."""


class RememberingTokenizer(FileTokenizer):
    """Forgets the texts that were least recently asked for. Thread-safe."""

    def __init__(self, path: str | Path, *, characters: int = KEPT_CHARACTERS) -> None:
        super().__init__(path)
        self._room = characters
        self._lock = threading.Lock()
        # Of four bytes a token: as a list, each would take forty.
        self._kept: OrderedDict[str, array[int]] = OrderedDict()

    def encode(self, text: str) -> list[int]:
        with self._lock:
            found = self._kept.get(text)
            if found is not None:
                self._kept.move_to_end(text)
                return found.tolist()
        tokens = super().encode(text)
        if len(text) > LONGEST:
            return tokens
        with self._lock:
            if text not in self._kept:
                self._kept[text] = array("I", tokens)
                self._room -= len(text)
            while self._room < 0:
                self._room += len(self._kept.popitem(last=False)[0])
        return tokens
