"""Structured logs: one JSON object a line on standard error."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from serving.log_writer import LineWriter

TRACE: ContextVar[str | None] = ContextVar("pointsman_trace", default=None)
"""Of the request that is being answered; every line that is logged meanwhile has it."""


def configure(level: str = "info", *, process: str | None = None) -> None:
    """Set up structlog; the fields that are logged are chosen where they are.

    `process` is told in every line, where several write to one log.
    """
    writer = LineWriter(sys.stderr.buffer)
    named = [] if process is None else [_naming(process)]
    structlog.configure(
        processors=[
            *named,
            with_trace,
            structlog.processors.add_log_level,
            _stamped,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=True,
    )


def _naming(process: str) -> Processor:
    def name(_: Any, __: str, line: EventDict) -> EventDict:
        return {"process": process, **line}

    return name


def with_trace(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Add the trace id, unless the line names one."""
    trace = TRACE.get()
    if trace is not None:
        event.setdefault("trace_id", trace)
    return event


def _stamped(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    # structlog's own TimeStamper costs three times as much.
    event["timestamp"] = datetime.now(UTC).isoformat()[:-6] + "Z"
    return event
