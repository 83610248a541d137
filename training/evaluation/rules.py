"""Rules that understand nothing: what a model has to be well above."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator

from routing.conversation import normalise
from routing.decision import Decision
from routing.records import ConversationRecord
from routing.tasks import NONE

_WORD = re.compile(r"[a-z0-9]+")
_FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a about all an and any are as at be but by can could did do does for from had has "
        "have he her his how i if in into is it its me my no not of on or our out please s "
        "she should so t than that the their them then there they this to up us was we were "
        "what when where which who why will with would you your"
    )
)


def certain(names: Iterable[str], route: str | None) -> Decision:
    """The decision of a rule: all probability on its choice."""
    chosen = NONE if route is None else route
    distribution = {name: float(name == chosen) for name in [*names, NONE]}
    return Decision(distribution, route, [] if route is None else [route], 1.0)


def last_messages(record: ConversationRecord, message: int, count: int) -> list[str]:
    """Texts of the last `count` non-empty turns up to and with the user turn `message`."""
    turns = normalise(record.messages[: message + 1]).turns
    return [turn.text for turn in turns if turn.text][-count:]


class FirstRoute:
    """Always the first route."""

    name = "first-route"

    def decide_all(self, conversations: Iterable[ConversationRecord]) -> Iterator[list[Decision]]:
        for record in conversations:
            names = [route.name for route in record.routes]
            yield [certain(names, names[0]) for _ in record.decisions]


class RandomRoute:
    """A random route, never "none"."""

    name = "random-route"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def decide_all(self, conversations: Iterable[ConversationRecord]) -> Iterator[list[Decision]]:
        rng = random.Random(self._seed)
        for record in conversations:
            names = [route.name for route in record.routes]
            yield [certain(names, rng.choice(names)) for _ in record.decisions]


class WordOverlap:
    """The route whose name and description share the most words with the user turn.

    The first of equals; "none" where no word is shared. Function words and plural s don't count.
    """

    name = "word-overlap"

    def decide_all(self, conversations: Iterable[ConversationRecord]) -> Iterator[list[Decision]]:
        for record in conversations:
            names = [route.name for route in record.routes]
            routes = [_words(f"{route.name} {route.description}") for route in record.routes]
            decisions: list[Decision] = []
            for label in record.decisions:
                said = _words(" ".join(last_messages(record, label.message, 1)))
                shared = [len(said & words) for words in routes]
                best = max(shared)
                decisions.append(certain(names, names[shared.index(best)] if best else None))
            yield decisions


def _words(text: str) -> set[str]:
    words = _WORD.findall(text.replace("_", " ").lower())
    return {word.rstrip("s") for word in words if word not in _FUNCTION_WORDS}
