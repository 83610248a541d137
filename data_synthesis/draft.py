"""A conversation on its way to a record: what is said, which tasks it needs, what is offered.

Sources draw drafts, operators change them (`operators`), and `render` writes them down as records.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """One message to be."""

    role: str
    """user, assistant, system or tool."""
    text: str
    tasks: tuple[str, ...] | None = None
    """Keys of the tasks that a user's line needs, none if it needs no task; None: not decided."""
    kind: str = "request"
    """How the line came about; a tag of its decision."""
    alone: bool = False
    """Makes sense without what was said before it."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of the message, such as tool calls."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A conversation and the routes to be offered with it."""

    source: str
    licence: str
    lines: tuple[Line, ...]
    kind: str
    missing: frozenset[str] = frozenset()
    """Tasks spoken of whose routes must not be offered."""
    missing_groups: bool = False
    """Whether the siblings of missing tasks must be missing too, as steps of one service."""
    barred: frozenset[str] = frozenset()
    """Areas whose routes would fit the unrelated talk that was mixed in."""
    offered: tuple[str, ...] = ()
    """Units of the cast, in the order of the record."""
    redrawn: bool = False
    """Whether the record says what training may draw anew."""
    spare: tuple[str, ...] = ()
    """Further units that may then take the place of distractors."""
    tags: dict[str, Any] = field(default_factory=dict)

    @property
    def tasks(self) -> list[str]:
        """Distinct tasks spoken of, in order of appearance."""
        return list(dict.fromkeys(key for line in self.lines for key in line.tasks or ()))

    @property
    def decided(self) -> int:
        """Number of decisions."""
        return sum(line.tasks is not None for line in self.lines)

    def with_lines(self, lines: Iterable[Line], kind: str | None = None) -> Draft:
        return replace(self, lines=tuple(lines), kind=kind or self.kind)

    def tagged(self, **tags: Any) -> Draft:
        return replace(self, tags={**self.tags, **tags})
