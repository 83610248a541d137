"""A conversation as the model's chat template writes it, within a token limit.

The template is rendered with marks in place of the texts, and the texts are tokenised by
themselves, so that a message saying ``<|im_end|>`` stays a message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from routing.conversation import Conversation, Role, Turn
from routing.tokenizer import FileTokenizer
from serving.local_upstream.template import chat_template

MAX_PROMPT_TOKENS = 2048
HEAD_SHARE = 0.6
CHARACTERS_PER_TOKEN = 16
_MARK = re.compile("\ue000([0-9]+)\ue001")


class ChatPrompt:
    """Writes prompts for the model in `folder`."""

    def __init__(self, folder: Path, max_tokens: int = MAX_PROMPT_TOKENS) -> None:
        path = folder / "tokenizer.json"
        self._plain = FileTokenizer(path)
        self.tokenizer = tokenizers.Tokenizer.from_file(str(path))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self._render = chat_template(folder)
        self._max_tokens = max_tokens
        one = len(self._assemble([("user", [])]))
        two = len(self._assemble([("user", []), ("assistant", [])]))
        self._frame, self._turn_frame = one, two - one

    @property
    def control_tokens(self) -> frozenset[int]:
        """Ids of the tokenizer's control tokens; generating any of them ends an answer."""
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset(index for index, token in added.items() if token.special)

    def tokens(self, conversation: Conversation) -> list[int]:
        """Token ids of a prompt.

        Of a conversation that is too long, the leading system message (up to half of the limit)
        and as many of the latest turns as fit are kept; a single turn too long is cut in its
        middle.
        """
        turns = list(conversation.turns)
        room = self._max_tokens - self._frame
        head: list[tuple[Role, list[int]]] = []
        if turns and turns[0].role == "system":
            text = self._capped(turns.pop(0).text, self._max_tokens // 2)
            head = [("system", text)]
            room -= len(text) + self._turn_frame
        return self._assemble([*head, *self._latest(turns, room)])

    def _latest(self, turns: Sequence[Turn], room: int) -> list[tuple[Role, list[int]]]:
        kept: list[tuple[Role, list[int]]] = []
        for turn in reversed(turns):
            room -= self._turn_frame
            if room <= 0:
                break
            text = self._capped(turn.text, room + 1)
            if kept and len(text) > room:
                break
            text = self._capped(turn.text, room)
            kept.append((turn.role, text))
            room -= len(text)
        return kept[::-1]

    def _assemble(self, turns: Sequence[tuple[Role, list[int]]]) -> list[int]:
        messages = [
            {"role": role, "content": f"\ue000{index}\ue001"}
            for index, (role, _) in enumerate(turns)
        ]
        tokens: list[int] = []
        # Splitting by a group alternates between the template's own text and the texts' numbers.
        for place, piece in enumerate(_MARK.split(self._render(messages))):
            if place % 2:
                tokens += turns[int(piece)][1]
            elif piece:
                tokens += self.tokenizer.encode(piece, add_special_tokens=False).ids
        return tokens

    def _capped(self, text: str, cap: int) -> list[int]:
        half = cap * CHARACTERS_PER_TOKEN
        if len(text) > 2 * half:
            text = f"{text[:half]} … {text[-half:]}"
        tokens = self._plain.encode(text)
        if len(tokens) <= cap:
            return tokens
        head = round(cap * HEAD_SHARE)
        return [*tokens[:head], *tokens[len(tokens) - (cap - head) :]]
