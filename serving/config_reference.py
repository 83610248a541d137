"""The reference of the configuration, written from the configuration's own types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from serving.config import ServerConfig
from serving.environment import VARIABLES

INTRODUCTION = """\
# The server's configuration, field by field

Written by `pointsman config reference` from the types that read the file: do not edit it here.

One YAML file, [`serve.yaml`](serve.yaml) by default; `pointsman serve --config FILE` takes another,
and `pointsman config check FILE` says what is wrong with it and which providers are on. An unknown
key is an error. Paths are relative to the file. Keys and passwords are never in it: it names the
environment variables that hold them. Where the command line, the environment and the file all say
something, the first of these three counts.
"""
LONGEST_LIST = 12
RANGES = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "more than {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "less than {}"),
)

Schema = Mapping[str, Any]


def reference() -> str:
    """The whole document, in Markdown."""
    schema = ServerConfig.model_json_schema()
    definitions: dict[str, Schema] = schema.get("$defs", {})
    parts = [INTRODUCTION, "## The file\n", _table(schema)]
    for name in _in_order(schema, definitions):
        section = definitions[name]
        parts += [f"## {name}\n", f"{_text(section)}\n", _table(section)]
    parts += ["## Environment\n", "| variable | meaning |", "| --- | --- |"]
    parts += [f"| `{name}` | {text} |" for name, text in VARIABLES.items()]
    return "\n".join(parts) + "\n"


def undescribed() -> list[str]:
    """Fields without a docstring, as `Section.field`."""
    schema = ServerConfig.model_json_schema()
    sections = {"ServerConfig": schema, **schema.get("$defs", {})}
    return [
        f"{section}.{field}"
        for section, content in sections.items()
        for field, each in content.get("properties", {}).items()
        if not each.get("description")
    ]


def _table(section: Schema) -> str:
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    required = section.get("required", [])
    for key, field in section.get("properties", {}).items():
        default = "required" if key in required else _default(field)
        rows.append(f"| `{key}` | {_type(field)} | {default} | {_text(field)} |")
    return "\n".join(rows) + "\n"


def _in_order(schema: Schema, definitions: Mapping[str, Schema]) -> list[str]:
    """Names of sections in the order in which a reader meets them."""
    names: dict[str, None] = {}

    def visit(section: Schema) -> None:
        fresh = [name for name in _references(section.get("properties", {})) if name not in names]
        names.update(dict.fromkeys(fresh))
        for name in fresh:
            visit(definitions[name])

    visit(schema)
    return list(names)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if "$ref" in value:
            yield value["$ref"].rsplit("/", 1)[1]
        for key, each in value.items():
            if key != "discriminator":
                yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def _type(field: Schema) -> str:
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in field:
            kinds = dict.fromkeys(_type(each) for each in field[key])
            return " or ".join(kind for kind in kinds if kind != "null")
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{each}`" for each in field["enum"])
    kind = field.get("type")
    if kind == "array":
        return f"list of {_type(field['items'])}"
    if kind == "object":
        values = [*field.get("patternProperties", {}).values()]
        if isinstance(more := field.get("additionalProperties"), Mapping):
            values.append(more)
        return f"name: {_type(values[0])}" if values else "mapping"
    names = {
        "string": "text",
        "number": "number",
        "integer": "whole number",
        "boolean": "`true` or `false`",
    }
    text = "path" if field.get("format") == "path" else names.get(str(kind), str(kind))
    bounds = [words.format(_number(field[key])) for key, words in RANGES if key in field]
    return ", ".join([text, *bounds])


def _default(field: Schema) -> str:
    value = field.get("default")
    if value is None or isinstance(value, dict):
        return ""  # left out, or the section's own defaults
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, list):
        items = [str(each) for each in sorted(value)]
        if len(items) > LONGEST_LIST:
            items = [*items[: LONGEST_LIST - 1], f"… {items[-1]}"]
        return ", ".join(items)
    return f"`{_number(value)}`" if value != "" else ""


def _number(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _text(described: Schema) -> str:
    """A description on one line, safe in a table."""
    return " ".join(described.get("description", "").split()).replace("|", "\\|")
