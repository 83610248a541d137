"""The tokenizer of a checkpoint, read from its tokenizer.json without transformers or torch."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import tokenizers

from routing.errors import UnsupportedCheckpoint


class Tokenizer(Protocol):
    """What the layout needs of a tokenizer; tests may bring their own."""

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; text that looks like a control token stays plain text."""
        ...

    def control(self, token: str) -> int:
        """Id of a control token such as ``<|im_end|>``; raises UnsupportedCheckpoint."""
        ...


class FileTokenizer:
    """A `tokenizers` file, with control tokens never produced from text.

    Without that, a user who types ``<|im_end|>`` could close their turn and speak as the system.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise UnsupportedCheckpoint(f"cannot read tokenizer {path}: {error}") from None
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def control(self, token: str) -> int:
        index = self._tokenizer.token_to_id(token)
        if index is None:
            raise UnsupportedCheckpoint(f"the tokenizer has no control token {token!r}")
        return int(index)

    @property
    def size(self) -> int:
        return int(self._tokenizer.get_vocab_size())
