"""Personal data and secrets out of a conversation, with the same stand-in for the same value.

What was found in one message is taken out of all the others too, also where no pattern would have
found it: a password that is repeated alone, a first name in an answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from data_synthesis.logs.detect import Detector, Span, merged
from data_synthesis.logs.surrogates import surrogate

Replacement = Literal["placeholders", "surrogates"]
MAX_TEXT = 100_000
"""Characters of a message that are kept: of a longer one half from either end."""
MARGIN = 2_000
"""Characters dropped at a cut: what the cut broke could not be recognised."""
CUT = "\n[...]\n"
_WHOLE_WORDS = frozenset({"PERSON", "USERNAME"})
_SHORT = 8
"""A shorter value is looked for elsewhere only as a whole word."""


class Scrubber:
    """Scrubs conversations, each by itself: stand-ins do not link one to another."""

    def __init__(
        self, detector: Detector, replacement: Replacement = "placeholders", seed: int = 0
    ) -> None:
        self._detector = detector
        self._replacement = replacement
        self._seed = seed

    def scrub(self, texts: Sequence[str], id: str) -> tuple[list[str], Counter[str]]:
        """The texts of one conversation in order, scrubbed, and how much was replaced by kind.

        Placeholders are `<EMAIL_1>`; surrogates are drawn by seed, `id` and order, never from the
        value itself, which could be guessed back. Raises DetectionIncomplete.
        """
        pieces = [_pieces(text) for text in texts]
        found = [[self._detector.spans(piece) for piece in group] for group in pieces]
        values = _Values(self._replacement, f"{self._seed}/{id}")
        for group, spans in zip(pieces, found, strict=True):
            for piece, inside in zip(group, spans, strict=True):
                for span in inside:
                    values.add(piece[span.start : span.end], span.kind)
        counts: Counter[str] = Counter()
        done: list[str] = []
        for group, spans in zip(pieces, found, strict=True):
            scrubbed = [
                _replace(piece, merged([*inside, *values.elsewhere(piece)]), values, counts)
                for piece, inside in zip(group, spans, strict=True)
            ]
            if len(scrubbed) > 1:
                scrubbed = [scrubbed[0][:-MARGIN] + CUT + scrubbed[1][MARGIN:]]
            done.append(scrubbed[0])
        return done, counts


def _pieces(text: str) -> tuple[str, ...]:
    if len(text) <= MAX_TEXT:
        return (text,)
    half = MAX_TEXT // 2
    return text[:half], text[-half:]


def _replace(text: str, spans: Iterable[Span], values: _Values, counts: Counter[str]) -> str:
    parts: list[str] = []
    at = 0
    for span in spans:
        parts += [text[at : span.start], values.add(text[span.start : span.end], span.kind)]
        counts[span.kind] += 1
        at = span.end
    return "".join([*parts, text[at:]])


@dataclass
class _Values:
    """The values of one conversation with their stand-ins."""

    replacement: Replacement
    seed: str
    _by_form: dict[tuple[str, str], str] = field(default_factory=dict)
    _persons: list[tuple[frozenset[str], str]] = field(default_factory=list)
    _literal: dict[str, str] = field(default_factory=dict)
    """Kinds by exact text to look for elsewhere."""
    _numbers: Counter[str] = field(default_factory=Counter)
    _pattern: re.Pattern[str] | None = None

    def add(self, value: str, kind: str) -> str:
        """The stand-in of a value."""
        form = (kind, _form(value, kind))
        known = self._by_form.get(form)
        if known is None:
            known = self._person(value) if kind == "PERSON" else None
            known = known or self._new(kind)
            self._by_form[form] = known
            if kind == "PERSON":
                self._persons.append((frozenset(value.casefold().split()), known))
        for text in _literals(value, kind):
            if text not in self._literal:
                self._literal[text] = kind
                self._pattern = None
        return known

    def elsewhere(self, text: str) -> list[Span]:
        """Where known values stand."""
        if not self._literal:
            return []
        if self._pattern is None:
            longest_first = sorted(self._literal, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(self._bounded, longest_first)))
        return [
            Span(match.start(), match.end(), self._literal[match.group()])
            for match in self._pattern.finditer(text)
        ]

    def _bounded(self, value: str) -> str:
        escaped = re.escape(value)
        if self._literal[value] in _WHOLE_WORDS or len(value) < _SHORT:
            return rf"(?<!\w){escaped}(?!\w)"
        return escaped

    def _person(self, value: str) -> str | None:
        """The stand-in of a longer name that this is a part of."""
        words = frozenset(value.casefold().split())
        return next((known for whole, known in self._persons if words <= whole), None)

    def _new(self, kind: str) -> str:
        self._numbers[kind] += 1
        number = self._numbers[kind]
        if self.replacement == "placeholders":
            return f"<{kind}_{number}>"
        taken = set(self._by_form.values())
        for attempt in range(20):
            drawn = surrogate(kind, Random(f"{self.seed}/{kind}/{number}/{attempt}"))
            if drawn not in taken:
                return drawn
        return f"{drawn} {number}"


def _form(value: str, kind: str) -> str:
    """What two spellings of one value have in common."""
    if kind in ("PHONE", "CARD", "NATIONAL_ID"):
        return re.sub(r"\W", "", value).casefold()
    if kind in ("EMAIL", "PERSON", "IP_ADDRESS", "MAC_ADDRESS"):
        return " ".join(value.casefold().replace("%40", "@").split())
    return re.sub(r"\s", "", value) if kind == "IBAN" else value


def _literals(value: str, kind: str) -> list[str]:
    """Texts that give the value away by themselves."""
    if kind == "PERSON":
        parts = [value, *(word for word in value.split() if len(word) > 1 and word[-1] != ".")]
        return [form for part in parts for form in (part, part.title(), part.upper())]
    if kind == "CREDENTIALS":
        user, _, password = value.partition(":")
        # A host that looks like an email's has been merged with what stands before it.
        forms = (value, user, password, password.rpartition("@")[0])
        return [text for text in forms if len(text) >= 4]
    return [value] if len(value) >= 4 else []
