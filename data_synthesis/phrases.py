"""Phrases that fit any subject: openers, ellipses, thanks, small talk, answers without content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import yaml

from data_synthesis.authored.grammar import Fill, Template, TemplateError, compile_template
from routing.errors import InvalidRecord

QUESTIONS = ("approval", "choice", "moment", "amount", "person", "more")
"""What an assistant's question wants to hear: `ask_*` phrases, answered by `answer_*` phrases."""
KINDS = (
    *("lead_ins", "sign_offs", "ellipses", "corrections", "thanks", "small_talk"),
    *("off_topic", "abandoned", "joins", "returns", "shifts", "acknowledgements"),
    *("refusals", "reminders", "system_prompts"),
    *(f"{side}_{question}" for side in ("ask", "answer") for question in QUESTIONS),
)
_FRAMES = {"joins": ("first", "second"), "returns": ("request",), "shifts": ("request",)}
"""Kinds whose texts stand around others, and the slots where those go."""


class Phrases:
    """Compiled phrases by kind, over the vocabularies that every domain shares."""

    def __init__(
        self, phrases: Mapping[str, Sequence[Template]], slots: Mapping[str, Sequence[str]]
    ) -> None:
        self._phrases = phrases
        self.slots = slots

    def draw(self, rng: Random, kind: str, fill: Fill | None = None) -> str:
        """A phrase of a kind; with `fill`, its slots keep the conversation's values."""
        template = rng.choice(self._phrases[kind])
        return (fill or Fill(rng, self.slots))(template)

    def frame(self, rng: Random, kind: str, **texts: str) -> str:
        """A frame around other texts, such as a change of subject around a request."""
        template = rng.choice(self._phrases[kind])
        return Fill(rng, self.slots, dict(texts))(template)

    def texts(self) -> list[str]:
        """All phrases as written."""
        return [template.text for kind in self._phrases.values() for template in kind]


def read_slots(path: Path) -> dict[str, list[str]]:
    """Vocabularies shared by every domain; raises InvalidRecord with file and name."""
    loaded = read_yaml(path)
    if not isinstance(loaded, dict):
        raise InvalidRecord(f"{path}: must be a mapping of vocabularies")
    for name, values in loaded.items():
        if not isinstance(values, list) or not all(isinstance(v, str) and v for v in values):
            raise InvalidRecord(f"{path}: {name}: must be a list of texts")
        if len(set(values)) < 2:
            raise InvalidRecord(f"{path}: {name}: needs at least two values")
    return loaded


def read_phrases(path: Path, slots: Mapping[str, Sequence[str]]) -> Phrases:
    """Phrases of every kind; raises InvalidRecord with file, kind and what is wrong."""
    loaded = read_yaml(path)
    if not isinstance(loaded, dict):
        raise InvalidRecord(f"{path}: must be a mapping of kinds")
    odd = sorted(loaded.keys() ^ set(KINDS))
    if odd:
        raise InvalidRecord(f"{path}: {odd[0]}: kinds are {', '.join(KINDS)}")
    phrases: dict[str, list[Template]] = {}
    for kind, texts in loaded.items():
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
            raise InvalidRecord(f"{path}: {kind}: must be a list of texts")
        frame = _FRAMES.get(kind, ())
        try:
            phrases[kind] = [compile_template(t, {**slots, **dict.fromkeys(frame)}) for t in texts]
        except TemplateError as error:
            raise InvalidRecord(f"{path}: {kind}: {error}") from None
        bare = next((t.text for t in phrases[kind] if not t.slots.issuperset(frame)), None)
        if bare is not None:
            raise InvalidRecord(f"{path}: {kind}: {bare!r} must hold {{{'}, {'.join(frame)}}}")
    return Phrases(phrases, slots)


def read_yaml(path: Path) -> object:
    """A YAML file; raises InvalidRecord that names it, and the line where it is not YAML."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRecord(f"cannot read {path}: {error}") from None


# The C loader is ten times as fast; the library is a megabyte.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
