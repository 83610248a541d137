"""Talk kept on disk between stages: what a teacher wrote, or what a team's logs were made into.

    source.json          {"name", "licence", ...} and where it comes from
    tasks.json           [{"key", "group", "names", "descriptions", "neighbours", "conflicts"}]
    dialogues.jsonl.gz   {"id", "turns": [{"role", "content", "tasks": [keys] or null}]}
    requests.jsonl.gz    {"text", "tasks": [keys]}; may be missing

Keys begin with the source's name and a slash. A user turn whose `tasks` is an empty list needs no
task; null, as of assistant turns, means that it is not decided.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from data_synthesis.corpus import Corpus, Dialogue, Request, Task, Turn, Wording
from data_synthesis.files import write_gzip, write_json
from routing.errors import InvalidRecord


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StoredTask(_Row):
    """One task with its wordings."""

    key: str
    group: str
    names: Annotated[list[str], Field(min_length=1)]
    descriptions: Annotated[list[str], Field(min_length=1)]
    neighbours: list[str] = []
    conflicts: list[str] = []


class StoredTurn(_Row):
    """One turn; see the module."""

    role: str
    content: str
    tasks: list[str] | None = None


class StoredDialogue(_Row):
    """One dialogue in order."""

    id: str
    turns: Annotated[list[StoredTurn], Field(min_length=1)]


class StoredRequest(_Row):
    """One user message that makes sense by itself."""

    text: str
    tasks: list[str]


def read_stored(folder: Path) -> Corpus:
    """The talk in a folder; raises InvalidRecord with file, line and reason."""
    facts = _json(folder / "source.json")
    name = facts.get("name") if isinstance(facts, dict) else None
    if not isinstance(name, str):
        raise InvalidRecord(f"{folder / 'source.json'}: name: must be a text")
    stored = _validated(folder / "tasks.json", list[StoredTask], _json(folder / "tasks.json"))
    tasks = {
        task.key: Task(
            task.key,
            group=task.group,
            wording=Wording(tuple(task.names), tuple(task.descriptions)),
            neighbours=frozenset(task.neighbours),
            conflicts=frozenset(task.conflicts),
        )
        for task in stored
    }
    odd = next((key for key in tasks if not key.startswith(f"{name}/")), None)
    if odd is not None:
        raise InvalidRecord(f"{folder / 'tasks.json'}: {odd!r} does not begin with {name}/")

    dialogues: list[Dialogue] = []
    for at, dialogue in _rows(folder / "dialogues.jsonl.gz", StoredDialogue):
        for turn in dialogue.turns:
            _known(turn.tasks or (), tasks, at)
        dialogues.append(Dialogue(dialogue.id, tuple(_turn(turn) for turn in dialogue.turns)))
    requests: list[Request] = []
    if (folder / "requests.jsonl.gz").is_file():
        for at, request in _rows(folder / "requests.jsonl.gz", StoredRequest):
            _known(request.tasks, tasks, at)
            requests.append(Request(request.text, tuple(request.tasks)))
    return Corpus(
        name, str(facts.get("licence", "unknown")), tasks, {}, tuple(requests), tuple(dialogues)
    )


def write_stored(
    folder: Path,
    facts: dict[str, Any],
    tasks: Iterable[StoredTask],
    dialogues: Iterable[StoredDialogue],
    requests: Iterable[StoredRequest] = (),
) -> None:
    """Write a folder that `read_stored` reads; each file appears whole or not at all."""
    write_rows(folder / "dialogues.jsonl.gz", dialogues)
    write_rows(folder / "requests.jsonl.gz", requests)
    write_json(folder / "tasks.json", [task.model_dump() for task in tasks])
    write_json(folder / "source.json", facts)


def write_rows(path: Path, rows: Iterable[BaseModel]) -> None:
    """Rows as gzipped JSONL, the same bytes for the same rows."""
    write_gzip(path, (row.model_dump_json().encode() + b"\n" for row in rows))


def _turn(turn: StoredTurn) -> Turn:
    keys = turn.tasks or []
    first = keys[0] if keys else None
    return Turn(turn.role, turn.content, first, tuple(keys[1:]), turn.tasks is not None)


def _known(keys: Iterable[str], tasks: dict[str, Task], at: str) -> None:
    unknown = next((key for key in keys if key not in tasks), None)
    if unknown is not None:
        raise InvalidRecord(f"{at}: unknown task {unknown!r}")


T = TypeVar("T")


def _rows(path: Path, kind: type[T]) -> Iterator[tuple[str, T]]:
    adapter = TypeAdapter(kind)
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield f"{path}:{number}", adapter.validate_json(line)
                except ValidationError as error:
                    first = error.errors()[0]
                    field = ".".join(map(str, first["loc"])) or "row"
                    raise InvalidRecord(f"{path}:{number}: {field}: {first['msg']}") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InvalidRecord(f"cannot read {path}: {error}") from None


def _validated(path: Path, kind: type[T], value: object) -> T:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRecord(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRecord(f"cannot read {path}: {error}") from None
