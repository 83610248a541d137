"""The decision layout: how routes and a conversation become one token sequence.

    <|im_start|>system
    {instruction}
    {name}: {description}⏎          one line a route, in declared order     ← route state
    none: {no route above fits}⏎    the outcome "none" has a line of its own ← route state
    <|im_end|>
    <|im_start|>user
    {text}<|im_end|>                                                        ← decision
    <|im_start|>assistant
    {text}<|im_end|>
    <|im_start|>user
    {text}<|im_end|>                                                        ← next decision

The prefix depends on the routes alone, and every turn is tokenised by itself, so a longer
conversation is a longer sequence with the same beginning: caches keep what they computed. Decisions
are read out at the last token of a user turn and never written into the sequence, so n user turns
train n decisions in one pass and a wrong one cannot feed the next.

That is version 1. In version 2 a user turn goes on with the header of the reply; its decision is
read out there, where a language model that was trained to reply has taken in what is asked:

    <|im_start|>user
    {text}<|im_end|>
    <|im_start|>assistant⏎                                                  ← decision
    {text}<|im_end|>

With the identifier read-out each line begins with its identifier token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from routing.conversation import Conversation, Role, Turn
from routing.errors import InvalidRequest, RoutesTooLong
from routing.tasks import NONE, Route, Wire
from routing.tokenizer import Tokenizer

LAYOUT_VERSIONS = (1, 2)
"""Versions that this release knows; a checkpoint's manifest names its own."""

INSTRUCTION = "Choose the route that serves the user's latest request in this conversation. Routes:"
NONE_DESCRIPTION = "No route above fits the latest request."
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"

HEAD_SHARE = 0.6
"""Share of an oversized turn kept from its head, the rest from its tail (Plano's proportions)."""
KEEP_SHARE = 0.6
"""Share of the room refilled when old turns are dropped; the slack keeps later prefixes stable."""
CHARACTERS_PER_TOKEN = 16
"""Text beyond this many characters a token is cut before tokenising, which bounds its cost."""

Tokens = tuple[int, ...]


class Budget(Wire):
    """Token limits of a sequence; travels in the manifest. A cap of 0 leaves that role out."""

    max_tokens: Annotated[int, Field(ge=256)] = 2048
    user_tokens: Annotated[int, Field(ge=32)] = 512
    assistant_tokens: Annotated[int, Field(ge=0)] = 128
    tool_tokens: Annotated[int, Field(ge=0)] = 64
    system_tokens: Annotated[int, Field(ge=0)] = 0
    route_tokens: Annotated[int, Field(ge=16)] = 96

    def cap(self, role: Role) -> int:
        caps: dict[Role, int] = {
            "user": self.user_tokens,
            "assistant": self.assistant_tokens,
            "tool": self.tool_tokens,
            "system": self.system_tokens,
        }
        return caps[role]


@dataclass(frozen=True, slots=True)
class RoutePrefix:
    """The routes' part of a sequence. Lines are the routes in order, then "none"."""

    tokens: Tokens
    line_starts: Tokens
    """Position of the first token of each of the K+1 lines."""
    line_ends: Tokens
    """Position of the last token of each of the K+1 lines."""
    identifiers: Tokens | None
    """Identifier token of each of the K+1 lines, for that read-out."""


@dataclass(frozen=True, slots=True)
class EncodedTurn:
    """One turn's tokens; a decision is read out at the last of them if the turn is a user's."""

    tokens: Tokens
    is_user: bool
    message: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """One sequence within the budget: the prefix, then whole turns."""

    prefix: RoutePrefix
    turns: tuple[EncodedTurn, ...]
    decisions: tuple[int, ...]
    """Indices into `turns` of the user turns that are decided in this sequence."""

    @property
    def tokens(self) -> Tokens:
        return self.prefix.tokens + tuple(t for turn in self.turns for t in turn.tokens)

    @property
    def decision_positions(self) -> list[int]:
        """Token positions of the decisions, in order."""
        ends: list[int] = []
        end = len(self.prefix.tokens) - 1
        for turn in self.turns:
            end += len(turn.tokens)
            ends.append(end)
        return [ends[index] for index in self.decisions]


class Layout:
    """Lays out routes and conversations for one tokenizer, budget and read-out."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        budget: Budget,
        identifiers: Sequence[str] | None = None,
        *,
        version: int = 1,
    ) -> None:
        if version not in LAYOUT_VERSIONS:
            raise ValueError(f"layout version {version} is not one of {LAYOUT_VERSIONS}")
        self.version = version
        self._opens_reply = version == 2
        self._tokenizer = tokenizer
        self.budget = budget
        self._start = tokenizer.control(TURN_START)
        self._end = tokenizer.control(TURN_END)
        self._newline = tuple(tokenizer.encode("\n"))
        self._ellipsis = tuple(tokenizer.encode(" … "))
        self._headers: dict[Role, Tokens] = {
            role: (self._start, *tokenizer.encode(f"{role}\n"))
            for role in ("system", "user", "assistant", "tool")
        }
        self._identifiers: Tokens | None = None
        if identifiers is not None:
            ids = [tokenizer.encode(identifier) for identifier in identifiers]
            if any(len(tokens) != 1 for tokens in ids) or len(set(map(tuple, ids))) < len(ids):
                raise ValueError("identifiers must be distinct single tokens")
            self._identifiers = tuple(tokens[0] for tokens in ids)

    def prefix(self, routes: Sequence[Route], order: Sequence[int] | None = None) -> RoutePrefix:
        """The prefix of a set of routes.

        `order` gives the identifier index of each of the K+1 lines (training re-draws it); without
        it, lines take identifiers in sequence. Raises InvalidRequest for no routes or too many,
        RoutesTooLong where the lines leave no room for a user turn.
        """
        if not routes:
            raise InvalidRequest("at least one route is needed", field="routes")
        lines = [(route.name, route.description) for route in routes]
        lines.append((NONE, NONE_DESCRIPTION))
        identifiers = self._line_identifiers(len(lines), order)
        tokens = [*self._headers["system"], *self._tokenizer.encode(INSTRUCTION), *self._newline]
        starts: list[int] = []
        ends: list[int] = []
        for number, (name, description) in enumerate(lines):
            starts.append(len(tokens))
            text = f"{_one_line(name)}: {_one_line(description)}"
            if identifiers is not None:
                tokens.append(identifiers[number])
                text = f" {text}"
            tokens += self._capped(text, self.budget.route_tokens)
            tokens += self._newline
            ends.append(len(tokens) - 1)
        tokens.append(self._end)
        room = self.budget.max_tokens - len(tokens)
        if room < self._longest_user_turn:
            raise RoutesTooLong(
                f"{len(routes)} routes take {len(tokens)} tokens; at most "
                f"{self.budget.max_tokens - self._longest_user_turn} of the budget of "
                f"{self.budget.max_tokens} may go to routes: offer fewer, or shorten descriptions",
                field="routes",
            )
        return RoutePrefix(tuple(tokens), tuple(starts), tuple(ends), identifiers)

    def turns(self, conversation: Conversation) -> list[EncodedTurn]:
        """Every turn by itself; oversized ones cut in the middle, roles capped at 0 left out."""
        encoded: list[EncodedTurn] = []
        opened = False
        for turn in conversation.turns:
            if self.budget.cap(turn.role) > 0:
                is_user = turn.role == "user"
                tokens = self._turn(turn, opened=opened)
                encoded.append(EncodedTurn(tokens, is_user, turn.message))
                opened = is_user and self._opens_reply
        return encoded

    def prompts(self, prefix: RoutePrefix, conversation: Conversation) -> list[Prompt]:
        """Sequences that together decide every user turn exactly once.

        One, as long as the conversation fits the budget. A longer one is trimmed by whole turns
        from its beginning. Where trimming begins depends only on what came before, so as a
        conversation grows its earlier prompts stay what they were.
        """
        turns = self.turns(conversation)
        room = self.budget.max_tokens - len(prefix.tokens)
        starts: dict[int, list[int]] = {}
        start, used = 0, 0
        for index, turn in enumerate(turns):
            used += len(turn.tokens)
            if used > room:
                while start < index and used > KEEP_SHARE * room:
                    used -= len(turns[start].tokens)
                    start += 1
                while self._opens_reply and start < index and not turns[start].is_user:
                    # A reply whose header went with the user turn before it.
                    used -= len(turns[start].tokens)
                    start += 1
            if turn.is_user:
                starts.setdefault(start, []).append(index)
        return [
            Prompt(prefix, tuple(turns[start : ends[-1] + 1]), tuple(end - start for end in ends))
            for start, ends in starts.items()
        ]

    def decision_prompt(self, prefix: RoutePrefix, conversation: Conversation) -> Prompt:
        """The sequence whose last token decides the last user turn; InvalidRequest without one."""
        prompts = self.prompts(prefix, conversation.up_to_last_user_turn())
        if not prompts:
            raise InvalidRequest("the conversation has no user turn", field="messages")
        return prompts[-1]

    @property
    def identifier_count(self) -> int:
        """Number of identifiers to deal out; 0 for the pointer read-out."""
        return len(self._identifiers or ())

    @property
    def _longest_user_turn(self) -> int:
        frame = len(self._newline) + len(self._headers["user"]) + 1
        if self._opens_reply:
            frame += len(self._newline) + len(self._headers["assistant"])
        return self.budget.user_tokens + frame

    def _turn(self, turn: Turn, *, opened: bool) -> Tokens:
        """A turn's tokens; `opened` if the turn before has written an assistant's header."""
        body = self._capped(turn.text, self.budget.cap(turn.role))
        if turn.role == "assistant" and opened:
            return (*body, self._end)
        tokens = (*self._newline, *self._headers[turn.role], *body, self._end)
        if turn.role == "user" and self._opens_reply:
            return (*tokens, *self._newline, *self._headers["assistant"])
        return tokens

    def _capped(self, text: str, cap: int) -> list[int]:
        """Tokens of a text, at most `cap`, with head and tail kept around an ellipsis."""
        half = cap * CHARACTERS_PER_TOKEN
        if len(text) > 2 * half:
            head, tail = self._tokenizer.encode(text[:half]), self._tokenizer.encode(text[-half:])
            tokens = head[:cap] + tail[-cap:]
            # Both halves may be few tokens; a cut text must still show that it was cut.
            cap = min(cap, len(tokens) - 1)
        else:
            tokens = self._tokenizer.encode(text)
        if len(tokens) <= cap:
            return tokens
        kept = max(cap - len(self._ellipsis), 1)
        head_size = max(1, round(kept * HEAD_SHARE))
        tail_size = kept - head_size
        return [*tokens[:head_size], *self._ellipsis, *tokens[len(tokens) - tail_size :]][:cap]

    def _line_identifiers(self, lines: int, order: Sequence[int] | None) -> Tokens | None:
        if self._identifiers is None:
            return None
        if lines > len(self._identifiers):
            raise InvalidRequest(
                f"{lines - 1} routes exceed the {len(self._identifiers) - 1} that the identifiers "
                "of this checkpoint allow",
                field="routes",
            )
        indices = range(lines) if order is None else order
        return tuple(self._identifiers[index] for index in indices)


def in_reading_order(routes: Sequence[Route]) -> tuple[list[Route], list[int]]:
    """Routes as they are read before a decision: by name, however their owner lists them.

    So the same routes are the same prefix: read once, and decided alike. Beside them the places
    that bring the scores of their K+1 lines back into the given order. Training reads any order.
    """
    order = sorted(range(len(routes)), key=lambda place: (routes[place].name, place))
    back = sorted(range(len(order)), key=order.__getitem__)
    return [routes[place] for place in order], [*back, len(order)]


def choose_identifiers(tokenizer: Tokenizer, count: int) -> list[str]:
    """`count` short printable strings of one token each: letters first, then pairs and digits."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    candidates = [
        *letters,
        *letters.lower(),
        *"0123456789",
        *(a + b for a in letters for b in letters),
    ]
    chosen: list[str] = []
    seen: set[int] = set()
    for candidate in candidates:
        tokens = tokenizer.encode(candidate)
        if len(tokens) == 1 and tokens[0] not in seen:
            seen.add(tokens[0])
            chosen.append(candidate)
            if len(chosen) == count:
                return chosen
    raise ValueError(f"the tokenizer has only {len(chosen)} single-token identifiers, not {count}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
