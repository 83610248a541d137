"""OpenTelemetry traces, and what is logged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from serving.config_base import BaseUrl, Strict


class TracingConfig(Strict):
    """Spans of requests, decisions and attempts, sent by OTLP over HTTP. Needs the extra `otel`."""

    enabled: bool = False
    """Off, OpenTelemetry is not even imported."""
    endpoint: BaseUrl | None = None
    """Base URL of the collector, without /v1/traces; left out, OpenTelemetry's own variables say
    (OTEL_EXPORTER_OTLP_ENDPOINT, and OTEL_EXPORTER_OTLP_HEADERS for keys)."""
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of requests that are traced, of those whose client has not decided that itself."""
    forward: bool = True
    """Whether upstreams are told the trace, in a `traceparent` header."""


class LoggingConfig(Strict):
    """Lines of JSON on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Each request is one line of `info`."""
