"""What every source of labelled talk is turned into before routing records are made of it.

A corpus knows *tasks* (with several wordings each) and *talk*: single requests, whole dialogues, or
both. Which routes are offered with a piece of talk is not the corpus's business; see `compose`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Wording:
    """Names and descriptions that mean one task; the first of each is the source's own."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """A task that talk is labelled with."""

    key: str
    group: str
    """Tasks of one group are alike: near distractors for one another."""
    wording: Wording
    conflicts: frozenset[str] = frozenset()
    """Keys never offered beside this task, since talk about one would fit the other."""
    neighbours: frozenset[str] = frozenset()
    """Tasks that only a careful reader tells apart: the nearest distractors, and never offered
    where this task is spoken of but missing."""
    area: str = ""
    """The broadest kind of work, such as coding or chat; empty where nobody said."""
    catch_all: bool = False
    """Accepts almost anything: never offered beside a specific task."""


@dataclass(frozen=True)
class Coarse:
    """A broader route, which covers several tasks."""

    key: str
    grain: str
    """domain, family or area: how broad."""
    wording: Wording
    covers: frozenset[str]


@dataclass(frozen=True)
class Request:
    """One user message that makes sense by itself; no task keys means that no task fits."""

    text: str
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Turn:
    """A turn of a dialogue; `task` is None for assistant turns and where no task is active."""

    role: str
    text: str
    task: str | None = None
    further: tuple[str, ...] = ()
    """Tasks that a user's turn needs beside `task`."""
    decided: bool = True
    """False for a user's turn whose label nobody knows."""

    @property
    def labels(self) -> tuple[str, ...]:
        return () if self.task is None else (self.task, *self.further)


@dataclass(frozen=True)
class Dialogue:
    """A whole dialogue in order."""

    id: str
    turns: tuple[Turn, ...]

    @property
    def tasks(self) -> list[str]:
        """Distinct task keys in order of appearance."""
        return list(dict.fromkeys(key for turn in self.turns for key in turn.labels))


@dataclass(frozen=True)
class Corpus:
    """Tasks and talk of one source."""

    name: str
    licence: str
    tasks: Mapping[str, Task]
    groups: Mapping[str, Wording] = field(default_factory=dict)
    """Wordings of groups that can be offered as coarse routes."""
    requests: tuple[Request, ...] = ()
    dialogues: tuple[Dialogue, ...] = ()

    def restricted(self, keys: Iterable[str]) -> Corpus:
        """The corpus with only these tasks, and only talk that needs no other."""
        kept = set(keys)
        return Corpus(
            self.name,
            self.licence,
            {key: task for key, task in self.tasks.items() if key in kept},
            self.groups,
            tuple(r for r in self.requests if kept.issuperset(r.tasks)),
            tuple(d for d in self.dialogues if kept.issuperset(d.tasks)),
        )
