"""A corpus of labelled talk as a source: windows of its dialogues, or rows of its requests."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

from data_synthesis.corpus import Coarse, Corpus, Dialogue, Request, Task
from data_synthesis.draft import Draft, Line
from data_synthesis.phrases import Phrases

OUT_OF_SCOPE_SHARE = 0.05
"""Requests of a row that belong to no task, where the corpus has such."""
STAY_SHARE = 0.25
"""Requests of a row that are for the task of the one before."""


class CorpusSource:
    """Conversations of one corpus."""

    def __init__(self, corpus: Corpus, phrases: Phrases) -> None:
        self._corpus = corpus
        self._phrases = phrases
        self._requests: dict[str, list[Request]] = defaultdict(list)
        self._alone: dict[str, list[Request]] = defaultdict(list)
        self._unneeded = [r for r in corpus.requests if not r.tasks]
        for request in corpus.requests:
            for key in request.tasks:
                self._requests[key].append(request)
            if len(request.tasks) == 1:
                self._alone[request.tasks[0]].append(request)
        self._keys = [k for k, t in corpus.tasks.items() if self._requests[k] and not t.catch_all]
        self._near: dict[str, list[str]] = defaultdict(list)
        for key in self._keys:
            self._near[corpus.tasks[key].group].append(key)

    @property
    def name(self) -> str:
        return self._corpus.name

    @property
    def licence(self) -> str:
        return self._corpus.licence

    @property
    def tasks(self) -> Mapping[str, Task]:
        return self._corpus.tasks

    @property
    def coarse(self) -> Sequence[Coarse]:
        groups = self.groups()
        return [
            Coarse(f"{self.name}:{key}", "domain", wording, groups[key])
            for key, wording in self._corpus.groups.items()
            if key in groups
        ]

    def groups(self) -> Mapping[str, frozenset[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for key, task in self._corpus.tasks.items():
            found[task.group].add(key)
        return {group: frozenset(keys) for group, keys in found.items()}

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for key, task in self._corpus.tasks.items():
            sets = sorted(task.conflicts), sorted(task.neighbours)
            digest.update(repr((key, task.group, task.wording, *sets)).encode())
        for item in (*self._corpus.requests, *self._corpus.dialogues):
            digest.update(repr(item).encode())
        return digest.hexdigest()

    def restricted(self, keys: frozenset[str]) -> CorpusSource:
        return CorpusSource(self._corpus.restricted(keys), self._phrases)

    def touching(self, keys: frozenset[str]) -> CorpusSource:
        """The source with these tasks' requests, and every dialogue that needs one of them.

        Dialogues wander between groups of tasks; those that touch a validation task are all lost
        to training, so validation takes them whole.
        """
        corpus = self._corpus.restricted(keys)
        if self._corpus.dialogues:
            dialogues = tuple(d for d in self._corpus.dialogues if keys.intersection(d.tasks))
            corpus = replace(corpus, tasks=self._corpus.tasks, dialogues=dialogues)
        return CorpusSource(corpus, self._phrases)

    def requestable(self) -> Sequence[str]:
        return [key for key in self._keys if self._alone[key]]

    def request(self, rng: Random, key: str) -> Line | None:
        pool = self._alone.get(key)
        return Line("user", rng.choice(pool).text, (key,), alone=True) if pool else None

    def texts(self, key: str) -> Sequence[str]:
        return [request.text for request in self._alone.get(key, ())[:5]]

    def draw(self, rng: Random, turns: int) -> Draft:
        if self._corpus.dialogues:
            lines = window(rng, rng.choice(self._corpus.dialogues), turns)
            return Draft(self.name, self.licence, lines, "dialogue", missing_groups=True)
        return Draft(self.name, self.licence, self._row(rng, turns), "requests")

    def _row(self, rng: Random, turns: int) -> tuple[Line, ...]:
        """Independent requests for a few tasks, with an answer between most of them."""
        pool = [rng.choice(self._keys)]
        for _ in range(rng.randint(0, 3)):
            near = self._near[self._corpus.tasks[pool[0]].group]
            key = rng.choice(near if rng.random() < 0.4 else self._keys)
            if all(self._together(key, other) for other in pool):
                pool.append(key)
        lines: list[Line] = []
        last = pool[0]
        for number in range(rng.randint(1, min(8, turns))):
            if number and rng.random() < 0.7:
                lines.append(Line("assistant", self._phrases.draw(rng, "acknowledgements")))
            if self._unneeded and rng.random() < OUT_OF_SCOPE_SHARE:
                text = rng.choice(self._unneeded).text
                lines.append(Line("user", text, (), "out_of_scope", alone=True))
                continue
            last = last if rng.random() < STAY_SHARE else rng.choice(pool)
            request = rng.choice(self._requests[last])
            several = len(request.tasks) > 1
            kind = "several" if several else "request"
            lines.append(Line("user", request.text, request.tasks, kind, alone=not several))
        return tuple(lines)

    def _together(self, one: str, other: str) -> bool:
        tasks = self._corpus.tasks
        return (
            one != other and other not in tasks[one].conflicts and one not in tasks[other].conflicts
        )


def window(rng: Random, dialogue: Dialogue, most: int) -> tuple[Line, ...]:
    """The dialogue from its beginning, cut at a random point, at most `most` user turns long."""
    users = sum(turn.role == "user" for turn in dialogue.turns)
    wanted = rng.randint(min(3, users, most), min(users, most))
    lines: list[Line] = []
    for turn in dialogue.turns:
        line = Line(turn.role, turn.text, kind="dialogue")
        if turn.role == "user":
            line = replace(line, tasks=turn.labels if turn.decided else None, alone=not lines)
        lines.append(line)
        wanted -= turn.role == "user"
        if not wanted:
            break
    return tuple(lines)
