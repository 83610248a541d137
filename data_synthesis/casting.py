"""Which tasks may be offered together, and drawing distractors for them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from data_synthesis.corpus import Corpus, Task

_COMMON = frozenset(
    (
        *("a", "an", "and", "ask", "buy", "check", "create", "do", "find", "for", "from", "get"),
        *("give", "in", "info", "information", "is", "make", "my", "new", "of", "on", "online"),
        *("or", "search", "see", "set", "show", "the", "to", "update", "user", "view", "with"),
    )
)
"""Words that two names may share without meaning the same thing."""


class Cast:
    """Tasks of several corpora with what is known about their likeness."""

    def __init__(self, corpora: Iterable[Corpus]) -> None:
        self.tasks: dict[str, Task] = {}
        self._words: dict[str, frozenset[str]] = {}
        self._by_group: dict[str, list[str]] = defaultdict(list)
        self._by_corpus: dict[str, list[str]] = defaultdict(list)
        for corpus in corpora:
            for key, task in corpus.tasks.items():
                if task.catch_all:
                    continue
                self.tasks[key] = task
                words = {word for name in task.wording.names for word in name.split("_")}
                self._words[key] = frozenset(words - _COMMON)
                self._by_group[task.group].append(key)
                self._by_corpus[corpus.name].append(key)

    def compatible(self, one: str, other: str) -> bool:
        """Whether talk about one of the tasks cannot be meant for the other.

        Within a corpus its notes on overlaps decide. Across corpora nobody has noted any, so tasks
        whose names share a telling word are kept apart.
        """
        if one == other or other in self.tasks[one].conflicts or one in self.tasks[other].conflicts:
            return False
        if one.split("/")[0] == other.split("/")[0]:
            return True
        return not self._words[one] & self._words[other]

    def compatible_with_all(self, key: str, others: Iterable[str]) -> bool:
        return all(self.compatible(key, other) for other in others)

    def near(self, key: str) -> list[str]:
        """Tasks of the same group."""
        return [k for k in self._by_group[self.tasks[key].group] if k != key]

    def of_corpus(self, corpus: str) -> Sequence[str]:
        return self._by_corpus[corpus]

    def extend(
        self,
        rng: random.Random,
        offered: list[str],
        count: int,
        *,
        apart_from: Iterable[str] = (),
        near_share: float,
    ) -> list[str]:
        """`offered` with distractors up to `count`, none of which fits talk about the others.

        Distractors come from the group of an offered task with probability `near_share`, else from
        the corpora of what is there. May return fewer where the corpus runs out.
        """
        barred = list(apart_from)
        chosen = list(offered)
        anchors = chosen or barred
        corpora = sorted({key.split("/")[0] for key in anchors})
        misses = 0
        while len(chosen) < count and misses < 60:
            if rng.random() < near_share:
                pool: Sequence[str] = self.near(rng.choice(anchors))
            else:
                pool = self.of_corpus(rng.choice(corpora))
            key = rng.choice(pool) if pool else None
            if key is not None and self.compatible_with_all(key, [*chosen, *barred]):
                chosen.append(key)
            else:
                misses += 1
        return chosen
