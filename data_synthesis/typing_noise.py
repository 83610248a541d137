"""Text as people type it: case, punctuation, slips of the finger, short forms, dropped articles."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

_SHORT = {
    "you": "u",
    "please": "pls",
    "thanks": "thx",
    "because": "bc",
    "with": "w/",
    "without": "w/o",
    "your": "ur",
    "are": "r",
    "and": "&",
    "okay": "ok",
    "people": "ppl",
    "tomorrow": "tmrw",
    "something": "smth",
    "probably": "prob",
    "really": "rly",
    "message": "msg",
    "before": "b4",
    "minutes": "min",
    "about": "abt",
}
_WORD = re.compile(r"[A-Za-z']+")


def roughen(rng: Random, text: str) -> str:
    """The first paragraph of a text with one kind of haste; what is pasted below stays as it is."""
    head, gap, rest = text.partition("\n\n")
    return f"{rng.choices(_KINDS, _WEIGHTS)[0](rng, head)}{gap}{rest}"


def _lower(rng: Random, text: str) -> str:
    return text.lower()


def _open_ended(rng: Random, text: str) -> str:
    return text.rstrip(".!?")


def _careless(rng: Random, text: str) -> str:
    return text.lower().replace("'", "").replace(",", "").rstrip(".!?")


def _slips(rng: Random, text: str) -> str:
    """One to three words with letters swapped, lost or doubled."""
    words = text.split(" ")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(words))
        word = words[at]
        if len(word) < 4 or not word.isalpha():
            continue
        i = rng.randrange(1, len(word) - 2)
        swapped = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        lost = word[:i] + word[i + 1 :]
        doubled = word[:i] + word[i] + word[i:]
        words[at] = rng.choice((swapped, lost, doubled))
    return " ".join(words)


def _short_forms(rng: Random, text: str) -> str:
    return _WORD.sub(lambda m: _SHORT.get(m[0].lower(), m[0]), text)


def _articles_lost(rng: Random, text: str) -> str:
    """As speakers of languages without articles write."""
    return re.sub(r"\b(?:the|a|an) ", lambda m: "" if rng.random() < 0.7 else m[0], text)


def _loud(rng: Random, text: str) -> str:
    ending = rng.choice(("!!", "!!!", "??", "...", " !", " ?"))
    text = text.upper() if rng.random() < 0.2 else text
    return text.rstrip(".!?") + ending


_KINDS: tuple[Callable[[Random, str], str], ...] = (
    *(_lower, _open_ended, _careless, _slips),
    *(_short_forms, _articles_lost, _loud),
)
_WEIGHTS = (26, 16, 20, 18, 7, 8, 5)
