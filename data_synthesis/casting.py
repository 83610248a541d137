"""Which routes may be offered together, and drawing distractors for a conversation.

Routes are *units*: tasks, and broader ones that cover several tasks. For talk about a task, a unit

    covers    it: it is a right answer,
    borders   on it: a careful reader tells them apart while the right one is offered, but without
              that one might call it right: a near distractor,
    blurs     into it: nobody could tell, so the two are never offered together,
    or is foreign to it: safe beside it and safe without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

from data_synthesis.corpus import Task, Wording
from data_synthesis.likeness import likeness
from data_synthesis.sources.base import Source

Mask = NDArray[np.bool_]

GRAINS = ("task", "domain", "family", "area")
"""How broad a unit is."""

BLUR = 0.42
"""Cosine of TF-IDF vectors from which tasks of different sources or domains count as one."""
BORDER = 0.22
"""Cosine from which they count as neighbours, though nobody noted it."""
_COMMON = frozenset(
    (
        *("a", "an", "and", "ask", "buy", "check", "create", "do", "find", "for", "from", "get"),
        *("give", "in", "info", "information", "is", "make", "my", "new", "of", "on", "online"),
        *("or", "search", "see", "set", "show", "the", "to", "update", "user", "view", "with"),
    )
)
"""Words that two names may share without meaning the same thing."""


class Cast:
    """Units of several sources with what is known about their likeness."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.tasks: dict[str, Task] = {
            key: task
            for source in sources
            for key, task in source.tasks.items()
            if not task.catch_all
        }
        coarse = [c for source in sources for c in source.coarse if c.covers & self.tasks.keys()]
        self._coarse = {unit.key: unit for unit in coarse}
        self.keys = [*self.tasks, *self._coarse]
        self._task_index = {key: i for i, key in enumerate(self.tasks)}
        self._index = {key: i for i, key in enumerate(self.keys)}
        self._source = np.array([key.split("/")[0] for key in self.tasks])
        self._grains = np.array(
            ["task"] * len(self.tasks) + [unit.grain for unit in self._coarse.values()]
        )
        texts = {key: source.texts(key) for source in sources for key in source.tasks}
        self._relate({key: texts[key] for key in self.tasks})

    def grain(self, unit: str) -> str:
        """task, domain, family or area."""
        return str(self._grains[self._index[unit]])

    def wording(self, unit: str) -> Wording:
        task = self.tasks.get(unit)
        return task.wording if task is not None else self._coarse[unit].wording

    def covers(self, unit: str, task: str) -> bool:
        return bool(self._covers[self._task_index[task], self._index[unit]])

    def covering(self, task: str, grain: str) -> list[str]:
        """Units of a grain that cover a task."""
        found = np.flatnonzero(self._covers[self._task_index[task]] & self.of_grain(grain))
        return [self.keys[i] for i in found]

    def foreign(self, unit: str, task: str) -> bool:
        """Whether talk about the task cannot be meant for the unit."""
        return not self._close[self._task_index[task], self._index[unit]]

    def in_areas(self, unit: str, areas: Iterable[str]) -> bool:
        """Whether a unit covers a task of one of some areas."""
        return any(self._in_area[a][self._index[unit]] for a in areas if a in self._in_area)

    def together(self, one: str, other: str) -> bool:
        """Whether two tasks may be spoken of in one conversation and offered together."""
        return one == other or not self._blurs[self._task_index[one], self._index[other]]

    def allowed(
        self, needed: Iterable[str], missing: Iterable[str], barred: Iterable[str] = ()
    ) -> Mask:
        """Units that may stand beside the right routes of a conversation, as distractors.

        `needed` are the tasks spoken of whose route is offered, `missing` those whose route is not,
        `barred` areas that other talk of the conversation would fit.
        """
        rows = np.ones(len(self.keys), dtype=np.bool_)
        for key in needed:
            rows &= ~self._unfit[self._task_index[key]]
        for key in missing:
            rows &= ~self._close[self._task_index[key]]
        for area in barred:
            if area in self._in_area:
                rows &= ~self._in_area[area]
        return rows

    def near(self, tasks: Iterable[str]) -> Mask:
        """Units that border on one of the tasks, or are of its group."""
        rows = np.zeros(len(self.keys), dtype=np.bool_)
        for key in tasks:
            rows |= self._borders[self._task_index[key]]
            rows[: len(self.tasks)] |= self._same_group[self._task_index[key]]
        return rows

    def of_grain(self, grain: str) -> Mask:
        return self._of_grain[grain]

    def of_source(self, task: str) -> Mask:
        """Units of a task's source."""
        return self._of_source[task.split("/")[0]]

    def of_groups(self, tasks: Iterable[str]) -> Mask:
        """Tasks of the groups of some tasks, and what covers any of those."""
        rows = np.zeros(len(self.keys), dtype=np.bool_)
        for key in tasks:
            members = self._same_group[self._task_index[key]]
            rows |= self._covers[members].any(axis=0)
        return rows

    def pick(self, rng: Random, rows: Mask) -> str | None:
        """One of the marked units."""
        found = np.flatnonzero(rows)
        return self.keys[int(found[rng.randrange(len(found))])] if len(found) else None

    def strike(self, rows: Mask, unit: str) -> None:
        """Take a unit out of `rows`, and the tasks that nobody could tell from it."""
        at = self._index[unit]
        rows[at] = False
        if at < len(self.tasks):
            rows &= ~self._blurs[at]

    def _relate(self, texts: Mapping[str, Sequence[str]]) -> None:
        count, units = len(self.tasks), len(self.keys)
        alike = self._likeness(texts)
        borders = np.zeros((count, count), dtype=np.bool_)
        blurs = np.zeros((count, count), dtype=np.bool_)
        groups = np.array([task.group for task in self.tasks.values()])
        self._same_group = groups[:, None] == groups[None, :]
        same_source = self._source[:, None] == self._source[None, :]
        authored = np.array([bool(task.neighbours) for task in self.tasks.values()])
        # Notes of a corpus on its own overlaps decide within it; between sources nobody made any.
        unsure = ~same_source | (authored[:, None] & authored[None, :] & ~self._same_group)
        blurs |= unsure & (alike >= BLUR)
        borders |= (unsure | self._same_group & authored[:, None]) & (alike >= BORDER)
        blurs |= ~same_source & self._shared_names()
        for key, task in self.tasks.items():
            i = self._task_index[key]
            for other in task.conflicts & self.tasks.keys():
                blurs[i, self._task_index[other]] = blurs[self._task_index[other], i] = True
            for other in task.neighbours & self.tasks.keys():
                j = self._task_index[other]
                borders[i, j] = borders[j, i] = True
                blurs[i, j] = blurs[j, i] = False
        np.fill_diagonal(borders, False)
        np.fill_diagonal(blurs, False)

        covers = np.zeros((count, units), dtype=np.bool_)
        covers[:, :count] = np.eye(count, dtype=np.bool_)
        for unit in self._coarse.values():
            at = [self._task_index[key] for key in unit.covers & self.tasks.keys()]
            covers[at, self._index[unit.key]] = True
        self._covers = covers
        # What a member borders on or blurs into, the broader unit borders on.
        closeness = (borders | blurs).astype(np.float32)
        self._borders = (closeness @ covers.astype(np.float32) > 0) & ~covers
        self._borders[:, :count] = borders
        self._blurs = np.zeros_like(covers)
        self._blurs[:, :count] = blurs
        self._unfit = covers | self._blurs
        self._close = covers | self._borders | self._blurs
        areas = np.array([task.area for task in self.tasks.values()])
        self._in_area = {str(a): covers[areas == a].any(axis=0) for a in set(areas) if a}
        self._of_source: dict[str, Mask] = {
            str(name): covers[self._source == name].any(axis=0) for name in set(self._source)
        }
        self._of_grain: dict[str, Mask] = {grain: self._grains == grain for grain in GRAINS}

    def _likeness(self, texts: Mapping[str, Sequence[str]]) -> NDArray[np.float32]:
        """Cosine of TF-IDF vectors of everything written about each task [T, T]."""
        documents = [
            " ".join(
                (
                    *(name.replace("_", " ") for name in task.wording.names),
                    *task.wording.descriptions,
                    *texts[key],
                )
            )
            for key, task in self.tasks.items()
        ]
        return likeness(documents, common=0.3, rare=2)

    def _shared_names(self) -> Mask:
        """Pairs of tasks whose names share a telling word."""
        words = [
            {word for name in task.wording.names for word in name.split("_")} - _COMMON
            for task in self.tasks.values()
        ]
        vocabulary = {word: i for i, word in enumerate(sorted(set().union(*words)))}
        marks = np.zeros((len(words), len(vocabulary)), dtype=np.float32)
        for row, found in enumerate(words):
            marks[row, [vocabulary[word] for word in found]] = 1
        return np.asarray(marks @ marks.T > 0)
