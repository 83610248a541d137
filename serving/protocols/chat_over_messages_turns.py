"""The messages of a Chat request as Anthropic's system prompt and turns."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from serving.protocols.base import Untranslatable
from serving.protocols.fields import a_string, an_object, objects, only_here
from serving.protocols.tool_arguments import parsed

Blocks: TypeAlias = list[dict[str, Any]]

IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_DATA_URL = re.compile(r"data:([^;,]+)[^,]*;base64,", re.IGNORECASE)
_TOOL_ID = re.compile(r"[A-Za-z0-9_-]+")


def conversation(messages: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """The texts of the system prompt, and the turns. Raises Untranslatable.

    All system and developer messages go to the system prompt, wherever they stand, since not all
    models take them among the turns. Turns of one side that follow each other become one, with
    tool results first. Anthropic refuses empty texts, so they are left out.
    """
    system: list[str] = []
    turns: list[tuple[str, Blocks]] = []
    for message, at in objects(messages, "messages"):
        role = message.get("role")
        if role in ("system", "developer"):
            content = message.get("content")
            system += [block["text"] for block in _blocks(content, f"{at}.content", ("text",))]
            continue
        side, blocks = _turn(role, message, at)
        if blocks and turns and turns[-1][0] == side:
            turns[-1][1].extend(blocks)
        elif blocks:
            turns.append((side, blocks))
    if not turns:
        raise Untranslatable("messages: there must be one that is not the system's", "messages")
    if turns[-1][0] == "assistant":
        _trim(turns[-1][1])
    return system, [{"role": side, "content": _ordered(blocks)} for side, blocks in turns]


def _turn(role: Any, message: dict[str, Any], at: str) -> tuple[str, Blocks]:
    content = message.get("content")
    if role == "user":
        return role, _blocks(content, f"{at}.content", ("text", "image_url", "file"))
    if role == "assistant":
        return role, _assistant(message, at)
    if role == "tool":
        id_ = tool_use_id(a_string(message.get("tool_call_id"), f"{at}.tool_call_id"))
        result: dict[str, Any] = {"type": "tool_result", "tool_use_id": id_}
        blocks = _blocks(content, f"{at}.content", ("text", "image_url", "file"))
        if blocks:
            result["content"] = _short(blocks)
        return "user", [result]
    raise only_here(f"role {role!r}", f"{at}.role")


def _assistant(message: dict[str, Any], at: str) -> Blocks:
    for name in ("function_call", "audio"):
        if message.get(name):
            raise only_here(f"{name} in a message", f"{at}.{name}")
    blocks: Blocks = []
    if message.get("content") is not None:
        blocks += _blocks(message["content"], f"{at}.content", ("text", "refusal"))
    if message.get("refusal"):
        blocks += _blocks(message["refusal"], f"{at}.refusal", ())
    calls = objects(message.get("tool_calls") or [], f"{at}.tool_calls")
    return blocks + [_tool_use(call, where) for call, where in calls]


def _tool_use(call: dict[str, Any], at: str) -> dict[str, Any]:
    if call.get("type", "function") != "function":
        raise only_here(f"calls of type {call['type']!r}", f"{at}.type")
    function = an_object(call.get("function"), f"{at}.function")
    return {
        "type": "tool_use",
        "id": tool_use_id(a_string(call.get("id"), f"{at}.id")),
        "name": a_string(function.get("name"), f"{at}.function.name"),
        "input": parsed(function.get("arguments")),
    }


def tool_use_id(id_: str) -> str:
    """The id, or where it has characters that Anthropic refuses a digest of it, always the same."""
    if _TOOL_ID.fullmatch(id_):
        return id_
    return f"call_{hashlib.sha256(id_.encode('utf-8', 'replace')).hexdigest()[:32]}"


def _blocks(content: Any, at: str, kinds: tuple[str, ...]) -> Blocks:
    """The blocks of a string or of parts of these kinds, without texts that say nothing."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    return [block for part, where in objects(content, at) for block in _part(part, where, kinds)]


def _part(part: dict[str, Any], at: str, kinds: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    kind = part.get("type")
    if kind not in kinds:
        raise only_here(f"content of type {kind!r} here", f"{at}.type")
    if kind == "image_url":
        image = an_object(part.get(kind), f"{at}.{kind}")
        yield {"type": "image", "source": _image(image.get("url"), f"{at}.{kind}.url")}
    elif kind == "file":
        yield _document(an_object(part.get(kind), f"{at}.{kind}"), f"{at}.{kind}")
    else:
        text = a_string(part.get(kind), f"{at}.{kind}")
        if text.strip():
            yield {"type": "text", "text": text}


def _image(url: Any, at: str) -> dict[str, Any]:
    url = a_string(url, at)
    if url.lower().startswith(("http://", "https://")):
        return {"type": "url", "url": url}
    found = _DATA_URL.match(url)
    if found is None:
        raise Untranslatable(f"{at} must be an http(s) address or a base64 data URL", at)
    media_type = found[1].lower()
    media_type = "image/jpeg" if media_type == "image/jpg" else media_type
    if media_type not in IMAGE_TYPES:
        raise only_here(f"images of type {media_type!r}", at)
    return {"type": "base64", "media_type": media_type, "data": url[found.end() :]}


def _document(file: dict[str, Any], at: str) -> dict[str, Any]:
    if file.get("file_data") is None:
        raise only_here("access to files that were uploaded to OpenAI", f"{at}.file_id")
    at = f"{at}.file_data"
    data = a_string(file["file_data"], at)
    found = _DATA_URL.match(data)
    # Without a data URL's type, OpenAI takes a PDF.
    media_type = found[1].lower() if found else "application/pdf"
    data = data[found.end() :] if found else data
    source = {"type": "base64", "media_type": media_type, "data": data}
    if media_type.startswith("text/"):
        source = {"type": "text", "media_type": "text/plain", "data": _decoded(data, at)}
    elif media_type != "application/pdf":
        raise only_here(f"files of type {media_type!r}", at)
    document: dict[str, Any] = {"type": "document", "source": source}
    return document | {"title": file["filename"]} if file.get("filename") else document


def _decoded(data: str, at: str) -> str:
    try:
        return base64.b64decode(data).decode()
    except (binascii.Error, ValueError):
        raise Untranslatable(f"{at} must be UTF-8 in base64", at) from None


def _ordered(blocks: Blocks) -> Any:
    return _short(sorted(blocks, key=lambda block: block["type"] != "tool_result"))


def _short(blocks: Blocks) -> Any:
    """The blocks, or just the text where there is no more."""
    return blocks[0]["text"] if [block["type"] for block in blocks] == ["text"] else blocks


def _trim(blocks: Blocks) -> None:
    """Anthropic refuses white space at the end of an answer that it shall continue."""
    if blocks[-1]["type"] == "text":
        blocks[-1]["text"] = blocks[-1]["text"].rstrip()
