"""Conversation records from corpora: what is said, which routes are offered, what is right.

Every record is drawn from its own seed, so records can be made in any order and by any number of
processes, with the same result.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from data_synthesis.casting import Cast
from data_synthesis.corpus import Corpus, Dialogue, Request, Wording
from data_synthesis.recipe import DataRecipe
from data_synthesis.wording import draw_route, opaque_names, roughen
from routing.records import ConversationRecord, DecisionLabel


@dataclass(frozen=True)
class Line:
    """One message to be; `tasks` is None for messages that are not decided."""

    role: str
    text: str
    tasks: tuple[str, ...] | None = None
    kind: str = "request"


@dataclass(frozen=True)
class Scene:
    """A conversation and the tasks offered with it."""

    lines: tuple[Line, ...]
    offered: tuple[str, ...]
    kind: str


class Composer:
    """Draws conversation records from corpora by a recipe."""

    def __init__(self, recipe: DataRecipe, corpora: Sequence[Corpus]) -> None:
        self._recipe = recipe
        self._corpora = {corpus.name: corpus for corpus in corpora}
        self._weights = [recipe.corpora[corpus.name] for corpus in corpora]
        self._cast = Cast(corpora)
        self._groups: dict[str, Wording] = {}
        self._requests: dict[str, list[Request]] = defaultdict(list)
        self._out_of_scope: dict[str, list[Request]] = defaultdict(list)
        for corpus in corpora:
            self._groups.update(corpus.groups)
            for request in corpus.requests:
                if not request.tasks:
                    self._out_of_scope[corpus.name].append(request)
                for key in request.tasks:
                    self._requests[key].append(request)
        self._with_requests = {
            name: [k for k in self._cast.of_corpus(name) if self._requests[k]]
            for name in self._corpora
        }

    def record(self, identifier: str) -> ConversationRecord:
        """The record of an id; the same id always gives the same record."""
        rng = random.Random(f"{self._recipe.seed}/{identifier}")
        (corpus,) = rng.choices(list(self._corpora.values()), self._weights)
        scene = self._dialogue(rng, corpus) if corpus.dialogues else self._talk(rng, corpus)
        return self._write(rng, identifier, corpus, scene)

    # What is said and offered

    def _route_count(self, rng: random.Random) -> int:
        bands = self._recipe.route_counts
        (band,) = rng.choices(bands, [band.weight for band in bands])
        return rng.randint(band.low, band.high)

    def _talk(self, rng: random.Random, corpus: Corpus) -> Scene:
        """Several independent requests in a row over one set of routes."""
        first = rng.choice(self._with_requests[corpus.name])
        offered = self._cast.extend(
            rng, [first], self._route_count(rng), near_share=self._recipe.near_share
        )
        lines: list[Line] = []
        for number in range(rng.randint(1, min(8, self._recipe.max_user_turns))):
            if number and rng.random() < 0.7:
                lines.append(Line("assistant", rng.choice(_REPLIES)))
            lines.append(self._request(rng, corpus.name, offered, lines))
        return Scene(tuple(lines), tuple(offered), "requests")

    def _request(
        self, rng: random.Random, corpus: str, offered: Sequence[str], before: Sequence[Line]
    ) -> Line:
        """A request: for an offered task, for two, for one that is missing, or for none."""
        recipe = self._recipe
        draw = rng.random()
        if draw < recipe.out_of_scope_share and self._out_of_scope[corpus]:
            return Line("user", rng.choice(self._out_of_scope[corpus]).text, (), "out_of_scope")
        draw -= recipe.out_of_scope_share
        if draw < recipe.removed_share:
            missing = self._missing(rng, corpus, offered)
            if missing is not None:
                return Line("user", self._text(rng, missing), (missing,), "removed")
        draw -= recipe.removed_share
        known = [key for key in offered if self._requests[key]]
        if 0 <= draw < recipe.several_share and len(known) > 1:
            one, other = rng.sample(known, 2)
            first, second = self._text(rng, one), self._text(rng, other)
            text = rng.choice(_JOINTS).format(first.rstrip(".!? "), second)
            return Line("user", text, (one, other), "several")
        last = before[-2].tasks if len(before) > 1 else None
        key = last[0] if last and last[0] in known and rng.random() < 0.25 else rng.choice(known)
        request = rng.choice(self._requests[key])
        return Line("user", request.text, request.tasks)

    def _missing(self, rng: random.Random, corpus: str, offered: Sequence[str]) -> str | None:
        """A task with requests that no offered one could serve, often a near one."""
        near = [k for key in offered for k in self._cast.near(key)]
        for pool in (
            (near, self._with_requests[corpus])
            if rng.random() < 0.5
            else (self._with_requests[corpus],)
        ):
            for _ in range(8):
                key = rng.choice(pool) if pool else None
                if key and self._requests[key] and self._cast.compatible_with_all(key, offered):
                    return key
        return None

    def _text(self, rng: random.Random, key: str) -> str:
        """A request that needs this task alone."""
        alone = [r for r in self._requests[key] if len(r.tasks) == 1] or self._requests[key]
        return rng.choice(alone).text

    def _dialogue(self, rng: random.Random, corpus: Corpus) -> Scene:
        """A window of a dialogue, perhaps interrupted, perhaps with a task's route missing."""
        recipe = self._recipe
        lines = _window(rng, rng.choice(corpus.dialogues), recipe.max_user_turns)
        kind = "dialogue"
        talk = [name for name in self._corpora if self._with_requests[name]]
        guests: list[str] = []
        own = list(dict.fromkeys(key for line in lines for key in line.tasks or ()))
        if talk and rng.random() < recipe.splice_share:
            lines, guests = self._splice(rng, lines, own, rng.choice(talk))
            kind = "spliced"
        needed = [*own, *guests]
        removed: list[str] = []
        if own and rng.random() < recipe.removed_share:
            removed = [rng.choice(own)]
            # Steps of one service lead into another: without one, its siblings must go too.
            group = self._cast.tasks[removed[0]].group
            removed = [key for key in own if self._cast.tasks[key].group == group]
        offered = self._cast.extend(
            rng,
            [key for key in needed if key not in removed],
            max(self._route_count(rng), len(needed)),
            apart_from=removed,
            near_share=0.0 if removed else recipe.near_share,
        )
        if removed:
            groups = {self._cast.tasks[key].group for key in removed}
            offered = [key for key in offered if self._cast.tasks[key].group not in groups]
        return Scene(tuple(lines), tuple(offered), kind)

    def _splice(
        self, rng: random.Random, lines: list[Line], own: Sequence[str], guest_corpus: str
    ) -> tuple[list[Line], list[str]]:
        """The lines with one to three foreign requests put before user turns."""
        spots = [i for i, line in enumerate(lines) if line.role == "user" and i]
        guests: list[str] = []
        if not spots:
            return lines, guests
        for spot in sorted(rng.sample(spots, min(len(spots), rng.randint(1, 3))), reverse=True):
            for _ in range(8):
                key = rng.choice(self._with_requests[guest_corpus])
                if key in guests or self._cast.compatible_with_all(key, [*own, *guests]):
                    break
            else:
                continue
            guest = [Line("user", self._text(rng, key), (key,), "splice")]
            if rng.random() < 0.7:
                guest.append(Line("assistant", rng.choice(_REPLIES)))
            lines = [*lines[:spot], *guest, *lines[spot:]]
            if key not in guests and rng.random() > self._recipe.removed_share:
                guests.append(key)
        # A guest's task that is not offered stays in the labels and is decided as "none".
        said = {key for line in lines if line.kind == "splice" for key in line.tasks or ()}
        return lines, [key for key in guests if key in said]

    # How it is written down

    def _write(
        self, rng: random.Random, identifier: str, corpus: Corpus, scene: Scene
    ) -> ConversationRecord:
        coarse = self._coarse(rng, scene)
        shuffled = list(dict.fromkeys(coarse.values())) if coarse else list(scene.offered)
        rng.shuffle(shuffled)
        taken: set[str] = set()
        wordings: Mapping[str, Wording] = (
            self._groups if coarse else {key: self._cast.tasks[key].wording for key in shuffled}
        )
        routes = [draw_route(rng, wordings[key], taken) for key in shuffled]
        if rng.random() < self._recipe.opaque_names_share:
            routes = opaque_names(rng, routes)
        names = {key: route.name for key, route in zip(shuffled, routes, strict=True)}
        if coarse:
            names = {key: names[group] for key, group in coarse.items()}
        return ConversationRecord(
            id=identifier,
            routes=routes,
            messages=[
                {"role": line.role, "content": self._said(rng, line)} for line in scene.lines
            ],
            decisions=_labels(scene.lines, names),
            tags={
                "corpus": corpus.name,
                "licence": corpus.licence,
                "scene": scene.kind,
                "routes": "coarse" if coarse else "exact",
                "k": len(routes),
            },
        )

    def _coarse(self, rng: random.Random, scene: Scene) -> dict[str, str]:
        """Offered task → group, where groups can stand for all of them; else empty."""
        if rng.random() >= self._recipe.coarse_share:
            return {}
        groups = {key: self._cast.tasks[key].group for key in scene.offered}
        spoken = {key for line in scene.lines for key in line.tasks or ()}
        lost = {self._cast.tasks[key].group for key in spoken - set(scene.offered)}
        usable = set(groups.values()) <= set(self._groups) and len(set(groups.values())) > 1
        # A task that is not offered would be covered by its group after all.
        return {} if not usable or lost & set(groups.values()) else groups

    def _said(self, rng: random.Random, line: Line) -> str:
        if line.role == "user" and rng.random() < self._recipe.noise_share:
            return roughen(rng, line.text)
        return line.text


def _labels(lines: Sequence[Line], names: Mapping[str, str]) -> list[DecisionLabel]:
    return [
        DecisionLabel(
            message=index,
            expected=list(dict.fromkeys(names[key] for key in line.tasks if key in names)),
            tags={"kind": line.kind, "tasks": list(line.tasks)},
        )
        for index, line in enumerate(lines)
        if line.tasks is not None
    ]


def _window(rng: random.Random, dialogue: Dialogue, most: int) -> list[Line]:
    """The dialogue from its beginning, cut at a random point, at most `most` user turns long."""
    users = sum(turn.role == "user" for turn in dialogue.turns)
    wanted = rng.randint(min(3, users), min(users, most))
    lines: list[Line] = []
    for turn in dialogue.turns:
        line = Line(turn.role, turn.text, kind="dialogue")
        if turn.role == "user":
            line = replace(line, tasks=(turn.task,) if turn.task else ())
        lines.append(line)
        wanted -= turn.role == "user"
        if not wanted:
            break
    return lines


_REPLIES = (
    "Sure, here you go.",
    "Done. Anything else?",
    "Okay, I have taken care of that.",
    "Here is what I found.",
    "Of course. One moment, please.",
    "Got it. That is settled now.",
    "I looked it up for you; the details are above.",
    "Alright, that should do it.",
    "No problem. What would you like to do next?",
    "Here's a short answer: yes, with a few exceptions.",
    "I'm sorry, I can't see that at the moment.",
    "That took a second, but it is finished.",
    "I need one more detail before I can go on.",
    "Let me know if that helps.",
    "You're all set.",
    "This is the best match I could find.",
    "There are three options. Shall I list them?",
    "It depends, but usually that works.",
    "Noted.",
    "I've sent it over.",
    "Hmm, I'm not certain about that one.",
    "Great question! In brief, it comes down to timing.",
    "All done, and saved.",
    "Happy to help with that.",
    "Thanks for the details. Here's the result.",
)

_JOINTS = (
    "{} and also {}",
    "{}. Also, {}",
    "{}, then {}",
    "{}. And while you're at it, {}",
    "two things: {}, and {}",
    "{}? And after that, {}",
    "First, {}. Second, {}",
    "{}. Oh and {}",
)
