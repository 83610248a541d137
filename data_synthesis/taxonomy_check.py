"""What a reader of the taxonomy would complain about: doubles, near-doubles, leaks, loners."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from rapidfuzz import fuzz, process

from data_synthesis.taxonomy import Taxonomy, full_keys

NEAR = 87.0
"""Likeness (rapidfuzz token-sort ratio, 0 to 100) from which two descriptions count as one."""
ECHO = 80.0
"""Likeness from which a paraphrase only repeats its description."""
_UTTERANCE = re.compile(r"[\"“”?]|\b(?:I|I'm|my|me)\b")


@dataclass(frozen=True, slots=True)
class Finding:
    """A complaint about a task (or domain) of the taxonomy."""

    kind: str
    """duplicate, near-duplicate, leak, echo, or no neighbours."""
    key: str
    text: str


def check(taxonomy: Taxonomy) -> list[Finding]:
    """All findings, by kind in the order above; an empty list is a clean taxonomy."""
    return [
        *_duplicates(taxonomy),
        *_near_duplicates(taxonomy),
        *_leaks(taxonomy),
        *_echoes(taxonomy),
        *_loners(taxonomy),
    ]


def _duplicates(taxonomy: Taxonomy) -> Iterator[Finding]:
    """A name or a wording that two tasks share."""
    for attribute, what in (("names", "name"), ("descriptions", "wording")):
        owners: dict[str, list[str]] = defaultdict(list)
        for key, task in taxonomy.tasks():
            for text in getattr(task.wording, attribute):
                owners[text.casefold().rstrip(".")].append(key)
        for text, keys in owners.items():
            if len(keys) > 1:
                yield Finding("duplicate", keys[1], f"{what} {text!r} is also of {keys[0]}")


def _near_duplicates(taxonomy: Taxonomy) -> Iterator[Finding]:
    """Descriptions of two tasks that differ in a few words only."""
    keys, texts = zip(
        *((key, task.description.casefold()) for key, task in taxonomy.tasks()), strict=True
    )
    likeness = process.cdist(texts, texts, scorer=fuzz.token_sort_ratio, score_cutoff=NEAR)
    for one, other in zip(*np.nonzero(np.triu(likeness, 1)), strict=True):
        text = f"{likeness[one, other]:.0f}% like the description of {keys[one]}"
        yield Finding("near-duplicate", keys[other], text)


def _leaks(taxonomy: Taxonomy) -> Iterator[Finding]:
    """Descriptions in the words of a user, or that say no more than the name does."""
    for key, task in taxonomy.tasks():
        for text in task.wording.descriptions:
            if found := _UTTERANCE.search(text):
                yield Finding("leak", key, f"{found[0]!r} in {text!r} sounds like an utterance")
        name = set(task.name.split("_"))
        if name >= _content(task.description):
            yield Finding("leak", key, "the description only repeats the name")


def _echoes(taxonomy: Taxonomy) -> Iterator[Finding]:
    """Paraphrases that repeat their description."""
    for key, task in taxonomy.tasks():
        for text in task.paraphrases:
            likeness = fuzz.token_sort_ratio(text.casefold(), task.description.casefold())
            if likeness >= ECHO:
                yield Finding("echo", key, f"{likeness:.0f}% like its description: {text!r}")


def _loners(taxonomy: Taxonomy) -> Iterator[Finding]:
    for key, task in taxonomy.tasks():
        if not full_keys(key, task):
            yield Finding("no neighbours", key, "names no task it is confused with")


def _content(text: str) -> set[str]:
    """Words that carry meaning, by length: short ones are mostly articles and prepositions."""
    return {word for word in _words(text) if len(word) > 3}


def _words(text: str) -> Iterable[str]:
    return re.findall(r"[a-z0-9]+", text.casefold())
