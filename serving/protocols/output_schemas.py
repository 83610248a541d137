"""JSON schemas that a model's output must keep to, and which of them each provider can enforce.

OpenAI, strict: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
Anthropic: https://platform.claude.com/docs/en/build-with-claude/structured-outputs
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

_NOT_STRICT = frozenset(
    {"allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas"}
)
_MAPS = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf", "oneOf")
_ENFORCED = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf"}
    | {"allOf", "$ref", "$defs", "definitions", "title", "description", "default"}
)
_FORMATS = (
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "uri",
    "ipv4",
    "ipv6",
    "uuid",
)
_MAX_DEPTH = 64


def fits_openai(schema: Any) -> bool:
    """Whether OpenAI takes a schema with `strict`: objects are closed, all properties required."""
    return _depth_ok(schema) and all(
        not _NOT_STRICT & part.keys()
        and (not _is_object(part) or (_closed(part) and _all_required(part)))
        for part in _parts(schema)
    )


def for_anthropic(schema: Any) -> dict[str, Any] | None:
    """The schema as Anthropic can enforce it, or None: open objects and recursion it cannot.

    Bounds that it does not enforce, such as `minimum`, become part of the description, so that the
    model at least reads of them.
    """
    if not isinstance(schema, dict) or not _depth_ok(schema) or _recursive(schema):
        return None
    if any(_is_object(part) and not _closed(part) for part in _parts(schema)):
        return None
    return _enforced(schema)


def _enforced(schema: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _MAPS and isinstance(value, dict):
            kept[name] = {key: _enforced_part(part) for key, part in value.items()}
        elif name in _LISTS and isinstance(value, list):
            # One of several and any of several differ only where two would fit.
            key = "anyOf" if name == "oneOf" else name
            kept[key] = [*kept.get(key, []), *map(_enforced_part, value)]
        elif name == "items":
            kept[name] = _enforced_part(value)
        elif (
            name in _ENFORCED
            or (name == "format" and value in _FORMATS)
            or (name == "minItems" and value in (0, 1))
        ):
            kept[name] = value
        elif name != "$schema":
            told[name] = value
    if told:
        said = [schema["description"]] if isinstance(schema.get("description"), str) else []
        kept["description"] = "\n\n".join([*said, orjson.dumps(told).decode()])
    return kept


def _enforced_part(part: Any) -> Any:
    return _enforced(part) if isinstance(part, dict) else part


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and all that are within it."""
    if not isinstance(schema, dict):
        return
    yield schema
    for name in _MAPS:
        held = schema.get(name)
        for part in held.values() if isinstance(held, dict) else ():
            yield from _parts(part)
    for name in _LISTS:
        held = schema.get(name)
        for part in held if isinstance(held, list) else ():
            yield from _parts(part)
    for name in ("items", "additionalProperties"):
        yield from _parts(schema.get(name))


def _depth_ok(schema: Any) -> bool:
    level = [schema]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return True
    return False


def _is_object(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return (
        "properties" in schema or kind == "object" or (isinstance(kind, list) and "object" in kind)
    )


def _closed(schema: dict[str, Any]) -> bool:
    return schema.get("additionalProperties") is False


def _all_required(schema: dict[str, Any]) -> bool:
    properties, required = schema.get("properties") or {}, schema.get("required") or []
    return (
        isinstance(properties, dict)
        and isinstance(required, list)
        and all(name in required for name in properties)
    )


def _recursive(schema: dict[str, Any]) -> bool:
    """Whether a reference leads back to where it stands; references to elsewhere count too."""
    definitions = {
        f"#/{place}/{name}": part
        for place in ("$defs", "definitions")
        if isinstance(held := schema.get(place), dict)
        for name, part in held.items()
    }
    leads = {name: _references(part) for name, part in definitions.items()}
    if any(ref not in leads for ref in _references(schema)):
        return True
    while free := [name for name, refs in leads.items() if not refs & leads.keys()]:
        for name in free:
            del leads[name]
    return bool(leads)


def _references(schema: Any) -> set[str]:
    return {part["$ref"] for part in _parts(schema) if isinstance(part.get("$ref"), str)}
