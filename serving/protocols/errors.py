"""Errors in the shape of each protocol: this server's own, and those of an upstream of any kind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from serving.errors import ApiError
from serving.protocols.base import Protocol
from serving.sse import event

MESSAGES_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Error types of Anthropic by HTTP status: https://platform.claude.com/docs/en/api/errors."""
_STATUS = re.compile(r"[45][0-9]{2}")
_STATUSES = {kind: status for status, kind in MESSAGES_TYPES.items()}


def error_body_for(protocol: Protocol, error: ApiError) -> dict[str, Any]:
    """The JSON object of this server's own error for a client of `protocol`.

    What Anthropic's shape has no field for, `param` and `code`, is left out: messages name fields.
    """
    if protocol is Protocol.MESSAGES:
        return _messages_body(messages_type(error.status), error.message)
    return error.body()


def error_event(protocol: Protocol, error: ApiError, *, sequence_number: int = 0) -> bytes:
    """The event that ends a stream with an error; the number is only of use in Responses."""
    if protocol is Protocol.MESSAGES:
        return _named("error", error_body_for(protocol, error))
    if protocol is Protocol.RESPONSES:
        fields = {"code": error.code, "message": error.message, "param": error.param}
        return _named("error", {"type": "error", **fields, "sequence_number": sequence_number})
    return event(error.body())


def reshape(protocol: Protocol, status: int, body: bytes) -> bytes:
    """An upstream's error body if a client of `protocol` can read it, else one that it can.

    Of a body in no known shape, such as a web page, nothing is passed on but the status.
    """
    value = _value(body)
    if _shaped(protocol, value):
        return body
    told = _told(value)
    if protocol is Protocol.MESSAGES:
        message = told.message or _anonymous(status)
        return orjson.dumps(_messages_body(messages_type(status), message, told.request_id))
    if told.message is None:
        told = _Told(_anonymous(status))
    kind, code = told.kind or "upstream_error", told.code
    if told.kind is None and code is None:
        code = str(status)
    return orjson.dumps(ApiError(status, told.message or "", kind, told.param, code).body())


def reshape_event(protocol: Protocol, payload: bytes) -> bytes:
    """The error event of a client's stream, of the data of one in an upstream's stream.

    An event has no status; it is taken from the error's code or type, and is 500 without either.
    """
    told = _told(_value(payload))
    status = _STATUSES.get(told.kind or "", 500)
    if told.code is not None and _STATUS.fullmatch(told.code):
        status = int(told.code)
    message = told.message or "The model's provider broke the answer off with an error."
    if protocol is Protocol.MESSAGES:
        kind = told.kind if told.kind in _STATUSES else messages_type(status)
        return _named("error", _messages_body(kind, message, told.request_id))
    kind = told.kind or "upstream_error"
    return error_event(protocol, ApiError(status, message, kind, told.param, told.code))


def messages_type(status: int) -> str:
    """Anthropic's error type for a status, also for one that it does not document."""
    default = "invalid_request_error" if 400 <= status < 500 else "api_error"
    return MESSAGES_TYPES.get(status, default)


@dataclass(frozen=True, slots=True)
class _Told:
    """What an error body says, in whatever shape."""

    message: str | None = None
    kind: str | None = None
    param: str | None = None
    code: str | None = None
    request_id: str | None = None


def _told(value: Any) -> _Told:
    if isinstance(value, list) and value:  # Gemini answers with an array of one error
        value = value[0]
    if not isinstance(value, dict):
        return _Told()
    error = value.get("error")
    if isinstance(error, str):
        return _Told(error)
    inner = error if isinstance(error, dict) else value
    details = inner.get("details")
    code = inner.get("code")
    if code is None and isinstance(details, dict):
        code = details.get("error_code")
    kind = _text(inner.get("type"))
    return _Told(
        # FastAPI, and so many a local server, says what is wrong under this name.
        _text(inner.get("message")) or _text(inner.get("detail")),
        None if kind == "error" else kind,
        _text(inner.get("param")),
        str(code) if isinstance(code, str | int) else None,
        _text(value.get("request_id")),
    )


def _shaped(protocol: Protocol, value: Any) -> bool:
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return False
    if protocol is Protocol.MESSAGES:
        return bool(value.get("type") == "error") and isinstance(error.get("type"), str)
    return bool(value.get("type") != "error")


def _messages_body(kind: str | None, message: str, request_id: str | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": message}}
    return body if request_id is None else body | {"request_id": request_id}


def _anonymous(status: int) -> str:
    return f"The model's provider answered {status}."


def _named(name: str, value: Any) -> bytes:
    return b"event: " + name.encode() + b"\n" + event(value)


def _value(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
