"""Reading which route a model's free text names."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from routing.tasks import NONE

_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_END_OF_THOUGHT = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_FENCE = re.compile(r"\A```\w*\n(.*?)\n?```\Z", re.DOTALL)
_SEPARATORS = re.compile(r"[\s_\-]+")
_WRAPPING = " \t\r\n\"'`*.,:;()[]<>“”‘’«»"


class MalformedAnswer(ValueError):
    """A text that names no route, or more than one."""


def named_route(text: str, names: Sequence[str]) -> str | None:
    """The one of `names` that a text names, or None where it says "none".

    Read in this order, the first that holds: the whole text is a name; it is one but for quotes,
    marks of emphasis, case, or spaces for underscores and hyphens; it is JSON with the name as
    its only string; exactly one name, or "none", is mentioned anywhere. What a model thinks aloud
    between `<think>` tags is left out. Raises MalformedAnswer for all else.
    """
    said = _answer_of(text)
    for candidate in (said, _string_in_json(said)):
        if candidate is not None and (found := _alike(candidate, names)) is not None:
            return None if found == NONE else found
    mentioned = _mentioned(said, names)
    if len(mentioned) != 1:
        raise MalformedAnswer(f"names {len(mentioned)} routes")
    return None if mentioned[0] == NONE else mentioned[0]


def _answer_of(text: str) -> str:
    text = _THOUGHT.sub("", text)
    # Templates that open a thought in the prompt leave only its end in the answer.
    text = _END_OF_THOUGHT.split(text)[-1].strip()
    fenced = _FENCE.match(text)
    return fenced[1].strip() if fenced else text


def _string_in_json(text: str) -> str | None:
    """A JSON string, or the only string among the values of a JSON object or list."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    values = list(value.values()) if isinstance(value, dict) else value
    strings = [v for v in (values if isinstance(values, list) else [value]) if isinstance(v, str)]
    return strings[0] if len(strings) == 1 else None


def _alike(text: str, names: Sequence[str]) -> str | None:
    """The outcome that the text is, exactly or else but for its dress; None unless one is."""
    outcomes = [*names, NONE]
    if text in outcomes:
        return text
    folded = [_folded(form) for form in (text, text.strip(_WRAPPING))]
    alike = [name for name in outcomes if _folded(name) in folded]
    return alike[0] if len(alike) == 1 else None


def _mentioned(text: str, names: Sequence[str]) -> list[str]:
    """Outcomes that the text mentions as whole words; a name within a longer one doesn't count."""
    left = _folded(text)
    found: list[str] = []
    for name in sorted([*names, NONE], key=lambda name: -len(_folded(name))):
        word = _folded(name)
        if not word:
            continue
        pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
        if pattern.search(left):
            found.append(name)
            # Where two names fold alike, neither is told from the other: count both.
            twins = sum(_folded(other) == word for other in names) > 1
            left = left if twins else pattern.sub("\0", left)
    return found


def _folded(text: str) -> str:
    return _SEPARATORS.sub(" ", text.casefold()).strip()
