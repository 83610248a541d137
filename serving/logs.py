"""Structured logs: one JSON object a line on standard error."""

from __future__ import annotations

import logging
import sys

import orjson
import structlog


def configure(level: int = logging.INFO) -> None:
    """Set up structlog for the process; the fields that are logged are chosen where they are."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
