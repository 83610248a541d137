"""What a key has left, in headers: OpenAI's for its protocols, Anthropic's for its own."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from serving.access.rates import Kind, Reading
from serving.errors import ApiError
from serving.protocols.base import Protocol


def limit_headers(protocol: Protocol, readings: Iterable[Reading]) -> dict[str, str]:
    """Limit, rest, and when the bucket is full again, of each reading."""
    headers: dict[str, str] = {}
    for reading in readings:
        values = str(reading.limit), str(reading.remaining), reading.filled_in_s
        headers |= (_anthropic if protocol is Protocol.MESSAGES else _openai)(reading.kind, *values)
    return headers


def refused(reading: Reading) -> ApiError:
    """429 for a bucket that holds too little, with the seconds to wait."""
    wait = max(1, math.ceil(reading.wait_s))
    return ApiError(
        429,
        f"This key's limit of {reading.limit} {reading.kind} a minute is reached:"
        f" come again in {wait} s.",
        "rate_limit_error",
        code="rate_limit_exceeded",
        headers={"retry-after": str(wait)},
    )


def _openai(kind: Kind, limit: str, remaining: str, filled_in_s: float) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{kind}": limit,
        f"x-ratelimit-remaining-{kind}": remaining,
        f"x-ratelimit-reset-{kind}": f"{filled_in_s:.3f}s",
    }


def _anthropic(kind: Kind, limit: str, remaining: str, filled_in_s: float) -> dict[str, str]:
    full_at = datetime.fromtimestamp(time.time() + filled_in_s, UTC)
    return {
        f"anthropic-ratelimit-{kind}-limit": limit,
        f"anthropic-ratelimit-{kind}-remaining": remaining,
        f"anthropic-ratelimit-{kind}-reset": f"{full_at:%Y-%m-%dT%H:%M:%SZ}",
    }
