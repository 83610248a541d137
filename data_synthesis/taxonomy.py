"""The taxonomy: domains and tasks that owners of routers define, one YAML file a domain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_synthesis.corpus import Wording
from routing.errors import InvalidRecord

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$", max_length=60)]
Sentence = Annotated[str, Field(min_length=3, max_length=600)]
Area = Literal[
    "coding",
    "operations",
    "chat",
    "writing",
    "knowledge",
    "customer_service",
    "personal",
    "business",
]


class Entry(BaseModel):
    """Names and wordings of a route of any breadth."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: Sentence
    alternatives: Annotated[list[Name], Field(min_length=1)]
    """Other names."""
    paraphrases: Annotated[list[Sentence], Field(min_length=2)]
    """Other wordings of the description."""


class TaxonomyTask(Entry):
    """A task, told apart from its neighbours."""

    name: Name
    neighbours: list[str]
    """Tasks it is confused with: a name in the same domain, or `domain/name`."""
    out_of_scope: Sentence
    """What people wrongly expect here, and where it belongs."""

    @property
    def wording(self) -> Wording:
        return Wording((self.name, *self.alternatives), (self.description, *self.paraphrases))


class Domain(Entry):
    """A domain: the coarse route over its tasks."""

    domain: Name
    area: Area
    tasks: Annotated[list[TaxonomyTask], Field(min_length=1)]

    @property
    def wording(self) -> Wording:
        return Wording((self.domain, *self.alternatives), (self.description, *self.paraphrases))


class Taxonomy(BaseModel):
    """All domains by name; tasks are known as `domain/name`."""

    model_config = ConfigDict(frozen=True)

    domains: dict[str, Domain]

    @model_validator(mode="after")
    def _neighbours_exist(self) -> Self:
        known = {key for key, _ in self.tasks()}
        for key, task in self.tasks():
            neighbours = full_keys(key, task)
            if len(set(neighbours)) < len(neighbours):
                raise ValueError(f"{key}: a neighbour is listed twice")
            for neighbour in neighbours:
                if neighbour not in known or neighbour == key:
                    raise ValueError(f"{key}: no such neighbour: {neighbour}")
        return self

    def tasks(self) -> Iterator[tuple[str, TaxonomyTask]]:
        """Keys and tasks in the order of the files."""
        for name, domain in self.domains.items():
            for task in domain.tasks:
                yield f"{name}/{task.name}", task


def full_keys(key: str, task: TaxonomyTask) -> list[str]:
    """A task's neighbours as `domain/name`."""
    domain = key.split("/")[0]
    return [name if "/" in name else f"{domain}/{name}" for name in task.neighbours]


def load_taxonomy(folder: Path) -> Taxonomy:
    """All `*.yaml` of a folder; raises InvalidRecord that names file, field and reason."""
    domains: dict[str, Domain] = {}
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise InvalidRecord(f"{folder} holds no domain files")
    for path in paths:
        domain = _read(path)
        if domain.domain != path.stem:
            raise InvalidRecord(f"{path}: domain: {domain.domain!r} is not the file's name")
        names = [task.name for task in domain.tasks]
        if len(set(names)) < len(names):
            raise InvalidRecord(f"{path}: tasks: two have the same name")
        domains[domain.domain] = domain
    try:
        return Taxonomy(domains=domains)
    except ValidationError as error:
        raise InvalidRecord(f"{folder}: {error.errors()[0]['msg']}") from None


def _read(path: Path) -> Domain:
    try:
        return Domain.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRecord(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRecord(f"cannot read {path}: {error}") from None
