"""Templates of the authored library: slots and alternatives, compiled once, filled from a seed.

    "where is {module} {used|called}?"

`{name}` is filled from a vocabulary, `{a|b}` is one of its alternatives (which may be empty, or
hold slots), `{name_2}` is a value other than that of `{name}`. A slot keeps its value for as long
as the same `Fill` is used: one conversation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

_TOKEN = re.compile(r"[{}|]")
_NUMBERED = re.compile(r"^(?P<base>.+?)_(?P<number>[2-9])$")


class TemplateError(ValueError):
    """A template that cannot be compiled; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a word of the vocabulary `base`."""

    name: str
    base: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Alternatives, each a sequence of pieces."""

    options: tuple[tuple[str | Slot | Choice, ...], ...]


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template."""

    text: str
    pieces: tuple[str | Slot | Choice, ...]

    @property
    def slots(self) -> set[str]:
        """Base names of all slots, those in alternatives included."""
        return {slot.base for slot in _slots(self.pieces)}


def compile_template(text: str, known: Mapping[str, object]) -> Template:
    """A template over the vocabularies in `known`.

    Raises TemplateError for unbalanced braces and for a slot that no vocabulary fills.
    """
    tokens: list[str] = []
    at = 0
    for match in _TOKEN.finditer(text):
        tokens += [text[at : match.start()], match[0]]
        at = match.end()
    tokens.append(text[at:])
    pieces, rest = _sequence([t for t in tokens if t], 0, False)
    if rest != len([t for t in tokens if t]):
        raise TemplateError(f"'}}' without '{{' in {text!r}")
    template = Template(text, _resolved(pieces, known, text))
    unknown = sorted(template.slots - known.keys())
    if unknown:
        raise TemplateError(f"no values for {{{unknown[0]}}} in {text!r}")
    return template


def _sequence(
    tokens: Sequence[str], at: int, inside: bool
) -> tuple[tuple[str | Slot | Choice, ...], int]:
    """Pieces up to the end, or inside braces up to "|" or "}"."""
    pieces: list[str | Slot | Choice] = []
    while at < len(tokens):
        text = tokens[at]
        if text == "{":
            piece, at = _braces(tokens, at + 1)
            pieces.append(piece)
            continue
        if text == "}" or (text == "|" and inside):
            break
        pieces.append(text)
        at += 1
    return tuple(pieces), at


def _braces(tokens: Sequence[str], at: int) -> tuple[Slot | Choice, int]:
    options: list[tuple[str | Slot | Choice, ...]] = []
    while True:
        option, at = _sequence(tokens, at, True)
        options.append(option)
        if at >= len(tokens):
            raise TemplateError("'{' without '}'")
        closing = tokens[at]
        at += 1
        if closing == "}":
            break
    if len(options) == 1:
        if len(options[0]) != 1 or not isinstance(options[0][0], str):
            raise TemplateError("braces must hold a slot's name or alternatives")
        return Slot(options[0][0], options[0][0]), at
    return Choice(tuple(options)), at


def _resolved(
    pieces: Sequence[str | Slot | Choice], known: Mapping[str, object], text: str
) -> tuple[str | Slot | Choice, ...]:
    """Slots with their vocabulary's name: `city_2` draws from `city` unless it has its own."""
    found: list[str | Slot | Choice] = []
    for piece in pieces:
        if isinstance(piece, Slot):
            numbered = _NUMBERED.match(piece.name)
            if piece.name not in known and numbered:
                found.append(Slot(piece.name, numbered["base"]))
            else:
                found.append(piece)
        elif isinstance(piece, Choice):
            found.append(Choice(tuple(_resolved(o, known, text) for o in piece.options)))
        else:
            found.append(piece)
    return tuple(found)


def _slots(pieces: Sequence[str | Slot | Choice]) -> list[Slot]:
    found: list[Slot] = []
    for piece in pieces:
        if isinstance(piece, Slot):
            found.append(piece)
        elif isinstance(piece, Choice):
            for option in piece.options:
                found += _slots(option)
    return found


@dataclass
class Fill:
    """Values of slots during one conversation."""

    rng: Random
    vocabularies: Mapping[str, Sequence[str]]
    values: dict[str, str] = field(default_factory=dict)
    pasted: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Material for the template at hand; it is drawn anew each time, and not twice if possible."""
    _used: set[str] = field(default_factory=set)

    def __call__(
        self, template: Template, pasted: Mapping[str, Sequence[str]] | None = None
    ) -> str:
        """The text of a template."""
        self.pasted = pasted or {}
        return "".join(self._text(piece) for piece in template.pieces)

    def _text(self, piece: str | Slot | Choice) -> str:
        if isinstance(piece, str):
            return piece
        if isinstance(piece, Choice):
            return "".join(self._text(p) for p in self.rng.choice(piece.options))
        if piece.base in self.pasted:
            return self._paste(self.pasted[piece.base])
        if piece.name not in self.values:
            self.values[piece.name] = self._draw(piece)
        return self.values[piece.name]

    def _paste(self, material: Sequence[str]) -> str:
        new = [text for text in material if text not in self._used]
        text = self.rng.choice(new or material)
        self._used.add(text)
        return text

    def _draw(self, slot: Slot) -> str:
        values = self.vocabularies[slot.base]
        siblings = (slot.base, *(f"{slot.base}_{n}" for n in range(2, 10)))
        used = {self.values[name] for name in siblings if name in self.values}
        value = self.rng.choice(values)
        while value in used and len(used) < len(set(values)):
            value = self.rng.choice(values)
        return value
