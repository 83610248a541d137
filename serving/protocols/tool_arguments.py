"""Arguments of tool calls: a JSON text in OpenAI's protocols, a JSON object in Anthropic's."""

from __future__ import annotations

from typing import Any

import orjson

INVALID_JSON = "INVALID_JSON"
"""The one key of an input that holds arguments that are no JSON object, as Anthropic's guide to
fine-grained tool streaming advises:
https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming"""


def parsed(arguments: Any) -> dict[str, Any]:
    """The object of a call's arguments; a model's broken JSON is kept as text, see INVALID_JSON."""
    if isinstance(arguments, dict):  # some servers do not write them as text
        return arguments
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return {}
    try:
        value = orjson.loads(arguments)
    except (orjson.JSONDecodeError, TypeError):
        value = None
    return value if isinstance(value, dict) else {INVALID_JSON: arguments}


def written(value: dict[str, Any]) -> str:
    """The text of a call's input. Raises ValueError where it is nested too deeply to be written."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        raise ValueError("the input is nested too deeply") from None


def is_whole(arguments: str) -> bool:
    """Whether a text is one whole JSON object, after which nothing can follow."""
    if not arguments.rstrip().endswith("}"):
        return False
    try:
        orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return False
    return True
