"""Tokens of texts that come again: a conversation brings all its turns at every request."""

from __future__ import annotations

import sys
import threading
from array import array
from collections import OrderedDict
from pathlib import Path

from routing.tokenizer import FileTokenizer

KEPT_BYTES = 4 * 2**20
"""Memory of all texts and tokens that are remembered together: some ten thousand turns."""
LONGEST = 2**16
"""Characters; a longer text is one of a kind, and would push out many."""
ENTRY = 200
"""Bytes of an entry beside its text and tokens, in CPython 3.11: the table's, the order's and the
array's own."""


class RememberingTokenizer(FileTokenizer):
    """Forgets the texts that were least recently asked for. Thread-safe."""

    def __init__(self, path: str | Path, *, kept_bytes: int = KEPT_BYTES) -> None:
        super().__init__(path)
        self._room = kept_bytes
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
                self._kept[text] = kept = array("I", tokens)
                self._room -= _size(text, kept)
            while self._room < 0:
                self._room += _size(*self._kept.popitem(last=False))
        return tokens


def _size(text: str, tokens: array[int]) -> int:
    return ENTRY + sys.getsizeof(text) + tokens.itemsize * len(tokens)
