"""The input of a Responses request as Chat messages.

Reasoning of earlier turns is left out: Chat has no place for it. Items that a server of Responses
made for itself, or keeps, are Untranslatable. `developer` becomes `system`, the word that every
upstream knows, and those that a request opens with become one message, since many chat templates
take no second one.
"""

from __future__ import annotations

from typing import Any

from serving.errors import bad_request, clipped
from serving.protocols.base import Untranslatable
from serving.protocols.responses_items import input_items, item_type, message_role
from serving.protocols.responses_tools import chat_name
from serving.protocols.shapes import TEXT_PARTS, content, mapping, text

_BREAKPOINT = "prompt_cache_breakpoint"


class ChatMessages:
    """`messages` of the body; `origins` names the field of the client's that each comes from.

    Raises Untranslatable, and ApiError 400 for bad shapes.
    """

    def __init__(self, body: dict[str, Any]) -> None:
        self.messages: list[dict[str, Any]] = []
        self.origins: list[str] = []
        self._attached: list[dict[str, Any]] = []
        self._at = "instructions"
        if body.get("instructions") is not None:
            self._add("system", text(body["instructions"], "instructions"))
        for index, item in enumerate(input_items(body)):
            self._at = f"input[{index}]"
            self._item(mapping(item, self._at), self._at)
        self._attach()
        self._join_openings()

    def _item(self, item: dict[str, Any], at: str) -> None:
        kind = item_type(item, at)
        if kind in ("function_call_output", "custom_tool_call_output"):
            self._output(item, at)
        elif kind == "message":
            self._attach()
            self._message(item, at)
        elif kind in ("function_call", "custom_tool_call"):
            self._attach()
            self._call(kind, item, at)
        elif kind != "reasoning":
            raise Untranslatable(f"{at}: only a model behind Responses reads {clipped(kind)!r}", at)

    def _message(self, item: dict[str, Any], at: str) -> None:
        role = message_role(item, at)
        said = content(item.get("content"), f"{at}.content")
        if role == "user":
            self._add("user", said if isinstance(said, str) else _parts(said, f"{at}.content"))
            return
        texts = [said] if isinstance(said, str) else _texts(said, f"{at}.content")
        if role == "assistant":
            self._add(role, "".join(texts))
        else:
            self._add("system", "\n".join(texts))

    def _call(self, kind: str, item: dict[str, Any], at: str) -> None:
        kind, asked = ("function", "arguments") if kind == "function_call" else ("custom", "input")
        namespace = item.get("namespace")
        if namespace is not None:
            namespace = text(namespace, f"{at}.namespace")
        name = chat_name(text(item.get("name"), f"{at}.name"), namespace)
        call = {
            "id": text(item.get("call_id"), f"{at}.call_id"),
            "type": kind,
            kind: {"name": name, asked: text(item.get(asked), f"{at}.{asked}")},
        }
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self._add("assistant", None)
        self.messages[-1].setdefault("tool_calls", []).append(call)

    def _output(self, item: dict[str, Any], at: str) -> None:
        call = text(item.get("call_id"), f"{at}.call_id")
        output = content(item.get("output"), f"{at}.output")
        if isinstance(output, list):
            found = [_part(part, f"{at}.output[{n}]") for n, part in enumerate(output)]
            other = [part for part in found if part["type"] != "text"]
            output = "\n".join(part["text"] for part in found if part["type"] == "text")
            if other:
                self._attached += [{"type": "text", "text": f"Output of {call}:"}, *other]
        self._add("tool", output, tool_call_id=call)

    def _attach(self) -> None:
        """Images and files of tools: Chat takes them from a user only, after all of the results."""
        if self._attached:
            attached, self._attached = self._attached, []
            self._add("user", attached)

    def _add(self, role: str, said: Any, **fields: str) -> None:
        self.messages.append({"role": role, "content": said, **fields})
        self.origins.append(self._at)

    def _join_openings(self) -> None:
        count = 0
        while count < len(self.messages) and self.messages[count]["role"] == "system":
            count += 1
        if count > 1:
            joint = "\n\n".join(message["content"] for message in self.messages[:count])
            self.messages[:count] = [{"role": "system", "content": joint}]
            self.origins[:count] = self.origins[:1]


def _texts(given: list[dict[str, Any]], at: str) -> list[str]:
    for number, part in enumerate(given):
        if part["type"] not in TEXT_PARTS:
            here = f"{at}[{number}]"
            raise Untranslatable(f"{here}: in Chat only a user's message may have it", here)
    return [part[TEXT_PARTS[part["type"]]] for part in given]


def _parts(given: list[dict[str, Any]], at: str) -> str | list[dict[str, Any]]:
    """Chat's parts; the text itself where there is nothing else, which every upstream takes."""
    found = [_part(part, f"{at}[{number}]") for number, part in enumerate(given)]
    if len(found) == 1 and found[0].keys() == {"type", "text"}:
        return str(found[0]["text"])
    return found


def _part(part: dict[str, Any], at: str) -> dict[str, Any]:
    kind = part["type"]
    if kind in TEXT_PARTS:
        written: dict[str, Any] = {"type": "text", "text": part[TEXT_PARTS[kind]]}
    elif kind == "input_image":
        written = {"type": "image_url", "image_url": _image(part, at)}
    elif kind == "input_file":
        written = {"type": "file", "file": _file(part, at)}
    elif kind == "input_audio":
        written = {"type": kind, kind: mapping(part.get(kind), f"{at}.{kind}")}
    else:
        raise Untranslatable(f"{at}: Chat has no {clipped(kind)!r}", at)
    if part.get(_BREAKPOINT) is not None:
        written[_BREAKPOINT] = part[_BREAKPOINT]
    return written


def _image(part: dict[str, Any], at: str) -> dict[str, Any]:
    if part.get("image_url") is None and part.get("file_id") is not None:
        raise Untranslatable(f"{at}.file_id: Chat takes images by URL only", f"{at}.file_id")
    image = {"url": text(part.get("image_url"), f"{at}.image_url")}
    return image if part.get("detail") is None else {**image, "detail": part["detail"]}


def _file(part: dict[str, Any], at: str) -> dict[str, Any]:
    keys = ("file_data", "file_id", "filename")
    found = {key: text(part[key], f"{at}.{key}") for key in keys if part.get(key) is not None}
    if "file_data" in found or "file_id" in found:
        return found
    if part.get("file_url") is not None:
        raise Untranslatable(f"{at}.file_url: Chat takes files by data or id", f"{at}.file_url")
    raise bad_request(f"{at}.file_data is required", f"{at}.file_data")
