"""What a Response's stream says of each of its items, from `added` to `done`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import orjson

from serving.protocols.responses_objects import (
    call_item,
    message_item,
    new_id,
    reasoning_item,
    reasoning_part,
    refusal_part,
    text_part,
)

_TEXT = "response.output_text"
_REFUSAL = "response.refusal"
_REASONING = "response.reasoning_text"


class Emitter:
    """Writes events and numbers them from zero."""

    def __init__(self) -> None:
        self._events: list[bytes] = []
        self._number = 0

    def __call__(self, kind: str, **fields: Any) -> None:
        data = orjson.dumps({"type": kind, "sequence_number": self._number, **fields})
        self._events.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), data))
        self._number += 1

    def taken(self) -> bytes:
        """The events since the last time."""
        events, self._events = self._events, []
        return b"".join(events)


class _Item(ABC):
    """`item` is the item as it is now, and as it stays once it is closed."""

    def __init__(self, emit: Emitter, index: int, item: dict[str, Any]) -> None:
        self._emit = emit
        self._index = index
        self._done = False
        self.item = item
        emit("response.output_item.added", output_index=index, item=item)

    def close(self, status: str) -> None:
        """Say that the item is done, unless it has been said."""
        if not self._done:
            self._done = True
            self.item = self._final(status)
            self._emit("response.output_item.done", output_index=self._index, item=self.item)

    @abstractmethod
    def _final(self, status: str) -> dict[str, Any]:
        """The item as it is told when it is done."""

    def _say(self, kind: str, **fields: Any) -> None:
        self._emit(kind, item_id=self.item["id"], output_index=self._index, **fields)


class _Parted(_Item):
    """An item with content parts, one of which is open at a time."""

    def __init__(self, emit: Emitter, index: int, item: dict[str, Any]) -> None:
        super().__init__(emit, index, item)
        self._parts: list[dict[str, Any]] = []
        self._kind: str | None = None
        self._pieces: list[str] = []

    def _open(self, kind: str, part: dict[str, Any]) -> None:
        if self._kind != kind:
            self._close_part()
            self._kind = kind
            self._parts.append(part)
            self._say("response.content_part.added", content_index=self._at, part=part)

    def _delta(self, text: str, **fields: Any) -> None:
        self._pieces.append(text)
        self._say(f"{self._kind}.delta", content_index=self._at, delta=text, **fields)

    def _close_part(self) -> None:
        if self._kind is None:
            return
        text, self._pieces = "".join(self._pieces), []
        key = "refusal" if self._kind == _REFUSAL else "text"
        part = self._parts[-1] = {**self._parts[-1], key: text}
        told: dict[str, Any] = {key: text}
        if self._kind == _TEXT:
            told["logprobs"] = _brief(part["logprobs"])
        self._say(f"{self._kind}.done", content_index=self._at, **told)
        self._say("response.content_part.done", content_index=self._at, part=part)
        self._kind = None

    @property
    def _at(self) -> int:
        return len(self._parts) - 1


class Message(_Parted):
    """What the model says."""

    def __init__(self, emit: Emitter, index: int) -> None:
        super().__init__(emit, index, message_item(new_id("msg"), [], "in_progress"))

    def add_text(self, text: str, logprobs: list[dict[str, Any]]) -> None:
        """More text."""
        self._open(_TEXT, text_part("", [], []))
        self._parts[-1]["logprobs"] += logprobs
        self._delta(text, logprobs=_brief(logprobs))

    def add_refusal(self, text: str) -> None:
        """More of a refusal."""
        self._open(_REFUSAL, refusal_part(""))
        self._delta(text)

    def annotate(self, annotation: dict[str, Any]) -> None:
        """A citation of what was said."""
        self._open(_TEXT, text_part("", [], []))
        annotations = self._parts[-1]["annotations"]
        annotations.append(annotation)
        self._say(
            "response.output_text.annotation.added",
            content_index=self._at,
            annotation_index=len(annotations) - 1,
            annotation=annotation,
        )

    def _final(self, status: str) -> dict[str, Any]:
        self._close_part()
        return message_item(self.item["id"], self._parts, status)


class Reasoning(_Parted):
    """What the model thinks."""

    def __init__(self, emit: Emitter, index: int) -> None:
        super().__init__(emit, index, reasoning_item(new_id("rs"), [], "in_progress"))

    def add(self, text: str) -> None:
        """More of it."""
        self._open(_REASONING, reasoning_part(""))
        self._delta(text)

    def _final(self, status: str) -> dict[str, Any]:
        self._close_part()
        return reasoning_item(self.item["id"], self._parts, status)


class Call(_Item):
    """A call of a function or a custom tool; `call_id` is the upstream's, perhaps empty."""

    def __init__(
        self, emit: Emitter, index: int, call_id: str, named: dict[str, str], *, custom: bool
    ) -> None:
        self.call_id = call_id
        self._custom = custom
        self._pieces: list[str] = []
        item = call_item(
            new_id("ctc" if custom else "fc"),
            call_id or new_id("call"),
            named,
            "",
            "in_progress",
            custom=custom,
        )
        super().__init__(emit, index, item)

    def add(self, text: str) -> None:
        """More of the arguments, or of the input."""
        if text:
            self._pieces.append(text)
            self._say(f"{self._told}.delta", delta=text)

    def _final(self, status: str) -> dict[str, Any]:
        key, text = "input" if self._custom else "arguments", "".join(self._pieces)
        self._say(f"{self._told}.done", **{key: text})
        return {**self.item, key: text, "status": status}

    @property
    def _told(self) -> str:
        of = "custom_tool_call_input" if self._custom else "function_call_arguments"
        return f"response.{of}"


def _brief(logprobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Log-probabilities as text events have them: without the tokens' bytes."""
    return [
        {
            "token": one["token"],
            "logprob": one["logprob"],
            "top_logprobs": [
                {"token": top["token"], "logprob": top["logprob"]} for top in one["top_logprobs"]
            ],
        }
        for one in logprobs
    ]
