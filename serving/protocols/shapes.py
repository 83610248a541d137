"""Checked reading of a client's JSON: what has another shape is a 400 that names the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.errors import ApiError, bad_request


def text(value: Any, at: str) -> str:
    """A string that must be there; raises ApiError 400."""
    if isinstance(value, str):
        return value
    raise _wrong(value, at, "a string")


def mapping(value: Any, at: str) -> dict[str, Any]:
    """An object that must be there; raises ApiError 400."""
    if isinstance(value, dict):
        return value
    raise _wrong(value, at, "an object")


def array(value: Any, at: str) -> list[Any]:
    """An array that must be there; raises ApiError 400."""
    if isinstance(value, list):
        return value
    raise _wrong(value, at, "an array")


def one_of(value: Any, known: Sequence[str], at: str) -> str:
    """One of some words; raises ApiError 400 that names them."""
    if isinstance(value, str) and value in known:
        return value
    raise bad_request(f"{at} must be one of {', '.join(known)}", at)


def parts(value: Any, at: str) -> list[dict[str, Any]]:
    """An array of content parts, each an object with a type, whose texts are strings."""
    found = array(value, at)
    for number, part in enumerate(found):
        here = f"{at}[{number}]"
        kind = mapping(part, here).get("type")
        if not isinstance(kind, str):
            raise _wrong(kind, f"{here}.type", "a string")
        key = TEXT_PARTS.get(kind)
        if key is not None and not isinstance(part.get(key), str):
            raise _wrong(part.get(key), f"{here}.{key}", "a string")
    return found


def content(value: Any, at: str) -> str | list[dict[str, Any]]:
    """A string, or an array of content parts; raises ApiError 400."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return parts(value, at)
    raise _wrong(value, at, "a string or an array of parts")


TEXT_PARTS: Mapping[str, str] = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
}
"""Kinds of parts that are text, of all protocols, and the field that holds it."""


def _wrong(value: Any, at: str, wanted: str) -> ApiError:
    return bad_request(f"{at} is required" if value is None else f"{at} must be {wanted}", at)
