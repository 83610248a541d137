"""Lines that repeat one growing conversation become one.

A chat client sends the whole conversation with every turn, so a log holds each beginning of it. The
longest stays, with the labels of all. System messages do not count, since they change from turn to
turn (dates, folders); the longest line's own stay. Answers count only where a later request
repeats them. A conversation that continues in two ways is two, and their common turns keep their
labels in one of them.

Memory holds the text of the conversations that are kept, and a hash of 16 bytes for each of their
turns; lines that collapsed leave nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from data_synthesis.logs.reader import Exchange, Said


@dataclass(slots=True)
class Kept:
    """The longest form of a conversation so far."""

    turns: tuple[Said, ...]
    answer: tuple[Said, ...]
    labels: dict[int, tuple[str, ...] | None] = field(default_factory=dict)
    """Task names by index among the turns that are not the system's; None: lines disagree."""

    def labelled(self) -> list[tuple[Said, tuple[str, ...] | None]]:
        """All turns in order, the answer last, each with its label; None: not decided."""
        rows: list[tuple[Said, tuple[str, ...] | None]] = []
        spoken = 0
        for turn in (*self.turns, *self.answer):
            label = None if turn.role == "system" else self.labels.get(spoken)
            spoken += turn.role != "system"
            rows.append((turn, label))
        return rows


class Conversations:
    """Conversations by their beginnings; `collapsed` and `disagreements` count lines and turns."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Kept] = {}
        """By the hash of all their turns, in the order in which they were first seen."""
        self._beginnings: dict[bytes, Kept] = {}
        self.collapsed = 0
        self.disagreements = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, exchange: Exchange) -> None:
        """Take a line in; it must have a turn that is not the system's."""
        hashes = _hashes(exchange.turns)
        labels = _by_spoken(exchange)
        known = self._beginnings.get(hashes[-1])
        if known is not None:
            self.collapsed += 1
            self._merge(known, labels)
            if hashes[-1] in self._kept and not known.answer:
                known.answer = exchange.answer
            return
        shorter = next((h for h in reversed(hashes[:-1]) if h in self._kept), None)
        if shorter is None:
            kept = Kept(exchange.turns, exchange.answer)
        else:
            self.collapsed += 1
            kept = self._kept.pop(shorter)
            kept.turns, kept.answer = exchange.turns, exchange.answer
        self._kept[hashes[-1]] = kept
        for value in hashes:
            self._beginnings.setdefault(value, kept)
        self._merge(kept, labels)

    def drain(self) -> Iterator[Kept]:
        """The conversations, each forgotten once it is given away."""
        self._beginnings.clear()
        while self._kept:
            yield self._kept.pop(next(iter(self._kept)))

    def _merge(self, kept: Kept, labels: Mapping[int, tuple[str, ...]]) -> None:
        for index, tasks in labels.items():
            before = kept.labels.setdefault(index, tasks)
            if before is not None and set(before) != set(tasks):
                kept.labels[index] = None
                self.disagreements += 1


def _hashes(turns: tuple[Said, ...]) -> list[bytes]:
    """A hash of every beginning of what was said."""
    found: list[bytes] = []
    last = b""
    for turn in turns:
        if turn.role != "system":
            last = blake2b(last + f"{turn.role}\0{turn.text}".encode(), digest_size=16).digest()
            found.append(last)
    return found


def _by_spoken(exchange: Exchange) -> dict[int, tuple[str, ...]]:
    labels: dict[int, tuple[str, ...]] = {}
    spoken = 0
    for index, turn in enumerate(exchange.turns):
        if index in exchange.labels:
            labels[spoken] = exchange.labels[index]
        spoken += turn.role != "system"
    return labels
