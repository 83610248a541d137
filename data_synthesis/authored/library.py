"""The authored library: what people say for each task of the taxonomy, and what they paste.

configs/authored/
    slots.yaml            vocabularies that every domain shares
    phrases.yaml          phrases that fit any subject
    families.yaml         coarse routes across domains
    attachments/*.yaml    pasted material by kind, {CODE} and the like in templates
    tool_results.yaml     calls of tools with their results
    tasks/<domain>.yaml   openings, follow-ups, arrivals and replies of each task
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from data_synthesis.authored.grammar import Template, TemplateError, compile_template
from data_synthesis.corpus import Coarse, Wording
from data_synthesis.likeness import likeness
from data_synthesis.phrases import Phrases, read_phrases, read_slots, read_yaml
from data_synthesis.taxonomy import Area, Entry, Name, Taxonomy, load_taxonomy
from routing.errors import InvalidRecord

Text = Annotated[str, Field(min_length=1)]
Vocabularies = dict[str, list[str]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _TaskTexts(_Part):
    openings: Annotated[list[Text], Field(min_length=1)]
    follow_ups: Annotated[list[Text], Field(min_length=1)]
    arrivals: Annotated[list[Text], Field(min_length=1)]
    replies: Annotated[list[Text], Field(min_length=1)]


class _DomainTexts(_Part):
    domain: str
    slots: dict[Name, Annotated[list[Text], Field(min_length=2)]]
    tasks: dict[str, _TaskTexts]


class _Attachment(_Part):
    text: Text
    language: str | None = None


class _ToolResult(_Part):
    name: Text
    arguments: str
    result: Text


class _Family(Entry):
    name: Name
    members: Annotated[list[str], Field(min_length=2)]


class _AreaEntry(Entry):
    name: Area


class _Families(_Part):
    areas: list[_AreaEntry]
    families: list[_Family]


@dataclass(frozen=True, slots=True)
class Talk:
    """What is said for one task."""

    openings: tuple[Template, ...]
    """Complete by themselves."""
    follow_ups: tuple[Template, ...]
    """Later messages of the same task, which lean on what was said."""
    arrivals: tuple[Template, ...]
    """Messages that come to the task from other work of the same conversation."""
    replies: tuple[Template, ...]
    """Answers of an assistant."""


@dataclass(frozen=True)
class Library:
    """Everything authored, read and compiled."""

    taxonomy: Taxonomy
    talk: Mapping[str, Talk]
    """By task, `domain/name`."""
    slots: Mapping[str, Vocabularies]
    """All vocabularies of a domain, the shared ones included."""
    phrases: Phrases
    attachments: Vocabularies
    pastes: Mapping[str, Vocabularies]
    """By task, the attachments of each kind that go best with it."""
    tool_results: Sequence[tuple[str, str, str]]
    """Name, arguments as JSON, result."""
    coarse: Sequence[Coarse]
    """Domains, families and areas; they cover keys `authored/domain/name`."""
    fingerprint: str
    """SHA-256 of all files it was read from."""

    def frames(self) -> Iterator[str]:
        """Every distinct text that a person wrote for users to say."""
        seen: set[str] = set()
        for talk in self.talk.values():
            for template in (*talk.openings, *talk.follow_ups, *talk.arrivals):
                seen.add(template.text)
        seen.update(self.phrases.texts())
        yield from sorted(seen)


def load_library(folder: Path, taxonomy: Path) -> Library:
    """The library of a folder over a taxonomy.

    Raises InvalidRecord that names the file, the place and what is wrong: unknown or missing tasks,
    templates that do not compile, vocabularies that are not there.
    """
    loaded = load_taxonomy(taxonomy)
    shared = read_slots(folder / "slots.yaml")
    phrases = read_phrases(folder / "phrases.yaml", shared)
    attachments = _attachments(folder / "attachments")
    talk: dict[str, Talk] = {}
    slots: dict[str, Vocabularies] = {}
    for domain, entry in loaded.domains.items():
        path = folder / "tasks" / f"{domain}.yaml"
        texts = parse(path, _DomainTexts)
        odd = sorted(texts.tasks.keys() ^ {task.name for task in entry.tasks})
        if odd:
            raise InvalidRecord(f"{path}: tasks.{odd[0]}: the taxonomy's and the file's differ")
        slots[domain] = {**shared, **attachments, **texts.slots}
        for name, parts in texts.tasks.items():
            talk[f"{domain}/{name}"] = _talk(parts, slots[domain], f"{path}: tasks.{name}")
    results = parse(folder / "tool_results.yaml", list[_ToolResult])
    return Library(
        loaded,
        talk,
        slots,
        phrases,
        attachments,
        _pastes(loaded, talk, attachments),
        [(r.name, r.arguments, r.result.rstrip()) for r in results],
        _coarse(folder / "families.yaml", loaded),
        _fingerprint([*folder.rglob("*.yaml"), *taxonomy.glob("*.yaml")]),
    )


def _fingerprint(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: (path.parent.name, path.name)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


LEAST_PASTES = 4
"""Of each kind, however badly they go with a task."""

T = TypeVar("T")


def parse(path: Path, kind: type[T]) -> T:
    """A YAML file as a type; raises InvalidRecord with file, field and reason."""
    try:
        return TypeAdapter(kind).validate_python(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "file"
        raise InvalidRecord(f"{path}: {at}: {first['msg']}") from None


def _talk(parts: _TaskTexts, slots: Vocabularies, at: str) -> Talk:
    compiled: list[tuple[Template, ...]] = []
    for part in ("openings", "follow_ups", "arrivals", "replies"):
        try:
            compiled.append(tuple(compile_template(t, slots) for t in getattr(parts, part)))
        except TemplateError as error:
            raise InvalidRecord(f"{at}.{part}: {error}") from None
    return Talk(*compiled)


def _attachments(folder: Path) -> Vocabularies:
    """`{KIND}` by file name, and `{KIND.language}` for those that name a language."""
    found: Vocabularies = {}
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise InvalidRecord(f"{folder} holds no attachments")
    for path in paths:
        kind = path.stem.upper()
        for item in parse(path, list[_Attachment]):
            text = item.text.rstrip()
            found.setdefault(kind, []).append(text)
            if item.language is not None:
                found.setdefault(f"{kind}.{item.language}", []).append(text)
    return found


def _pastes(
    taxonomy: Taxonomy, talk: Mapping[str, Talk], attachments: Vocabularies
) -> dict[str, Vocabularies]:
    """Attachments that share most words with what is said for a task, by TF-IDF."""
    keys = [key for key, _ in taxonomy.tasks()]
    words = [
        " ".join(
            (
                key.replace("_", " "),
                *task.wording.descriptions,
                *(t.text for t in (*talk[key].openings, *talk[key].arrivals)),
            )
        )
        for key, task in taxonomy.tasks()
    ]
    material = sorted({text for texts in attachments.values() for text in texts})
    places = {text: i for i, text in enumerate(material)}
    fit = likeness(words, material, common=0.2)
    chosen: dict[str, Vocabularies] = {}
    for row, key in enumerate(keys):
        chosen[key] = {
            kind: sorted(texts, key=lambda text: -fit[row, places[text]])[: _most(len(texts))]
            for kind, texts in attachments.items()
        }
    return chosen


def _most(count: int) -> int:
    """How many of so many attachments go well enough with a task."""
    return min(count, max(LEAST_PASTES, count // 5))


def _coarse(path: Path, taxonomy: Taxonomy) -> list[Coarse]:
    loaded = parse(path, _Families)
    known = {key for key, _ in taxonomy.tasks()}
    found = [
        Coarse(
            f"domain:{name}",
            "domain",
            domain.wording,
            frozenset(f"authored/{name}/{task.name}" for task in domain.tasks),
        )
        for name, domain in taxonomy.domains.items()
    ]
    for family in loaded.families:
        odd = [member for member in family.members if member not in known]
        if odd:
            raise InvalidRecord(f"{path}: {family.name}: no such task: {odd[0]}")
        covers = frozenset(f"authored/{member}" for member in family.members)
        wording = _wording(family.name, family)
        found.append(Coarse(f"family:{family.name}", "family", wording, covers))
    for area in loaded.areas:
        covers = frozenset(
            f"authored/{key}"
            for key, _ in taxonomy.tasks()
            if taxonomy.domains[key.split("/")[0]].area == area.name
        )
        found.append(Coarse(f"area:{area.name}", "area", _wording(area.name, area), covers))
    return found


def _wording(name: str, entry: Entry) -> Wording:
    return Wording((name, *entry.alternatives), (entry.description, *entry.paraphrases))
