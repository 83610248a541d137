"""Snapshots that wait for the database: bounded, in order, and findable while they wait."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from itertools import islice

from serving.records.snapshot import Snapshot

TEXT_CHARACTERS = 32 * 2**20
"""Of conversations that wait, all together; beyond it records wait without theirs."""


class RecordQueue:
    """Beyond `limit` the newest is dropped: whatever was taken in stays until it is written."""

    def __init__(self, limit: int, text_characters: int = TEXT_CHARACTERS) -> None:
        self.dropped: Counter[str] = Counter()
        """By reason: queue_full, text_full (the text alone), refused, shutdown."""
        self._limit = limit
        self._waiting: deque[Snapshot] = deque()
        self._characters_limit = text_characters
        self._characters = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def oldest_seconds(self) -> float:
        """How long ago the request came that waits first; 0 where none waits."""
        return max(0.0, time.time() - self._waiting[0].created) if self._waiting else 0.0

    def put(self, snapshot: Snapshot) -> None:
        """Take a snapshot in, or count it as dropped."""
        if len(self._waiting) >= self._limit:
            self.dropped["queue_full"] += 1
            return
        if snapshot.turns is not None:
            size = _characters(snapshot)
            if self._characters + size > self._characters_limit:
                self.dropped["text_full"] += 1
                snapshot = snapshot._replace(turns=None)
            else:
                self._characters += size
        self._waiting.append(snapshot)

    def first(self, count: int) -> list[Snapshot]:
        """The snapshots that wait longest; they stay."""
        return list(islice(self._waiting, count))

    def forget(self, count: int) -> None:
        """Let so many of the first go: they have been written, or never will be."""
        for _ in range(count):
            self._characters -= _characters(self._waiting.popleft())

    def drop_all(self, reason: str) -> int:
        """Let all go unwritten; how many they were."""
        count = len(self._waiting)
        self.forget(count)
        self.dropped[reason] += count
        return count

    def find(self, wanted: Callable[[Snapshot], bool]) -> Snapshot | None:
        """The newest that waits and is wanted."""
        return next((each for each in reversed(self._waiting) if wanted(each)), None)


def _characters(snapshot: Snapshot) -> int:
    return sum(len(turn.text) for turn in snapshot.turns) if snapshot.turns else 0
