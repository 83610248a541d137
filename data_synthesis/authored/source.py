"""Dialogues from the authored library: threads of tasks, taken up, left and returned to.

A user opens with a task, follows it up, and moves on: mostly to a task it borders on, sometimes to
anything at all, sometimes back. No language model is needed, and every word was written by hand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random

from data_synthesis.authored.grammar import Fill, Template
from data_synthesis.authored.library import Library
from data_synthesis.corpus import Coarse, Task
from data_synthesis.draft import Draft, Line
from data_synthesis.phrases import QUESTIONS
from data_synthesis.taxonomy import full_keys

LICENCE = "Apache-2.0"
TURNS = ((1, 22), (2, 20), (3, 18), (4, 13), (5, 10), (6, 7), (8, 6), (10, 4))
"""User turns of a dialogue, with weights."""
LEAD_IN_SHARE, SIGN_OFF_SHARE = 0.22, 0.14
ARRIVAL_SHARE = 0.6
"""Moves to a related task that lean on the conversation, rather than open afresh."""
SHIFT_SHARE = 0.4
"""Fresh openings in mid-conversation that say that the subject changes."""
THANKS_SHARE, ABANDON_SHARE = 0.16, 0.05
MOVES = (("neighbour", 40), ("domain", 24), ("area", 14), ("anywhere", 12), ("return", 10))


class AuthoredSource:
    """Dialogues over the tasks of the taxonomy."""

    name = "authored"
    licence = LICENCE

    def __init__(self, library: Library, keys: frozenset[str] | None = None) -> None:
        self._library = library
        self._tasks: dict[str, Task] = {}
        borders: dict[str, set[str]] = defaultdict(set)
        for short, entry in library.taxonomy.tasks():
            for other in full_keys(short, entry):
                borders[f"authored/{short}"].add(f"authored/{other}")
                borders[f"authored/{other}"].add(f"authored/{short}")
        for short, entry in library.taxonomy.tasks():
            key, domain = f"authored/{short}", short.split("/")[0]
            self._tasks[key] = Task(
                key,
                group=f"authored/{domain}",
                wording=entry.wording,
                neighbours=frozenset(borders[key]),
                area=library.taxonomy.domains[domain].area,
            )
        self._kept = self._tasks.keys() if keys is None else self._tasks.keys() & keys
        self._keys = [key for key in self._tasks if key in self._kept]
        self._near = {k: sorted(borders[k] & self._kept) for k in self._keys}
        self._by_domain: dict[str, list[str]] = defaultdict(list)
        self._by_area: dict[str, list[str]] = defaultdict(list)
        for key in self._keys:
            self._by_domain[self._tasks[key].group].append(key)
            self._by_area[self._tasks[key].area].append(key)

    @property
    def tasks(self) -> Mapping[str, Task]:
        return {key: self._tasks[key] for key in self._keys}

    @property
    def coarse(self) -> Sequence[Coarse]:
        return self._library.coarse

    def groups(self) -> Mapping[str, frozenset[str]]:
        return {group: frozenset(keys) for group, keys in self._by_domain.items()}

    def fingerprint(self) -> str:
        return self._library.fingerprint

    def restricted(self, keys: frozenset[str]) -> AuthoredSource:
        return AuthoredSource(self._library, keys)

    def touching(self, keys: frozenset[str]) -> AuthoredSource:
        return self.restricted(keys)

    def requestable(self) -> Sequence[str]:
        return self._keys

    def texts(self, key: str) -> Sequence[str]:
        talk = self._library.talk[_short(key)]
        return [template.text for template in (*talk.openings, *talk.arrivals)]

    def request(self, rng: Random, key: str) -> Line | None:
        if key not in self._kept:
            return None
        return _Dialogue(self, rng).opening(key)

    def draw(self, rng: Random, turns: int) -> Draft:
        counts, weights = zip(*TURNS, strict=True)
        wanted = min(rng.choices(counts, weights)[0], turns)
        dialogue = _Dialogue(self, rng)
        dialogue.run(wanted)
        return Draft(
            self.name,
            self.licence,
            tuple(dialogue.lines),
            "dialogue",
            barred=frozenset({"chat"}) if dialogue.idle else frozenset(),
        )

    def move(self, rng: Random, key: str, visited: Sequence[str]) -> tuple[str, str]:
        """The next task after `key`, and how it was come by."""
        (kind,) = rng.choices([kind for kind, _ in MOVES], [weight for _, weight in MOVES])
        pools: dict[str, Sequence[str]] = {
            "neighbour": self._near[key],
            "domain": self._by_domain[self._tasks[key].group],
            "area": self._by_area[self._tasks[key].area],
            "anywhere": self._keys,
            "return": visited,
        }
        pool = [k for k in pools[kind] if k != key] or [k for k in self._keys if k != key]
        if not pool:
            return key, "return"
        chosen = rng.choice(pool)
        if chosen in visited:
            return chosen, "return"
        return chosen, "anywhere" if kind == "return" else kind


class _Dialogue:
    """One dialogue while it is written; slots keep their values within a domain."""

    def __init__(self, source: AuthoredSource, rng: Random) -> None:
        self._source = source
        self._library = source._library
        self._rng = rng
        self._fills: dict[str, Fill] = {}
        self._said: set[str] = set()
        self.lines: list[Line] = []
        self.idle = False
        """Whether something was said that needs no task."""

    def run(self, turns: int) -> None:
        rng, said = self._rng, 0
        key = rng.choice(self._source._keys)
        visited: list[str] = []
        how = "start"
        while said < turns:
            self._user(self._first(key, how), key, alone=not self.lines or how == "anywhere")
            said += 1
            self._answer(key)
            while said < turns and rng.random() < 0.5:
                self._user(self._further(key), key)
                said += 1
                self._answer(key)
            if said < turns and rng.random() < ABANDON_SHARE:
                self._idle("abandoned")
                said += 1
            visited.append(key)
            key, how = self._source.move(rng, key, visited)
        if rng.random() < THANKS_SHARE and turns > 1:
            self._idle("thanks")
        elif self.lines[-1].role != "user" and rng.random() < 0.85:
            self.lines.pop()  # the last answer decides nothing

    def opening(self, key: str) -> Line:
        return Line("user", self._open(key), (key,), alone=True)

    def _first(self, key: str, how: str) -> str:
        """The message that takes up a task."""
        rng, talk = self._rng, self._library.talk[_short(key)]
        if how == "start":
            return self._open(key)
        if how == "return":
            text = self._text(key, rng.choice((talk.follow_ups, talk.openings)))
            return self._library.phrases.frame(rng, "returns", request=text)
        if how in ("neighbour", "domain") and rng.random() < ARRIVAL_SHARE:
            return self._text(key, talk.arrivals)
        text = self._open(key)
        if rng.random() < SHIFT_SHARE:
            return self._library.phrases.frame(rng, "shifts", request=text)
        return text

    def _open(self, key: str) -> str:
        """An opening, perhaps between a few words that fit any subject."""
        rng, phrases = self._rng, self._library.phrases
        text = self._text(key, self._library.talk[_short(key)].openings)
        if not self.lines and rng.random() < LEAD_IN_SHARE:
            text = f"{phrases.draw(rng, 'lead_ins').strip()} {text}"
        if "\n" not in text and rng.random() < SIGN_OFF_SHARE:
            text = f"{text}{'' if text.endswith(('.', '?', '!')) else '.'} "
            text += phrases.draw(rng, "sign_offs").strip()
        return text

    def _further(self, key: str) -> str:
        """A message that stays with the task."""
        rng, phrases = self._rng, self._library.phrases
        asked = self.lines[-1].kind if self.lines else ""
        if asked.startswith("ask_") and rng.random() < 0.75:
            return phrases.draw(rng, asked.replace("ask_", "answer_"))
        draw = rng.random()
        if draw < 0.62:
            return self._text(key, self._library.talk[_short(key)].follow_ups)
        return phrases.draw(rng, "ellipses" if draw < 0.88 else "corrections")

    def _answer(self, key: str) -> None:
        rng, phrases = self._rng, self._library.phrases
        draw = rng.random()
        kind = "reply"
        if draw < 0.58:
            text = self._text(key, self._library.talk[_short(key)].replies)
        elif draw < 0.78:
            text = phrases.draw(rng, "acknowledgements")
        elif draw < 0.9:
            kind = f"ask_{rng.choice(QUESTIONS)}"
            text = phrases.draw(rng, kind)
        elif draw < 0.93:
            text = phrases.draw(rng, "refusals")
        else:
            return  # some users write twice before they are answered
        if self._source._tasks[key].area == "coding" and rng.random() < 0.15:
            text += f"\n\n{rng.choice(self._library.attachments['CODE'])}"
        self.lines.append(Line("assistant", text, kind=kind))

    def _idle(self, kind: str) -> None:
        self.idle = True
        self.lines.append(Line("user", self._library.phrases.draw(self._rng, kind), (), kind))

    def _user(self, text: str, key: str, alone: bool = False) -> None:
        self.lines.append(Line("user", text, (key,), alone=alone))

    def _text(self, key: str, templates: Sequence[Template]) -> str:
        """A template that was not used yet in this dialogue, filled."""
        domain = _short(key).split("/")[0]
        if domain not in self._fills:
            slots = self._library.slots[domain]
            self._fills[domain] = Fill(self._rng, slots)
        template = self._rng.choice(templates)
        for _ in range(6):
            if template.text not in self._said:
                break
            template = self._rng.choice(templates)
        self._said.add(template.text)
        return self._fills[domain](template, self._library.pastes[_short(key)])


def _short(key: str) -> str:
    return key.removeprefix("authored/")
