"""Every way to spoil one value of a JSON document: another kind in its place, or nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

JUNK: tuple[Any, ...] = (None, 0, -1.5, True, "", "x", [], {}, ["x"], [{}], [[]], {"type": "x"})


def spoilt(document: Any) -> Iterator[Any]:
    """Copies of a document in each of which one value is spoilt or missing."""
    for path in _paths(document):
        for junk in JUNK:
            spoiled = copy.deepcopy(document)
            _at(spoiled, path[:-1])[path[-1]] = copy.deepcopy(junk)
            yield spoiled
        spoiled = copy.deepcopy(document)
        del _at(spoiled, path[:-1])[path[-1]]
        yield spoiled


def _paths(value: Any) -> Iterator[tuple[str | int, ...]]:
    if not isinstance(value, dict | list):
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield (key,)
        yield from ((key, *rest) for rest in _paths(item))


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = value[key]
    return value
