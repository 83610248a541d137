"""Structured logs: one JSON object a line on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor


def configure(level: int = logging.INFO, *, process: str | None = None) -> None:
    """Set up structlog; the fields that are logged are chosen where they are.

    `process` is told in every line, where several write to one log.
    """
    named = [] if process is None else [_naming(process)]
    structlog.configure(
        processors=[
            *named,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )


def _naming(process: str) -> Processor:
    def name(_: Any, __: str, line: EventDict) -> EventDict:
        return {"process": process, **line}

    return name
