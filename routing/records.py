"""Routing data on disk: one conversation, or one decision, a line of JSON.

A *conversation record* holds n decisions; it is what training reads and data synthesis writes:

    {"id", "routes": [{"name", "description"}], "messages": [{"role", "content"}],
     "decisions": [{"message": index of the user message, "expected": [names], "tags": {...}}],
     "alternatives": {"wordings": [{"of": name, "routes"}], "spare": routes}, if any, "tags": {...}}

A *decision record* holds one, with the conversation up to it; benchmarks are files of these:

    {"id", "conversation_id", "turn", "routes", "messages", "expected", "tags"}

An empty `expected` means that no route fits.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from routing.errors import InvalidRecord
from routing.tasks import Route


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DecisionLabel(_Record):
    """The right routes of one user message; `message` is its index in `messages`."""

    message: Annotated[int, Field(ge=0)]
    expected: list[str]
    tags: dict[str, Any] = Field(default_factory=dict)


class Wordings(_Record):
    """Further names and descriptions of one route."""

    of: str
    """Its name in the record."""
    routes: list[Route]


class Alternatives(_Record):
    """What training may put in the place of a conversation's routes, epoch by epoch."""

    wordings: list[Wordings] = Field(default_factory=list)
    """Of offered and of spare routes."""
    spare: list[Route] = Field(default_factory=list)
    """Routes that no turn of the conversation needs, and that none offered is mistaken for."""


class ConversationRecord(_Record):
    """A conversation with a decision for each labelled user message."""

    id: str
    routes: Annotated[list[Route], Field(min_length=1)]
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    decisions: Annotated[list[DecisionLabel], Field(min_length=1)]
    alternatives: Alternatives | None = None
    tags: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_names([*self.routes, *(self.alternatives.spare if self.alternatives else [])])
        names = {route.name for route in self.routes}
        for label in self.decisions:
            if label.message >= len(self.messages):
                raise ValueError(f"decision about message {label.message} of {len(self.messages)}")
            if self.messages[label.message].get("role") != "user":
                raise ValueError(f"decision about message {label.message}, which is not a user's")
            _check_expected(label.expected, names)
        indices = [label.message for label in self.decisions]
        if indices != sorted(set(indices)):
            raise ValueError("decisions must be in the order of their messages, one a message")
        return self


class DecisionRecord(_Record):
    """One decision: the last message of `messages`, a user's, is to be routed."""

    id: str
    conversation_id: str
    turn: Annotated[int, Field(ge=0)]
    routes: Annotated[list[Route], Field(min_length=1)]
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    expected: list[str]
    tags: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_names(self.routes)
        _check_expected(self.expected, {route.name for route in self.routes})
        if self.messages[-1].get("role") != "user":
            raise ValueError("messages must end with the user message to route")
        return self


def _check_names(routes: list[Route]) -> None:
    names = [route.name for route in routes]
    if len(set(names)) < len(names):
        raise ValueError("route names must not repeat")


def _check_expected(expected: list[str], names: set[str]) -> None:
    unknown = [name for name in expected if name not in names]
    if unknown:
        raise ValueError(f"expected {unknown[0]!r} is not among the routes")


def read_conversations(path: str | Path) -> Iterator[ConversationRecord]:
    """Conversation records of a .jsonl(.gz) file, or of all such files of a folder in order.

    Raises InvalidRecord with file and line.
    """
    return _read(Path(path), ConversationRecord)


def read_decisions(path: str | Path) -> Iterator[DecisionRecord]:
    """Decision records of a .jsonl(.gz) file; raises InvalidRecord with file and line."""
    return _read(Path(path), DecisionRecord)


R = TypeVar("R", bound=_Record)


def shards(path: Path) -> list[Path]:
    """The files that a data set, or a part of one, consists of; InvalidRecord if there are none."""
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if p.name.endswith((".jsonl", ".jsonl.gz")))
    if not found:
        raise InvalidRecord(f"{path} holds no .jsonl or .jsonl.gz files")
    return found


def _read(path: Path, kind: type[R]) -> Iterator[R]:
    for shard in shards(path):
        yield from _read_file(shard, kind)


def _read_file(path: Path, kind: type[R]) -> Iterator[R]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _parse(line, kind, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRecord(f"cannot read {path}: {error}") from None


def _parse(line: str, kind: type[R], at: str) -> R:
    try:
        return kind.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or None
        raise InvalidRecord(f"{at}: {field or 'record'}: {first['msg']}", field=field) from None
    except ValueError as error:
        raise InvalidRecord(f"{at}: not JSON: {error}") from None
