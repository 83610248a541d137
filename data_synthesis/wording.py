"""How a task is put into words as a route: name styles and the choice of descriptions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from data_synthesis.corpus import Wording
from routing.tasks import Route


@dataclass(frozen=True)
class RouteStyle:
    """How the owner of one router writes: the same over all of its routes, more or less."""

    naming: str | None = None
    """snake, kebab, spaced, title, sentence or camel; None: each route by itself."""
    length: str = "any"
    """any, short, plain or long descriptions."""
    opaque: bool = False
    """Names that mean nothing."""
    further: int = 0
    """Further wordings of each route, for training to draw from."""


def draw_route(
    rng: random.Random, wording: Wording, taken: set[str], style: RouteStyle | None = None
) -> Route:
    """A route for a task, with a name not in `taken` (case-folded), which it joins."""
    style = style or RouteStyle()
    names = list(wording.names)
    rng.shuffle(names)
    description = _description(rng, wording.descriptions, style.length)
    named = style.naming or rng.choices(list(_NAMINGS), _NAMING_WEIGHTS)[0]
    name_style = _NAMINGS[named]
    for name in names:
        styled = name_style(name)
        if styled.casefold() not in taken:
            break
    else:
        # Every wording is taken: tell it apart as an owner would, by a number.
        styled = next(s for n in range(2, 1000) if (s := f"{names[0]}_{n}").casefold() not in taken)
    taken.add(styled.casefold())
    return Route(name=styled, description=_punctuate(rng, description))


def opaque_names(rng: random.Random, routes: list[Route]) -> list[Route]:
    """The routes under names that mean nothing, as some owners give; descriptions must do."""
    pattern = rng.choice(["route_{}", "R{}", "task-{}", "pool_{}", "t{}", "queue {}"])
    offset = rng.randrange(1, 40)
    return [
        Route(name=pattern.format(offset + i), description=route.description)
        for i, route in enumerate(routes)
    ]


def _description(rng: random.Random, descriptions: Sequence[str], length: str) -> str:
    """One of the descriptions by length; a long one joins two that say it differently."""
    if length == "short":
        return min(rng.sample(descriptions, min(3, len(descriptions))), key=len)
    if length == "plain":
        return descriptions[0]
    if length == "long" and len(descriptions) > 1:
        one, other = rng.sample(descriptions, 2)
        return f"{one.strip().rstrip('.')}. {other.strip()}"
    return rng.choice(descriptions)


def _punctuate(rng: random.Random, text: str) -> str:
    text = text.strip()
    if rng.random() < 0.5:
        return text.rstrip(".")
    return text if text.endswith((".", "?", "!", ")")) else text + "."


def _snake(name: str) -> str:
    return name


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _title(name: str) -> str:
    return name.replace("_", " ").title()


def _sentence(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


_NAMINGS = {
    "snake": _snake,
    "kebab": _kebab,
    "spaced": _spaced,
    "title": _title,
    "sentence": _sentence,
    "camel": _camel,
}
_NAMING_WEIGHTS = (60, 10, 7, 10, 7, 6)
