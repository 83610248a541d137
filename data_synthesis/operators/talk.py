"""Operators on what is said: foreign requests, idle talk, two requests in one message."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Annotated, Literal

from pydantic import Field

from data_synthesis.draft import Draft, Line
from data_synthesis.operators.base import Operator, Share
from data_synthesis.stage import Stage

OFF_TOPIC_AREAS = frozenset({"chat", "knowledge", "personal"})
"""Areas whose broad routes might take an odd question."""


class MixScenarios(Operator):
    """Requests about something else in the middle: abrupt shifts, after which the talk returns."""

    op: Literal["mix_scenarios"]
    guests: Annotated[int, Field(ge=1)] = 3
    """At most so many."""
    missing_share: Share = 0.3
    """Guests whose route is not offered."""
    announced_share: Share = 0.4
    """Guests that say that the subject changes."""

    def apply(self, rng: Random, draft: Draft, stage: Stage) -> Draft:
        spots = _openings_between(draft.lines)
        if not spots:
            return draft
        lines, missing, hosts = list(draft.lines), set(draft.missing), list(draft.tasks)
        chosen = rng.sample(spots, min(len(spots), rng.randint(1, self.guests)))
        for spot in sorted(chosen, reverse=True):
            found = stage.guest(rng, hosts)
            if found is None:
                continue
            key, line = found
            hosts.append(key)
            if rng.random() < self.missing_share:
                missing.add(key)
            text = line.text
            if rng.random() < self.announced_share:
                text = stage.phrases.frame(rng, "shifts", request=text)
            guest = [replace(line, text=text, kind="shift")]
            if rng.random() < 0.7:
                guest.append(Line("assistant", stage.phrases.draw(rng, "acknowledgements")))
            lines[spot:spot] = guest
        if len(hosts) == len(draft.tasks):
            return draft
        return replace(draft.with_lines(lines, "mixed"), missing=frozenset(missing))


class InjectIrrelevance(Operator):
    """Turns that need no task: small talk, and requests that nobody's routes are for."""

    op: Literal["inject_irrelevance"]
    turns: Annotated[int, Field(ge=1)] = 2
    """At most so many."""

    def apply(self, rng: Random, draft: Draft, stage: Stage) -> Draft:
        areas = {stage.cast.tasks[key].area for key in draft.tasks}
        kinds = []
        if "chat" not in areas:
            kinds.append(("small_talk", frozenset({"chat"})))
        if "" not in areas and not areas & OFF_TOPIC_AREAS:
            kinds.append(("off_topic", OFF_TOPIC_AREAS))
        spots = [0, *_openings_between(draft.lines), len(draft.lines)]
        if not kinds:
            return draft
        lines, barred = list(draft.lines), set(draft.barred)
        chosen = rng.sample(spots, min(len(spots), rng.randint(1, self.turns)))
        for spot in sorted(chosen, reverse=True):
            kind, areas_of_kind = rng.choice(kinds)
            barred |= areas_of_kind
            idle = [Line("user", stage.phrases.draw(rng, kind), (), kind, alone=True)]
            if rng.random() < 0.75:
                answer = rng.choice(("acknowledgements", "refusals"))
                idle.append(Line("assistant", stage.phrases.draw(rng, answer)))
            lines[spot:spot] = idle
        return replace(draft.with_lines(lines), barred=frozenset(barred))


class JoinRequests(Operator):
    """Two requests in one message: a turn that needs two routes."""

    op: Literal["join_requests"]

    def apply(self, rng: Random, draft: Draft, stage: Stage) -> Draft:
        spots = [
            i for i, line in enumerate(draft.lines) if line.alone and len(line.tasks or ()) == 1
        ]
        if not spots:
            return draft
        at = rng.choice(spots)
        line = draft.lines[at]
        assert line.tasks is not None
        (own,) = line.tasks
        others = [key for key in draft.tasks if key != own]
        if not others or rng.random() < 0.5:
            area = stage.cast.tasks[own].area
            near = stage.cast.pick(
                rng,
                stage.cast.allowed(draft.tasks, draft.missing)
                & stage.cast.near([own])
                & stage.cast.of_grain("task"),
            )
            others = [near] if near is not None and stage.cast.tasks[near].area == area else others
        if not others:
            return draft
        other = rng.choice(others)
        second = stage.request(rng, other)
        if second is None or not stage.consistent([*draft.tasks, other]):
            return draft
        text = stage.phrases.frame(rng, "joins", first=_sentence(line.text), second=second.text)
        joined = replace(line, text=text, tasks=(own, other), kind="several", alone=False)
        return draft.with_lines([*draft.lines[:at], joined, *draft.lines[at + 1 :]])


def _openings_between(lines: tuple[Line, ...]) -> list[int]:
    """Places before a user's message, where something else can be said."""
    return [i for i, line in enumerate(lines) if i and line.role == "user"]


def _sentence(text: str) -> str:
    """A text with an end to it, so that another can follow."""
    text = text.strip()
    return text if text.endswith((".", "?", "!", "\n")) else f"{text}."
