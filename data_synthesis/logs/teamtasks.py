"""The tasks that a team's logs are labelled with.

    tasks:
      - name: billing
        description: Invoices, refunds and payments.
        alternatives: [invoices_and_payments]        # other names
        paraphrases: [Anything about paying us.]     # other wordings of the description
        neighbours: [account]                        # tasks it is confused with

A router's file, which has `policies` (see `routing.tasks.Router`), does as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from data_synthesis.sources.stored import StoredTask
from routing.errors import InvalidRecord
from routing.tasks import Description, PresetTask, Route, Router, TaskName, resolve_pools

SOURCE = "logs"


class _TeamTask(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: TaskName
    description: Description
    alternatives: list[TaskName] = []
    paraphrases: list[Description] = []
    neighbours: list[str] = []


_TASKS: TypeAdapter[list[_TeamTask]] = TypeAdapter(Annotated[list[_TeamTask], Field(min_length=1)])


@dataclass(frozen=True)
class TeamTasks:
    """Tasks as routes, and as they are stored; `keys` maps a task's name to its stored key."""

    routes: tuple[Route, ...]
    stored: tuple[StoredTask, ...]
    keys: dict[str, str]


def load_tasks(path: Path, presets: Iterable[PresetTask] = ()) -> TeamTasks:
    """Tasks of a YAML or JSON file, of either form; `presets` resolve a router's task slugs.

    Raises InvalidRecord with file, field and reason.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRecord(f"cannot read {path}: {error}") from None
    try:
        tasks = _tasks(value, presets)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "tasks"
        raise InvalidRecord(f"{path}: {at}: {first['msg']}") from None
    except ValueError as error:
        raise InvalidRecord(f"{path}: {error}") from None
    names = [task.name for task in tasks]
    for task in tasks:
        if sum(name.casefold() == task.name.casefold() for name in names) > 1:
            raise InvalidRecord(f"{path}: tasks: {task.name!r} is there twice")
        odd = next((n for n in task.neighbours if n not in names or n == task.name), None)
        if odd is not None:
            raise InvalidRecord(f"{path}: {task.name}: no such neighbour: {odd}")
    groups = _groups(tasks)
    return TeamTasks(
        routes=tuple(Route(name=task.name, description=task.description) for task in tasks),
        stored=tuple(
            StoredTask(
                key=f"{SOURCE}/{task.name}",
                group=f"{SOURCE}/{groups[task.name]}",
                names=list(dict.fromkeys([task.name, *task.alternatives])),
                descriptions=list(dict.fromkeys([task.description, *task.paraphrases])),
                neighbours=[f"{SOURCE}/{name}" for name in task.neighbours],
            )
            for task in tasks
        ),
        keys={task.name: f"{SOURCE}/{task.name}" for task in tasks},
    )


def _tasks(value: Any, presets: Iterable[PresetTask]) -> list[_TeamTask]:
    if isinstance(value, dict) and "policies" in value:
        pools = resolve_pools(Router.model_validate(value), presets)
        return [_TeamTask(name=p.route.name, description=p.route.description) for p in pools]
    if isinstance(value, dict) and set(value) == {"tasks"}:
        value = value["tasks"]
    return _TASKS.validate_python(value)


def _groups(tasks: list[_TeamTask]) -> dict[str, str]:
    """A name for each task's group: tasks that neighbours join are of one."""
    # One group for all would put a whole team's tasks on one side of the validation split.
    group = {task.name: task.name for task in tasks}
    for task in tasks:
        for neighbour in task.neighbours:
            old, new = group[neighbour], group[task.name]
            group = {name: new if at == old else at for name, at in group.items()}
    return group
