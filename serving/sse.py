"""Server-sent events, as far as a relay must know them: where one ends, and what an error is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

from serving.protocols.base import Protocol

_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_END = re.compile(rb"\n\n|\r\n\r\n|\r\r")
MAX_HELD = 1 << 20
"""Bytes held back for an event that does not end; beyond it they are passed on as they are."""

# Quotes inside a model's text are escaped, so that no text can look like these.
_CLOSING = {
    Protocol.CHAT: re.compile(rb'^data: ?\[DONE\]|"finish_reason": ?"', re.MULTILINE),
    Protocol.MESSAGES: re.compile(rb'"message_stop"'),
    Protocol.RESPONSES: re.compile(rb'"response\.(?:completed|incomplete|failed|cancelled)"'),
}


class EventSplitter:
    """Passes whole events on and holds an unfinished one back, so that a cut leaves no half of one
    before the error event. Bytes are never changed."""

    def __init__(self, protocol: Protocol) -> None:
        self._held = b""
        self._closing = _CLOSING[protocol]
        self.done = False
        """Whether the event has passed with which the model's answer is whole."""

    def feed(self, chunk: bytes) -> bytes:
        """The bytes up to the last event's end, possibly none."""
        data = self._held + chunk if self._held else chunk
        if data.endswith(b"\n\n"):
            end = len(data)
        else:
            end = max(at + len(mark) if (at := data.rfind(mark)) >= 0 else 0 for mark in _ENDS)
            if not end and len(data) > MAX_HELD:
                end = len(data)
        self._held = data[end:]
        return self._passed(data[:end])

    def rest(self) -> bytes:
        """What is left at a regular end: an event that no blank line closed."""
        rest, self._held = self._held, b""
        return self._passed(rest)

    def _passed(self, events: bytes) -> bytes:
        if not self.done and self._closing.search(events):
            self.done = True
        return events


def raw_events(whole: bytes) -> Iterator[bytes]:
    """Each event's own bytes, its end included."""
    start = 0
    for match in _END.finditer(whole):
        yield whole[start : match.end()]
        start = match.end()
    if start < len(whole):
        yield whole[start:]


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
    if not isinstance(value, dict):
        return False
    return value.get("type") == "error" or (bool(value.get("error")) and "choices" not in value)


def event(value: Any) -> bytes:
    """One data event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"
