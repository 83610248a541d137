"""Reading a request: its body under a size cap, and the fields that the server itself uses."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request

from routing.tasks import RoutingPreference
from routing.values import value_type
from serving.config import Limits
from serving.errors import ApiError, bad_request, field_path
from serving.protocols.base import Protocol
from serving.timers import within

MAX_PREFERENCES = 256
DRAINED_BYTES = 64 * 2**20
"""Of a body that is too long, this much beyond the limit is read before the connection closes."""

_PREFERENCES = TypeAdapter(
    Annotated[list[RoutingPreference], Field(min_length=1, max_length=MAX_PREFERENCES)]
)


@value_type
class ModelRequest:
    """A body of one of the three protocols. `fields` is all of it; the rest has been checked."""

    protocol: Protocol
    fields: dict[str, Any]
    model: str | None
    stream: bool
    preferences: list[RoutingPreference] | None


def protocol_of(path: str) -> Protocol:
    """The protocol whose clients call a path."""
    return Protocol.MESSAGES if path.rstrip("/").endswith("/v1/messages") else Protocol.CHAT


async def read_body(request: Request, limits: Limits) -> bytes:
    """The whole body.

    Raises ApiError 413 for one that is longer than the limit, of which no more than that is kept,
    and 408 for a client that stops sending.
    """
    most, length = limits.body_bytes, request.headers.get("content-length", "")
    chunks: list[bytes] = []
    size, more = 0, True
    try:
        # A body of known length ends with its last byte; the server would tell of the end later.
        while more and str(size) != length:
            with within(limits.idle_s):
                message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > most + DRAINED_BYTES:
                break
            if size > most:
                # Read on and throw away: closing on a client that still sends would reset the
                # connection, and it would never see the answer.
                chunks.clear()
            else:
                chunks.append(chunk)
    except TimeoutError:
        raise ApiError(408, "The body did not arrive in time.", code="timeout") from None
    if size > most:
        raise ApiError(
            413, f"The body exceeds {most} bytes, the most this server reads.", code="too_large"
        )
    return b"".join(chunks)


def parse(protocol: Protocol, body: bytes, *, model_required: bool = True) -> ModelRequest:
    """The fields of a body; raises ApiError 400 that names the field."""
    fields = json_object(body)
    model = fields.get("model")
    if model is None and model_required:
        raise bad_request("model is required", "model")
    if not isinstance(model, str | None) or model == "":
        raise bad_request("model must be a string", "model")
    _check_conversation(protocol, fields)
    if protocol is Protocol.MESSAGES and model_required:
        _check_max_tokens(fields)
    stream = fields.get("stream")
    if not isinstance(stream, bool | None):
        raise bad_request("stream must be true or false", "stream")
    return ModelRequest(protocol, fields, model, bool(stream), _preferences(fields))


def json_object(body: bytes) -> dict[str, Any]:
    """The object that a body is; raises ApiError 400 for any other."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"The body is not valid JSON: {error}", None) from None
    if not isinstance(fields, dict):
        raise bad_request("The body must be a JSON object.", None)
    return fields


def _check_conversation(protocol: Protocol, fields: dict[str, Any]) -> None:
    if protocol is Protocol.RESPONSES:
        given = fields.get("input")
        if given is None and fields.get("prompt") is None:
            raise bad_request("input is required", "input")
        if not isinstance(given, str | list | None):
            raise bad_request("input must be a string or an array", "input")
        if given is not None and not given:
            raise bad_request("input must not be empty", "input")
        return
    messages = fields.get("messages")
    if messages is None:
        raise bad_request("messages is required", "messages")
    if not isinstance(messages, list):
        raise bad_request("messages must be an array", "messages")
    if not messages:
        raise bad_request("messages must not be empty", "messages")


def _check_max_tokens(fields: dict[str, Any]) -> None:
    limit = fields.get("max_tokens")
    if limit is None:
        raise bad_request("max_tokens is required", "max_tokens")
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise bad_request("max_tokens must be a positive integer", "max_tokens")


def _preferences(fields: dict[str, Any]) -> list[RoutingPreference] | None:
    raw = fields.get("routing_preferences")
    if raw is None:
        return None
    try:
        return _PREFERENCES.validate_python(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        at = field_path(("routing_preferences", *first["loc"]))
        raise bad_request(f"{at}: {first['msg']}", at) from None
