"""Where drafts are made: the sources, what is known of their tasks, and the authored library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from data_synthesis.authored.library import Library
from data_synthesis.casting import Cast
from data_synthesis.draft import Draft, Line
from data_synthesis.sources.base import Source

ATTEMPTS = 8


class Stage:
    """Sources by weight, and the cast of all their tasks."""

    def __init__(
        self, sources: Sequence[Source], weights: Mapping[str, float], library: Library
    ) -> None:
        self.sources = {source.name: source for source in sources}
        self._weights = [weights[name] for name in self.sources]
        self.cast = Cast(sources)
        self.library = library
        self.phrases = library.phrases
        self._requestable = {
            name: [key for key in source.requestable() if key in self.cast.tasks]
            for name, source in self.sources.items()
        }

    def draw(self, rng: Random, turns: int) -> Draft:
        """A conversation whose tasks can be told apart, from a source drawn by weight."""
        (source,) = rng.choices(list(self.sources.values()), self._weights)
        for _ in range(ATTEMPTS):
            draft = source.draw(rng, turns)
            if self.consistent(draft.tasks):
                break
        return draft

    def consistent(self, tasks: Sequence[str]) -> bool:
        """Whether routes for all these tasks may be offered together."""
        known = all(key in self.cast.tasks for key in tasks)
        return known and all(
            self.cast.together(one, other)
            for number, one in enumerate(tasks)
            for other in tasks[:number]
        )

    def guest(self, rng: Random, hosts: Sequence[str]) -> tuple[str, Line] | None:
        """A request for a task that has nothing to do with the tasks of a conversation."""
        sources = [name for name, keys in self._requestable.items() if keys]
        for _ in range(ATTEMPTS if sources else 0):
            name = rng.choice(sources)
            key = rng.choice(self._requestable[name])
            if all(self.cast.foreign(k, key) and self.cast.foreign(key, k) for k in hosts):
                line = self.sources[name].request(rng, key)
                if line is not None:
                    return key, line
        return None

    def request(self, rng: Random, key: str) -> Line | None:
        """A request for a task of any source."""
        return self.sources[key.split("/")[0]].request(rng, key)
