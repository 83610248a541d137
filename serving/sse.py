"""Server-sent events, as far as a relay must know them: where one ends, and what an error is."""

from __future__ import annotations

from typing import Any

import orjson

_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
MAX_HELD = 1 << 20
"""Bytes held back for an event that does not end; beyond it they are passed on as they are."""


class EventSplitter:
    """Passes whole events on and holds an unfinished one back, so that a cut leaves no half of one
    before the error event. Bytes are never changed."""

    def __init__(self) -> None:
        self._held = b""
        self.done = False
        """Whether the closing `data: [DONE]` has passed."""

    def feed(self, chunk: bytes) -> bytes:
        """The bytes up to the last event's end, possibly none."""
        data = self._held + chunk
        end = max(at + len(mark) if (at := data.rfind(mark)) >= 0 else 0 for mark in _ENDS)
        if not end and len(data) > MAX_HELD:
            end = len(data)
        self._held = data[end:]
        if b"[DONE]" in data[max(0, end - 64) : end]:
            self.done = True
        return data[:end]

    def rest(self) -> bytes:
        """What is left at a regular end: an event that no blank line closed."""
        rest, self._held = self._held, b""
        if b"[DONE]" in rest[-64:]:
            self.done = True
        return rest


def first_data(events: bytes) -> bytes | None:
    """Payload of the first data line; None where there are only comments so far."""
    for line in events.splitlines():
        if line.startswith(b"data:"):
            return line[5:].strip()
    return None


def is_error(payload: bytes) -> bool:
    """Whether an event's payload is an error: some upstreams answer 200 and then send one."""
    if b'"error"' not in payload:
        return False
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and bool(value.get("error")) and "choices" not in value


def event(value: Any) -> bytes:
    """One data event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"
