"""Content blocks of Messages as messages and content parts of Chat Completions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from serving.protocols.base import Untranslatable
from serving.protocols.fields import a_string, an_object, objects, only_here
from serving.protocols.tool_arguments import written

Located: TypeAlias = tuple[dict[str, Any], str]
"""A block, and its path in the client's body."""
Parts: TypeAlias = list[dict[str, Any]]

_DROPPED = ("thinking", "redacted_thinking")
PARAGRAPHS = "\n\n"


def blocks_of(content: Any, at: str) -> list[Located]:
    """A message's content as blocks; a string is short for one of text."""
    if isinstance(content, str):
        return [({"type": "text", "text": content}, at)]
    return list(objects(content, at))


def text_of_blocks(blocks: Iterable[Located]) -> str:
    """Text blocks as paragraphs of one text; anything else is Untranslatable."""
    return PARAGRAPHS.join(_text(block, at) for block, at in blocks)


def user_messages(blocks: Iterable[Located]) -> list[dict[str, Any]]:
    """Tool results as messages of their own, which must come first, then what the user says.

    A tool message holds only text, so images and files of a result are shown by the user's message.
    """
    results: list[dict[str, Any]] = []
    parts: Parts = []
    for block, at in blocks:
        if block.get("type") == "tool_result":
            message, shown = _tool_result(block, at)
            results.append(message)
            parts += shown
        else:
            parts += _parts(block, at)
    if not parts:
        return results
    alone = len(parts) == 1 and parts[0]["type"] == "text"
    return [*results, {"role": "user", "content": parts[0]["text"] if alone else parts}]


def assistant_message(blocks: Iterable[Located]) -> list[dict[str, Any]]:
    """The message of an assistant's turn, none where there was only thinking."""
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block, at in blocks:
        kind = block.get("type")
        if kind == "tool_use":
            calls.append(_tool_call(block, at))
        elif kind not in _DROPPED:
            texts.append(_text(block, at))
    if not texts and not calls:
        return []
    # Blocks of one answer follow each other without a break, as between citations.
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else None}
    return [message | {"tool_calls": calls} if calls else message]


def _text(block: dict[str, Any], at: str) -> str:
    if block.get("type") == "text":
        return a_string(block.get("text"), f"{at}.text")
    raise only_here(f"content of type {block.get('type')!r} here", f"{at}.type")


def _tool_call(block: dict[str, Any], at: str) -> dict[str, Any]:
    try:
        arguments = written(an_object(block.get("input"), f"{at}.input"))
    except ValueError as error:
        raise Untranslatable(f"{at}.input: {error}", f"{at}.input") from None
    function = {"name": a_string(block.get("name"), f"{at}.name"), "arguments": arguments}
    return {"id": a_string(block.get("id"), f"{at}.id"), "type": "function", "function": function}


def _tool_result(block: dict[str, Any], at: str) -> tuple[dict[str, Any], Parts]:
    """The tool's message, and the parts of its result that the user's message must show."""
    call = a_string(block.get("tool_use_id"), f"{at}.tool_use_id")
    content = block.get("content")
    parts: Parts = []
    for inner, where in blocks_of("" if content is None else content, f"{at}.content"):
        parts += _parts(inner, where)
    text = PARAGRAPHS.join(part["text"] for part in parts if part["type"] == "text")
    shown = [part for part in parts if part["type"] != "text"]
    if shown:
        text = text or "The result is in the next message."
        shown.insert(0, {"type": "text", "text": f"From the result of tool call {call}:"})
    if block.get("is_error") and not text.lower().startswith("error"):
        text = f"Error: {text}" if text else "Error"
    return {"role": "tool", "tool_call_id": call, "content": text}, shown


def _parts(block: dict[str, Any], at: str) -> Iterator[dict[str, Any]]:
    kind = block.get("type")
    if kind in _DROPPED:
        return
    if kind == "image":
        yield _image(an_object(block.get("source"), f"{at}.source"), f"{at}.source")
    elif kind == "document":
        yield from _document(block, at)
    elif kind == "search_result":
        yield {"type": "text", "text": _search_result(block, at)}
    else:
        yield {"type": "text", "text": _text(block, at)}


def _image(source: dict[str, Any], at: str) -> dict[str, Any]:
    if source.get("type") == "url":
        url = a_string(source.get("url"), f"{at}.url")
    elif source.get("type") == "base64":
        url = _data_url(source, at)
    else:
        raise only_here("access to files that were uploaded to Anthropic", f"{at}.type")
    return {"type": "image_url", "image_url": {"url": url}}


def _document(block: dict[str, Any], at: str) -> Iterator[dict[str, Any]]:
    source = an_object(block.get("source"), f"{at}.source")
    kind, where = source.get("type"), f"{at}.source"
    named = {name: block[name] for name in ("title", "context") if block.get(name)}
    if kind == "base64":
        name = str(named.pop("title", "document"))
        name = name if name.lower().endswith(".pdf") else f"{name}.pdf"
        file = {"filename": name, "file_data": _data_url(source, where)}
        parts: Parts = [{"type": "file", "file": file}]
    elif kind == "text":
        parts = [{"type": "text", "text": a_string(source.get("data"), f"{where}.data")}]
    elif kind == "content":
        inner = blocks_of(source.get("content"), f"{where}.content")
        parts = [part for block_, path in inner for part in _parts(block_, path)]
    else:
        raise only_here("documents by address or by Anthropic's id", f"{where}.type")
    if named:
        yield {"type": "text", "text": "\n".join(str(value) for value in named.values())}
    yield from parts


def _search_result(block: dict[str, Any], at: str) -> str:
    said = [a_string(block.get(name), f"{at}.{name}") for name in ("title", "source")]
    found = text_of_blocks(objects(block.get("content"), f"{at}.content"))
    return PARAGRAPHS.join(["\n".join(said), found])


def _data_url(source: dict[str, Any], at: str) -> str:
    media_type = a_string(source.get("media_type"), f"{at}.media_type")
    return f"data:{media_type};base64,{a_string(source.get('data'), f'{at}.data')}"
