"""What a request asks of a model, read off its body in any of the three protocols.

Token counts are estimates: which tokenizer counts is not known before a model is chosen. Text is
measured by its UTF-8 bytes, pictures and the like by a flat figure. Nothing here refuses a body:
what is malformed counts as absent, and is for the upstream to complain about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import orjson

from routing.values import value_type
from serving.errors import bad_request, clipped
from serving.protocols.base import Protocol

TAGS_HEADER = "x-pointsman-tags"
"""Of a request: ``region=eu, data=no-train`` asks for models that the owner has tagged so."""
MAX_TAGS = 16

BYTES_PER_TOKEN = 4
"""English prose has about 4.4 in current tokenizers, code and JSON about 3.4."""
MESSAGE_TOKENS = 4
"""Of the marks around each message."""
IMAGE_TOKENS = 1000
"""Flat: a picture of a megapixel is 765 tokens to GPT-4o and about 1,400 to Claude."""
AUDIO_TOKENS = 600
"""Flat: a minute at ten tokens a second."""
FILE_TOKENS = 3000
"""Flat: two pages of a PDF, which Claude counts as 1,500 to 3,000 tokens each."""

Tags = tuple[tuple[str, str], ...]

_IMAGES = frozenset({"image", "image_url", "input_image", "computer_screenshot"})
_AUDIO = frozenset({"audio", "input_audio"})
_FILES = frozenset({"file", "input_file", "document", "container_upload"})
# Values under these keys are no text to a model: identifiers, marks, ciphers, base64.
_OPAQUE = frozenset(
    {
        *("type", "role", "id", "call_id", "tool_call_id", "tool_use_id", "status", "format"),
        *("cache_control", "signature", "encrypted_content", "data", "annotations", "logprobs"),
        *("url", "file_id", "file_data", "server_label", "created_by", "namespace"),
    }
)
_ARGUMENTS = frozenset({"input", "arguments", "action"})
_CAPS = {
    Protocol.CHAT: ("max_completion_tokens", "max_tokens"),
    Protocol.RESPONSES: ("max_output_tokens",),
    Protocol.MESSAGES: ("max_tokens",),
}
_SAID = {
    Protocol.CHAT: ("messages",),
    Protocol.RESPONSES: ("instructions", "input"),
    Protocol.MESSAGES: ("system", "messages"),
}
_TAG = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63})\s*=\s*([A-Za-z0-9][A-Za-z0-9_.-]{0,63})")


@value_type
class Need:
    """What a model must be able to do to answer a request."""

    prompt_tokens: int = 0
    """An estimate, of tools and schemas too."""
    max_output_tokens: int | None = None
    """The client's own cap."""
    vision: bool = False
    audio: bool = False
    files: bool = False
    tools: bool = False
    structured_output: bool = False
    """Whether the answer must be JSON, of a schema or of any form."""
    stream: bool = False
    tags: Tags = ()
    """All of these must hold; one name with two values can hold for no model."""

    @property
    def hard(self) -> bool:
        """Whether anything is asked that a model may lack for certain; see `eligibility.HARD`."""
        seen = self.vision or self.audio or self.files
        return bool(seen or self.tools or self.structured_output or self.tags)


def need_of(protocol: Protocol, body: dict[str, Any], tags: Tags = ()) -> Need:
    """The need of a client's body; `tags` are those of its header and its router."""
    count = _Count()
    for name in _SAID[protocol]:
        count.say(body.get(name))
    schema = _schema(protocol, body)
    tools = [value for name in ("tools", "functions") if (value := body.get(name))]
    for value in (*tools, schema) if schema else tools:
        count.text_bytes += _json_bytes(value)
    return Need(
        prompt_tokens=count.tokens + -(-count.text_bytes // BYTES_PER_TOKEN),
        max_output_tokens=_cap(body, _CAPS[protocol]),
        vision=count.images,
        audio=count.audio or _says_audio(body),
        files=count.files,
        tools=any(isinstance(value, list) for value in tools),
        structured_output=schema is not None,
        stream=body.get("stream") is True,
        tags=tags,
    )


def parse_tags(values: Iterable[str]) -> Tags:
    """The tags of a request's header, given all its values; raises ApiError 400 that names it.

    A name may be given once: two values would read like a choice, and none is offered.
    """
    tags: dict[str, str] = {}
    for item in (item.strip() for value in values if value.strip() for item in value.split(",")):
        match = _TAG.fullmatch(item)
        if match is None:
            message = f"{TAGS_HEADER}: {clipped(item)!r} is not of the form name=value"
            raise bad_request(message, TAGS_HEADER)
        if match[1] in tags:
            raise bad_request(f"{TAGS_HEADER}: {match[1]!r} is given twice", TAGS_HEADER)
        if len(tags) == MAX_TAGS:
            raise bad_request(f"{TAGS_HEADER}: more than {MAX_TAGS} tags", TAGS_HEADER)
        tags[match[1]] = match[2]
    return tuple(tags.items())


class _Count:
    """Adds up what was said, whatever nests in what."""

    __slots__ = ("audio", "files", "images", "text_bytes", "tokens")

    def __init__(self) -> None:
        self.text_bytes = 0
        self.tokens = 0
        self.images = self.audio = self.files = False

    def say(self, said: Any) -> None:
        """Take a text, a message, a part, or a list of any of these in."""
        left = [said]
        while left:
            item = left.pop()
            if isinstance(item, str):
                self.text_bytes += _utf8_bytes(item)
            elif isinstance(item, list):
                left.extend(item)
            elif isinstance(item, dict):
                content = item.get("content")
                if len(item) == 2 and isinstance(content, str) and "role" in item:
                    # What most messages are.
                    self.tokens += MESSAGE_TOKENS
                    self.text_bytes += _utf8_bytes(content)
                else:
                    self._object(item, left)

    def _object(self, item: dict[str, Any], left: list[Any]) -> None:
        kind = item.get("type")
        if not isinstance(kind, str):
            kind = ""
        if "role" in item:
            self.tokens += MESSAGE_TOKENS
        if not kind:
            self._values(item, left)
        elif kind in _IMAGES:
            self.images = True
            self.tokens += IMAGE_TOKENS
        elif kind in _AUDIO:
            self.audio = True
            self.tokens += AUDIO_TOKENS
        elif kind in _FILES:
            self._file(item, left)
        else:
            self._values(item, left)

    def _values(self, item: dict[str, Any], left: list[Any]) -> None:
        for key, value in item.items():
            if key in _OPAQUE:
                continue
            if isinstance(value, str):
                self.text_bytes += _utf8_bytes(value)
            elif key in _ARGUMENTS and isinstance(value, dict):
                self.text_bytes += _json_bytes(value)
            else:
                left.append(value)

    def _file(self, item: dict[str, Any], left: list[Any]) -> None:
        source = item.get("source")
        if isinstance(source, dict) and source.get("type") in ("text", "content"):
            # Anthropic's documents of plain text: any model that reads text can be given them.
            left.extend((item.get("title"), item.get("context"), source.get("content")))
            if source["type"] == "text":
                left.append(source.get("data"))
            return
        self.files = True
        self.tokens += FILE_TOKENS


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _json_bytes(value: Any) -> int:
    try:
        return len(orjson.dumps(value))
    except (TypeError, ValueError):  # deeper than orjson writes, or half of a surrogate pair
        return _walked_bytes(value)


def _walked_bytes(value: Any) -> int:
    total, left = 0, [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            left.extend(item)
            left.extend(item.values())
        elif isinstance(item, list):
            left.extend(item)
        elif isinstance(item, str):
            total += _utf8_bytes(item)
    return total


def _cap(body: dict[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _schema(protocol: Protocol, body: dict[str, Any]) -> dict[str, Any] | None:
    """The format that the answer must have, where that is JSON."""
    if protocol is Protocol.CHAT:
        wanted = body.get("response_format")
    elif protocol is Protocol.RESPONSES:
        wanted = _inside(body.get("text"), "format")
    else:
        # `output_format` was the field while the feature was in beta.
        wanted = _inside(body.get("output_config"), "format") or body.get("output_format")
    if isinstance(wanted, dict) and wanted.get("type") in ("json_schema", "json_object"):
        return wanted
    return None


def _inside(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _says_audio(body: dict[str, Any]) -> bool:
    """Whether the answer is to be spoken: Chat Completions' `modalities`."""
    modalities = body.get("modalities")
    return isinstance(modalities, list) and "audio" in modalities
