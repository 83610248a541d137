"""Reading a client's body for a translation: a field of another shape cannot be translated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from serving.protocols.base import Untranslatable


def an_object(value: Any, at: str) -> dict[str, Any]:
    """`value` if it is a JSON object; raises Untranslatable, as all of these do."""
    if isinstance(value, dict):
        return value
    raise _wrong(value, at, "an object")


def objects(value: Any, at: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of an array, each with its path."""
    if not isinstance(value, list):
        raise _wrong(value, at, "an array")
    for number, entry in enumerate(value):
        here = f"{at}[{number}]"
        yield an_object(entry, here), here


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The objects of what should be an array of them, in an upstream's answer; never raises."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def a_string(value: Any, at: str) -> str:
    """`value` if it is a string."""
    if isinstance(value, str):
        return value
    raise _wrong(value, at, "a string")


def a_number(value: Any, at: str) -> float:
    """`value` if it is a number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise _wrong(value, at, "a number")


def a_limit(value: Any, at: str) -> int:
    """`value` if it is a whole number above 0."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise _wrong(value, at, "a whole number above 0")


def only_here(what: str, at: str) -> Untranslatable:
    """The error for what the other protocol has no words for."""
    return Untranslatable(f"{at}: this model's provider has no {what}", at)


def _wrong(value: Any, at: str, wanted: str) -> Untranslatable:
    said = f"{at} is required" if value is None else f"{at} must be {wanted}"
    return Untranslatable(said, at)
