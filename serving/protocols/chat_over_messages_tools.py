"""The tools of a Chat request, and the choice between them, in the words of Messages."""

from __future__ import annotations

from typing import Any

from serving.protocols.fields import a_string, an_object, objects, only_here
from serving.protocols.output_schemas import for_anthropic


def tool_fields(body: dict[str, Any]) -> dict[str, Any]:
    """`tools` and `tool_choice`, both left out where there are none. Raises Untranslatable."""
    tools = [_tool(tool, at) for tool, at in objects(body.get("tools") or [], "tools")]
    choice, allowed = _choice(body.get("tool_choice"))
    if allowed is not None:
        tools = [tool for tool in tools if tool["name"] in allowed]
    if not tools:
        return {}
    if body.get("parallel_tool_calls") is False and (choice or {}).get("type") != "none":
        choice = (choice or {"type": "auto"}) | {"disable_parallel_tool_use": True}
    return {"tools": tools} if choice is None else {"tools": tools, "tool_choice": choice}


def _tool(tool: dict[str, Any], at: str) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise only_here(f"tools of type {tool.get('type')!r}", f"{at}.type")
    function, at = an_object(tool.get("function"), f"{at}.function"), f"{at}.function"
    schema = an_object(function.get("parameters") or {}, f"{at}.parameters")
    schema = {"type": "object", "properties": {}} | schema
    translated: dict[str, Any] = {"name": a_string(function.get("name"), f"{at}.name")}
    if function.get("description"):
        translated["description"] = a_string(function["description"], f"{at}.description")
    if function.get("strict") and (enforced := for_anthropic(schema)) is not None:
        return translated | {"input_schema": enforced, "strict": True}
    return translated | {"input_schema": schema}


def _choice(choice: Any) -> tuple[dict[str, Any] | None, set[str] | None]:
    """The choice, and the names of the tools that it allows where it is of such a kind."""
    at = "tool_choice"
    if choice is None:
        return None, None
    if isinstance(choice, str):
        known = {"auto": "auto", "required": "any", "none": "none"}
        if choice not in known:
            raise only_here("such choice", at)
        return {"type": known[choice]}, None
    kind = an_object(choice, at).get("type")
    if kind == "function":
        function = an_object(choice.get("function"), f"{at}.function")
        return {"type": "tool", "name": a_string(function.get("name"), f"{at}.function.name")}, None
    if kind == "allowed_tools":
        within = an_object(choice.get(kind), f"{at}.{kind}")
        names = {_allowed(*tool) for tool in objects(within.get("tools"), f"{at}.{kind}.tools")}
        return {"type": "any" if within.get("mode") == "required" else "auto"}, names
    raise only_here("such choice", f"{at}.type")


def _allowed(tool: dict[str, Any], at: str) -> str:
    function = an_object(tool.get("function"), f"{at}.function")
    return a_string(function.get("name"), f"{at}.function.name")
