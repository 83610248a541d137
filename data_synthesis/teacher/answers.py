"""Shapes of the teacher's answers, and reading them strictly enough to be trusted."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, StringConstraints, ValidationError

from data_synthesis.teacher.calls import Finish, Reply

NONE = "none"
"""Label of a user turn that needs no task."""

Said = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Label = Annotated[str, StringConstraints(strip_whitespace=True)]


class Policy(BaseModel):
    """A task as first thought of."""

    name: Said
    description: Said


class Policies(BaseModel):
    """Tasks of a topic."""

    policies: list[Policy]


class RefinedPolicy(Policy):
    """A task told apart from the others."""

    alternative_names: list[Said]
    paraphrases: list[Said]
    neighbours: list[Label]


class RefinedPolicies(BaseModel):
    """Tasks of a topic, improved."""

    policies: list[RefinedPolicy]


class WrittenTurn(BaseModel):
    """A turn; `task` labels a user's and is empty for the assistant's."""

    role: Literal["user", "assistant"]
    content: Said
    task: Label


class WrittenDialogue(BaseModel):
    """A dialogue in order."""

    turns: list[WrittenTurn]


class EdgeCase(BaseModel):
    """A hard decision about `content`, which follows the turns `before`."""

    kind: Literal["border", "out_of_scope", "follow_up"]
    before: list[WrittenTurn]
    content: Said
    task: Label


class EdgeCases(BaseModel):
    """Several of them."""

    cases: list[EdgeCase]


class Verdict(BaseModel):
    """Whether one numbered user turn fits its label, and which would be better."""

    number: int
    fits: bool
    better: Label
    objection: Label


class Judgement(BaseModel):
    """A verdict for each user turn."""

    verdicts: list[Verdict]


class Unreadable(ValueError):
    """An answer that cannot be used; the message tells the teacher what to do about it."""

    def __init__(self, kind: Finish | Literal["empty", "invalid"], problem: str) -> None:
        super().__init__(problem)
        self.kind = kind


M = TypeVar("M", bound=BaseModel)


def strict_schema(kind: type[BaseModel]) -> str:
    """JSON schema as strict endpoints want it: every field required, none besides."""
    schema = _strict(kind.model_json_schema())
    return json.dumps(schema, separators=(",", ":"))


def _strict(node: Any) -> Any:
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "object":
        properties = {name: _strict(value) for name, value in node["properties"].items()}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
            **({"$defs": _definitions(node)} if "$defs" in node else {}),
        }
    # Titles, descriptions and lengths are for the reader of the code, or unknown to some endpoints.
    known = ("type", "items", "enum", "anyOf", "$ref")
    return {name: _strict(value) for name, value in node.items() if name in known}


def _definitions(node: dict[str, Any]) -> dict[str, Any]:
    return {name: _strict(value) for name, value in node["$defs"].items()}


_PROBLEMS: dict[Finish, str] = {
    "length": "it was cut off because it became too long. Say the same in fewer words",
    "refusal": "it declined. The task is harmless: choose other content and answer in the format",
    "filter": "a content filter stopped it. Choose other, harmless content",
}


def read_answer(reply: Reply, kind: type[M]) -> M:
    """The answer in a reply; raises Unreadable.

    Takes the first JSON object of the text, since some models put words or a code fence around it.
    """
    if reply.finish != "stop":
        raise Unreadable(reply.finish, _PROBLEMS[reply.finish])
    if not reply.text.strip():
        raise Unreadable("empty", "it was empty")
    value = first_object(reply.text)
    if value is None:
        raise Unreadable("invalid", "it was no JSON object")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the object"
        raise Unreadable("invalid", f"{field}: {first['msg']}") from None


def first_object(text: str) -> dict[str, Any] | None:
    """The first whole JSON object in a text."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    for _ in range(20):  # each try reads on to the end: a text of braces must not take for ever
        if start < 0:
            return None
        try:
            value, _end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        return value if isinstance(value, dict) else None
    return None
