"""From conversation records to training examples, by the layout that serving uses.

A conversation within the budget is one example with a decision for each labelled user turn; a
longer one becomes several, exactly as a server would trim it at each turn. Nothing is cut silently.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from routing.conversation import normalise
from routing.encoder import line_texts, turn_texts
from routing.layout import Layout
from routing.records import ConversationRecord
from routing.tasks import NONE


@dataclass(frozen=True)
class Example:
    """One sequence with its decisions; a target is a distribution over K routes, then "none"."""

    input_ids: list[int]
    line_starts: list[int]
    line_ends: list[int]
    identifiers: list[int]
    decisions: list[int]
    targets: list[list[float]]
    line_texts: list[str]
    turn_texts: list[tuple[str, str, str]]
    """What an encoder reads of the lines and of each decision; see `routing.encoder`."""
    soft_targets: list[list[float]] | None = None
    """A larger model's distributions, zeros for a decision without one."""

    @property
    def length(self) -> int:
        return len(self.input_ids)

    @property
    def soft_or_zero(self) -> list[list[float]]:
        return self.soft_targets or [[0.0] * len(target) for target in self.targets]


SoftTargets = Mapping[int, Mapping[str, float]]
"""By message index, a distribution over route names and "none"."""


def encode(
    layout: Layout,
    record: ConversationRecord,
    *,
    redraw: random.Random | None = None,
    soft: SoftTargets | None = None,
) -> Iterator[tuple[Example, list[int]]]:
    """Examples of a record, each with the indices of the labels it decides.

    With `redraw`, identifiers are dealt to lines at random, so that none comes to mean anything by
    itself. Raises InvalidRequest where the layout cannot take it.
    """
    names = [route.name for route in record.routes]
    order = None
    if redraw is not None and layout.identifier_count:
        order = redraw.sample(range(layout.identifier_count), len(names) + 1)
    prefix = layout.prefix(record.routes, order)
    labels = {label.message: number for number, label in enumerate(record.decisions)}
    conversation = normalise(record.messages)
    for prompt in layout.prompts(prefix, conversation):
        kept: list[int] = []
        positions: list[int] = []
        for turn, position in zip(prompt.decisions, prompt.decision_positions, strict=True):
            number = labels.get(prompt.turns[turn].message)
            if number is not None:
                kept.append(number)
                positions.append(position)
        if kept:
            texts = turn_texts(conversation, {turn.message for turn in prompt.turns})
            targets = [target(names, record.decisions[number].expected) for number in kept]
            yield (
                Example(
                    list(prompt.tokens),
                    list(prefix.line_starts),
                    list(prefix.line_ends),
                    list(prefix.identifiers or ()),
                    positions,
                    targets,
                    line_texts(record.routes),
                    [texts[record.decisions[number].message] for number in kept],
                    _soft(names, [record.decisions[number].message for number in kept], soft),
                ),
                kept,
            )


def target(names: list[str], expected: list[str]) -> list[float]:
    """Even shares over the expected routes, or all on "none"."""
    if not expected:
        return [0.0] * len(names) + [1.0]
    share = 1.0 / len(expected)
    return [share if name in expected else 0.0 for name in names] + [0.0]


def _soft(
    names: list[str], messages: list[int], soft: SoftTargets | None
) -> list[list[float]] | None:
    if soft is None:
        return None
    outcomes = [*names, NONE]
    return [[soft.get(m, {}).get(outcome, 0.0) for outcome in outcomes] for m in messages]
