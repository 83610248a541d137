"""Why an upstream refused a request: reasons that another model may not share.

A prompt too long for one model may fit the next, and what one provider's filter stops another may
answer. Codes: https://platform.openai.com/docs/guides/error-codes,
https://platform.claude.com/docs/en/api/errors. Where there is no code, the providers' wordings.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import orjson

Refusal = Literal["context_length", "content_policy"]

_CODES: dict[str, Refusal] = {
    "context_length_exceeded": "context_length",
    "string_above_max_length": "context_length",
    "request_too_large": "context_length",
    "content_filter": "content_policy",
    "content_policy_violation": "content_policy",
    "responsibleaipolicyviolation": "content_policy",
    "invalid_prompt": "content_policy",
}
_WORDS: tuple[tuple[re.Pattern[str], Refusal], ...] = (
    (
        re.compile(
            r"context[ _]length|context[ _]window|maximum context|prompt is too long"
            r"|input is too long|too many (?:input )?tokens"
            r"|max(?:imum)? (?:input )?tokens? exceeded"
            r"|exceeds? the (?:maximum|model'?s?) .{0,40}tokens?",
            re.IGNORECASE,
        ),
        "context_length",
    ),
    (
        re.compile(
            r"content (?:management )?policy|content filter|usage polic(?:y|ies)|safety system",
            re.IGNORECASE,
        ),
        "content_policy",
    ),
)
_STATUSES = frozenset({400, 403, 413, 422})


def refusal_of(status: int, body: bytes) -> Refusal | None:
    """The reason that an error answer gives, or None where it is another."""
    if status not in _STATUSES:
        return None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "context_length" if status == 413 else None
    error = value.get("error", value) if isinstance(value, dict) else value
    for word in _codes(error):
        if (found := _CODES.get(word.lower())) is not None:
            return found
    message = error.get("message") if isinstance(error, dict) else error
    for pattern, reason in _WORDS:
        if isinstance(message, str) and pattern.search(message):
            return reason
    return "context_length" if status == 413 else None


def _codes(error: Any) -> list[str]:
    if not isinstance(error, dict):
        return []
    inner = error.get("innererror")
    nested = inner.get("code") if isinstance(inner, dict) else None
    found = [error.get("code"), error.get("type"), nested]
    return [each for each in found if isinstance(each, str)]
