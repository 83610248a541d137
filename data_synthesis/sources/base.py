"""What every source of labelled talk offers to the operators that make routing records of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Protocol

from data_synthesis.corpus import Coarse, Task
from data_synthesis.draft import Draft, Line


class Source(Protocol):
    """Draws conversations one by one, each from its own seed: streaming, in any order."""

    @property
    def name(self) -> str:
        """Unique among sources; task keys begin with it and a slash."""

    @property
    def licence(self) -> str:
        """SPDX identifier of what is drawn."""

    @property
    def tasks(self) -> Mapping[str, Task]:
        """Tasks by key; keys begin with the source's name and a slash."""

    @property
    def coarse(self) -> Sequence[Coarse]:
        """Broader routes that cover several of the tasks."""

    def fingerprint(self) -> str:
        """A hash of everything that may be drawn."""

    def restricted(self, keys: frozenset[str]) -> Source:
        """The source with only these tasks, and only talk that needs no other."""

    def touching(self, keys: frozenset[str]) -> Source:
        """The source for validation on these tasks: their requests, and all dialogues that need one
        of them, which training must not see. Its `tasks` may be more than `keys`.
        """

    def draw(self, rng: Random, turns: int) -> Draft:
        """A conversation of at most `turns` user turns."""

    def request(self, rng: Random, key: str) -> Line | None:
        """A user's line that makes sense by itself and needs this one task; None if it has none."""

    def requestable(self) -> Sequence[str]:
        """Keys of the tasks that `request` has lines for."""

    def texts(self, key: str) -> Sequence[str]:
        """Some of what is said for a task, for telling which tasks are alike."""

    def groups(self) -> Mapping[str, frozenset[str]]:
        """Task keys by group, for splitting training from validation by whole groups."""
