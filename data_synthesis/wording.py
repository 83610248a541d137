"""How a task is put into words as a route: name styles, description choice, small text noise."""

from __future__ import annotations

import random

from data_synthesis.corpus import Wording
from routing.tasks import Route


def draw_route(rng: random.Random, wording: Wording, taken: set[str]) -> Route:
    """A route for a task, with a name not in `taken` (case-folded), which it joins."""
    names = list(wording.names)
    rng.shuffle(names)
    description = rng.choice(wording.descriptions)
    style = rng.choices(_STYLES, _STYLE_WEIGHTS)[0]
    for name in names:
        styled = style(name)
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


def roughen(rng: random.Random, text: str) -> str:
    """Text as typed in a hurry: case, closing punctuation, a slip of the finger."""
    kind = rng.randrange(4)
    if kind == 0:
        return text.lower()
    if kind == 1:
        return text.rstrip(".!?")
    if kind == 2:
        return text.lower().replace("'", "").rstrip(".!?")
    words = text.split(" ")
    at = rng.randrange(len(words))
    word = words[at]
    if len(word) > 3:
        i = rng.randrange(1, len(word) - 1)
        words[at] = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    return " ".join(words)


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


_STYLES = (_snake, _kebab, _spaced, _title, _sentence, _camel)
_STYLE_WEIGHTS = (60, 10, 7, 10, 7, 6)
