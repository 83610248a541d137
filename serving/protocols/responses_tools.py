"""Tools of a Responses request in the words of Chat Completions.

Functions and custom tools have the same meaning in both. A namespace, which only Responses knows,
becomes its tools under joint names; `ToolNames` takes such a name apart again in an answer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from serving.errors import bad_request, clipped
from serving.protocols.base import Untranslatable
from serving.protocols.shapes import array, mapping, one_of, text

MAX_NAME = 64
"""Characters of a function's name in Chat Completions."""


@dataclass(frozen=True, slots=True)
class ChatTools:
    """What a request says of tools, for Chat; `origins` names each tool's place in the request."""

    fields: dict[str, Any]
    origins: list[str]


class ToolNames:
    """The names of a request's tools in Responses, by their names in Chat."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._of: dict[str, tuple[str, str]] = {}
        for tool in _objects(request.get("tools")):
            if tool.get("type") == "namespace":
                space = str(tool.get("name"))
                for member in _objects(tool.get("tools")):
                    name = str(member.get("name"))
                    self._of[chat_name(name, space)] = (name, space)

    def fields(self, name: str) -> dict[str, str]:
        """`name`, and `namespace` where there is one, of a call that an answer makes."""
        if name not in self._of:
            return {"name": name}
        own, space = self._of[name]
        return {"name": own, "namespace": space}


def chat_name(name: str, namespace: str | None) -> str:
    """The name of a tool in Chat: the same for the same two, and never too long."""
    if not namespace:
        return name
    joint = f"{namespace}__{name}"
    if len(joint) <= MAX_NAME:
        return joint
    digest = hashlib.sha256(joint.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{joint[: MAX_NAME - 9]}_{digest}"


def chat_tools(body: dict[str, Any]) -> ChatTools:
    """`tools`, `tool_choice` and `parallel_tool_calls` for Chat, as far as there are any.

    `allowed_tools` leaves the other tools out, which every upstream understands. Raises
    Untranslatable for tools that only a server of Responses can run, ApiError 400 for bad shapes.
    """
    tools: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    given = body.get("tools")
    for index, tool in enumerate(array(given, "tools") if given is not None else ()):
        at = f"tools[{index}]"
        for here, name, written in _tools(mapping(tool, at), at):
            if name in tools:
                raise bad_request(f"{here}: there are two tools named {clipped(name)!r}", here)
            tools[name], origins[name] = written, here
    choice, allowed = _choice(body.get("tool_choice"))
    kept = [name for name in tools if allowed is None or name in allowed]
    if not kept:  # Chat refuses an empty list, and a choice where there is none
        return ChatTools({}, [])
    fields: dict[str, Any] = {"tools": [tools[name] for name in kept]}
    if choice is not None:
        fields["tool_choice"] = choice
    if body.get("parallel_tool_calls") is not None:
        fields["parallel_tool_calls"] = body["parallel_tool_calls"]
    return ChatTools(fields, [origins[name] for name in kept])


def _objects(value: Any) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _tools(tool: dict[str, Any], at: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Place, name and Chat's form of a tool, or of every tool in a namespace."""
    kind = text(tool.get("type"), f"{at}.type")
    if kind != "namespace":
        return [(at, *_tool(kind, tool, None, at))]
    space = text(tool.get("name"), f"{at}.name")
    found: list[tuple[str, str, dict[str, Any]]] = []
    for number, member in enumerate(array(tool.get("tools"), f"{at}.tools")):
        here = f"{at}.tools[{number}]"
        kind = text(mapping(member, here).get("type"), f"{here}.type")
        found.append((here, *_tool(kind, member, space, here)))
    return found


def _tool(
    kind: str, tool: dict[str, Any], namespace: str | None, at: str
) -> tuple[str, dict[str, Any]]:
    if kind not in ("function", "custom"):
        raise Untranslatable(f"{at}: only a model behind Responses has {clipped(kind)!r}", at)
    name = chat_name(text(tool.get("name"), f"{at}.name"), namespace)
    written: dict[str, Any] = {"name": name}
    for key in ("description", "parameters", "strict") if kind == "function" else ("description",):
        if tool.get(key) is not None:
            written[key] = tool[key]
    if kind == "custom" and tool.get("format") is not None:
        written["format"] = _format(mapping(tool["format"], f"{at}.format"))
    return name, {"type": kind, kind: written}


def _format(given: dict[str, Any]) -> dict[str, Any]:
    if given.get("type") != "grammar":
        return given
    grammar = {key: value for key, value in given.items() if key in ("definition", "syntax")}
    return {"type": "grammar", "grammar": grammar}


def _choice(given: Any) -> tuple[Any, set[str] | None]:
    """Chat's `tool_choice`, and the names of the tools that may be called where some may not."""
    at = "tool_choice"
    if given is None or isinstance(given, str):
        return given if given is None else one_of(given, ("none", "auto", "required"), at), None
    kind = text(mapping(given, at).get("type"), f"{at}.type")
    if kind == "allowed_tools":
        names = {
            _chosen(mapping(tool, f"{at}.tools[{number}]"), f"{at}.tools[{number}]")
            for number, tool in enumerate(array(given.get("tools"), f"{at}.tools"))
        }
        return one_of(given.get("mode"), ("auto", "required"), f"{at}.mode"), names
    name = _chosen(given, at)
    return {"type": kind, kind: {"name": name}}, None


def _chosen(tool: dict[str, Any], at: str) -> str:
    kind = text(tool.get("type"), f"{at}.type")
    if kind not in ("function", "custom"):
        raise Untranslatable(f"{at}: only a model behind Responses has {clipped(kind)!r}", at)
    namespace = tool.get("namespace")
    name = text(tool.get("name"), f"{at}.name")
    return chat_name(name, None if namespace is None else text(namespace, f"{at}.namespace"))
