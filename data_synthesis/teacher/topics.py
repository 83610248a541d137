"""What is talked about: domains of the taxonomy, or subjects whose tasks the teacher writes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data_synthesis.sources.stored import StoredTask
from data_synthesis.taxonomy import Taxonomy, full_keys, load_taxonomy
from data_synthesis.teacher.answers import NONE, Policies, RefinedPolicies, Unreadable
from data_synthesis.teacher.recipe import TeacherRecipe
from routing.errors import InvalidRecord

SOURCE = "teacher"


@dataclass(frozen=True)
class Subject:
    """A domain or a topic of the recipe, before its tasks are known."""

    slug: str
    """Names it in keys."""
    text: str
    tasks: tuple[StoredTask, ...] | None
    """None where the teacher is to write them."""
    elsewhere: str
    """The other subjects, as a list for prompts."""


@dataclass(frozen=True)
class Topic:
    """A subject with its tasks."""

    subject: Subject
    tasks: tuple[StoredTask, ...]

    @property
    def labels(self) -> dict[str, str]:
        """Keys by the names that the teacher uses."""
        return {task.names[0]: task.key for task in self.tasks}

    @property
    def policies(self) -> str:
        """The tasks as a list for prompts."""
        return listed((task.names[0], task.descriptions[0]) for task in self.tasks)


def listed(items: Iterable[tuple[str, str]]) -> str:
    """Names with descriptions, one a line."""
    return "\n".join(f"- {name}: {text}" for name, text in items)


def subjects(recipe: TeacherRecipe) -> list[Subject]:
    """Domains, then topics, in the recipe's order; raises InvalidRecord for an unknown domain."""
    named: list[tuple[str, str, tuple[StoredTask, ...] | None]] = []
    if recipe.domains:
        taxonomy = load_taxonomy(recipe.taxonomy)
        for name in recipe.domains:
            if name not in taxonomy.domains:
                raise InvalidRecord(f"domains: {recipe.taxonomy} has no {name!r}", field="domains")
        kept = set(recipe.domains)
        for name in recipe.domains:
            text = taxonomy.domains[name].description
            named.append((name, text, tuple(_domain_tasks(taxonomy, name, kept))))
    for text in recipe.topics:
        slug = in_name_form(text)[:60].rstrip("_")
        if not slug:
            raise InvalidRecord(f"topics: {text!r} has no letter that names it", field="topics")
        named.append((slug, text, None))
    slugs = [slug for slug, _, _ in named]
    twice = next((slug for slug in slugs if slugs.count(slug) > 1), None)
    if twice is not None:
        raise InvalidRecord(f"topics: {twice} stands for two of them", field="topics")
    return [
        Subject(slug, text, tasks, _elsewhere(named, slug) or "- (there are none)")
        for slug, text, tasks in named
    ]


def _elsewhere(named: Sequence[tuple[str, str, object]], slug: str) -> str:
    return listed((other, text) for other, text, _ in named if other != slug)


def _domain_tasks(taxonomy: Taxonomy, name: str, kept: set[str]) -> list[StoredTask]:
    tasks = []
    for task in taxonomy.domains[name].tasks:
        neighbours = full_keys(f"{name}/{task.name}", task)
        tasks.append(
            StoredTask(
                key=f"{SOURCE}/{name}/{task.name}",
                group=name,
                names=list(task.wording.names),
                descriptions=list(task.wording.descriptions),
                neighbours=[f"{SOURCE}/{n}" for n in neighbours if n.split("/")[0] in kept],
            )
        )
    return tasks


def check_policies(answer: Policies) -> str:
    """Drafted tasks as a list for the next prompt; raises Unreadable if they are too few."""
    found = {in_name_form(policy.name): policy.description for policy in answer.policies}
    _check_names(list(found))
    return listed(found.items())


def check_refined(answer: RefinedPolicies, subject: Subject) -> list[StoredTask]:
    """Tasks to be stored; raises Unreadable if they are too few, or two have one name."""
    names = [in_name_form(policy.name) for policy in answer.policies]
    if len(set(names)) < len(names):
        raise Unreadable("invalid", "policies: two tasks have the same name")
    _check_names(names)
    taken = set(names)
    tasks = []
    for name, policy in zip(names, answer.policies, strict=True):
        others = [in_name_form(other) for other in policy.alternative_names]
        # A name that two tasks could go by would offer two routes of one name.
        others = [other for other in dict.fromkeys(others) if other and other not in taken]
        taken.update(others)
        near = {in_name_form(other) for other in policy.neighbours} & set(names) - {name}
        tasks.append(
            StoredTask(
                key=f"{SOURCE}/{subject.slug}/{name}",
                group=subject.slug,
                names=[name, *others],
                descriptions=list(dict.fromkeys([policy.description, *policy.paraphrases])),
                neighbours=[f"{SOURCE}/{subject.slug}/{other}" for other in sorted(near)],
            )
        )
    return tasks


def _check_names(names: list[str]) -> None:
    if len(names) < 2:
        raise Unreadable("invalid", "policies: at least two tasks with different names are needed")
    if "" in names or NONE in names:
        raise Unreadable("invalid", "policies: a name must be English words, and not none")


def in_name_form(text: str) -> str:
    """Lower case, words joined by underscores, at most 60 characters."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:60].rstrip("_")
