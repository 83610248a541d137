"""What a trace needs to know while a request is under way: times, and ids of its spans.

The spans themselves are made at the end, off the request's time.
"""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass, field, replace

from serving.catalogue import Target
from serving.outgoing import Call

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class AskedNote:
    """When a model was asked, and by which span."""

    span: int
    at_ns: int
    provider: str
    model: str
    """As its provider knows it."""


@dataclass(slots=True)
class RequestTrace:
    """The trace of one request."""

    trace: int
    parent: int | None
    """The client's span, if it named one."""
    sampled: bool
    forward: bool
    span: int = field(default_factory=lambda: span_id())
    began_ns: int = field(default_factory=time.time_ns)
    decided_ns: int = 0
    asked: dict[int, AskedNote] = field(default_factory=dict)
    """By the attempt's number."""

    def ask(self, call: Call, number: int, target: Target) -> Call:
        """Note that a model is asked; the call as it is to be sent."""
        note = AskedNote(span_id(), time.time_ns(), target.provider.name, target.model)
        self.asked[number] = note
        if not self.forward:
            return call
        parent = f"00-{self.trace:032x}-{note.span:016x}-{int(self.sampled):02x}"
        return replace(call, headers={**call.headers, "traceparent": parent})


def begin(trace_id: str, traceparent: str | None, sample: float, forward: bool) -> RequestTrace:
    """The trace of a request whose trace id is known.

    Whether it is sampled is the client's to say; where it says nothing, `sample` is the share.
    """
    trace = int(trace_id, 16)
    match = _TRACEPARENT.fullmatch(traceparent or "")
    if match is not None and match[1] == trace_id and int(match[2], 16):
        return RequestTrace(trace, int(match[2], 16), bool(int(match[3], 16) & _SAMPLED), forward)
    # By the trace id, as OpenTelemetry's own sampler does: every service says the same.
    return RequestTrace(trace, None, trace % 2**64 < sample * 2**64, forward)


def span_id() -> int:
    """A new one: an id, no secret."""
    return random.getrandbits(64) or 1
