"""What happens to a stream's events between the upstream and the client."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from serving.outgoing import Call
from serving.protocols.base import parse_events
from serving.sse import is_error, raw_events
from serving.usage import UsageMeter

_USAGE = re.compile(rb'"usage": ?\{')


TOLD = "told"
"""Label of a stream that ended with an error of the upstream's own, which the client has seen."""


class StreamCut(Exception):
    """A stream that broke after its first event; `label` as of UpstreamFailure."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.label = label


class ClientEvents:
    """Turns whole events of one upstream's stream into the client's.

    Bytes pass unchanged where both speak the same, but for a usage that only the server asked for.
    """

    def __init__(self, call: Call, request: Mapping[str, Any]) -> None:
        assert call.protocol is not None, "only a model's answer is a stream of events"
        self._hide_usage = call.hide_usage
        self._translation = call.translation.stream(dict(request)) if call.translation else None
        self.meter = UsageMeter(call.protocol)
        self.told = False
        """Whether the upstream itself told the client of an error."""

    def feed(self, events: bytes) -> bytes:
        """The client's bytes; raises StreamCut for events that are none of the protocol's."""
        if _USAGE.search(events):
            self.meter.read(events)
            if self._hide_usage:
                events = b"".join(map(_without_usage, raw_events(events)))
        if self._translation is None:
            if b'"error"' in events and any(is_error(e.data) for e in parse_events(events)):
                self.told = True
            return events
        return b"".join(self._translated(events))

    def finish(self) -> bytes:
        """What the client is still owed at a regular end."""
        return b"" if self._translation is None or self.told else self._translation.finish()

    def _translated(self, events: bytes) -> list[bytes]:
        assert self._translation is not None
        pieces: list[bytes] = []
        for each in parse_events(events):
            # A translation tells the client of an error itself, and nothing after it.
            self.told = self.told or is_error(each.data)
            try:
                pieces.append(self._translation.feed(each))
            except ValueError:
                raise StreamCut("invalid") from None
        return pieces


def _without_usage(event: bytes) -> bytes:
    """A Chat chunk's event without its usage; nothing, where it holds nothing else."""
    if not _USAGE.search(event):
        return event
    for parsed in parse_events(event):
        try:
            chunk = orjson.loads(parsed.data)
        except orjson.JSONDecodeError:
            return event
        if not isinstance(chunk, dict) or not isinstance(chunk.get("usage"), dict):
            return event
        if not chunk.get("choices"):
            return b""
        del chunk["usage"]
        return b"data: " + orjson.dumps(chunk) + b"\n\n"
    return event
