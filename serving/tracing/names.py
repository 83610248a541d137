"""Names of spans and attributes.

Those of HTTP are OpenTelemetry's stable conventions; those of generative AI (`gen_ai.…`) are still
in development there (https://opentelemetry.io/docs/specs/semconv/gen-ai/) and change in this place.
"""

from __future__ import annotations

SERVICE = "pointsman"

DECIDE = "decide"
"""The span of a decision."""

METHOD = "http.request.method"
ROUTE = "http.route"
STATUS = "http.response.status_code"
ERROR = "error.type"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"

ROUTER = "pointsman.router"
TASK = "pointsman.route"
CONFIDENCE = "pointsman.confidence"
REASON = "pointsman.fallback_reason"
REMEMBERED = "pointsman.remembered"
ENGINE = "pointsman.engine"
CHECKPOINT = "pointsman.checkpoint"
MODEL = "pointsman.model"
STREAM = "pointsman.stream"
BROKEN = "pointsman.broken"
COST = "pointsman.cost"

OPERATIONS = {"embeddings": "embeddings"}
"""By the last part of a path; all else is a chat."""


def operation(path: str) -> str:
    """What is asked of a model on a path."""
    return OPERATIONS.get(path.rsplit("/", 1)[-1], "chat")
