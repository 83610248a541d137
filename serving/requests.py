"""Reading a request: its body under a size cap, and the fields that the server itself uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import Request

from routing.tasks import RoutingPreference
from serving.config import Limits
from serving.errors import ApiError, bad_request, field_path

OWN_FIELDS = ("routing_preferences",)
"""Fields that are the server's business and never forwarded."""
MAX_PREFERENCES = 256
DRAINED_BYTES = 64 * 2**20
"""Of a body that is too long, this much beyond the limit is read before the connection closes."""

_PREFERENCES = TypeAdapter(
    Annotated[list[RoutingPreference], Field(min_length=1, max_length=MAX_PREFERENCES)]
)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A Chat Completions body. `fields` is all of it; the rest is what has been checked."""

    fields: dict[str, Any]
    model: str | None
    messages: list[Any]
    stream: bool
    preferences: list[RoutingPreference] | None

    def forwarded(self, model: str) -> bytes:
        """The body for an upstream that calls the model so: all else as the client wrote it."""
        fields = {key: value for key, value in self.fields.items() if key not in OWN_FIELDS}
        try:
            return orjson.dumps(fields | {"model": model})
        except TypeError:  # orjson reads deeper nesting than it writes
            raise bad_request("The body is nested too deeply.", None) from None


async def read_body(request: Request, limits: Limits) -> bytes:
    """The whole body.

    Raises ApiError 413 for one that is longer than the limit, of which no more than that is kept,
    and 408 for a client that stops sending.
    """
    limit = limits.body_bytes
    chunks: list[bytes] = []
    size = 0
    async for chunk in _pieces(request, limits.idle_s):
        size += len(chunk)
        if size > limit + DRAINED_BYTES:
            break
        if size > limit:
            # Read on and throw away: closing on a client that still sends would reset the
            # connection, and it would never see the answer.
            chunks.clear()
        else:
            chunks.append(chunk)
    if size > limit:
        raise ApiError(
            413, f"The body exceeds {limit} bytes, the most this server reads.", code="too_large"
        )
    return b"".join(chunks)


async def _pieces(request: Request, idle_s: float) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(idle_s):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise ApiError(408, "The body did not arrive in time.", code="timeout") from None
        if chunk is None:
            return
        yield chunk


def parse_chat(body: bytes, *, model_required: bool = True) -> ChatRequest:
    """The fields of a body; raises ApiError 400 that names the field."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"The body is not valid JSON: {error}", None) from None
    if not isinstance(fields, dict):
        raise bad_request("The body must be a JSON object.", None)
    model = fields.get("model")
    if model is None and model_required:
        raise bad_request("model is required", "model")
    if not isinstance(model, str | None) or model == "":
        raise bad_request("model must be a string", "model")
    messages = fields.get("messages")
    if messages is None:
        raise bad_request("messages is required", "messages")
    if not isinstance(messages, list):
        raise bad_request("messages must be an array", "messages")
    if not messages:
        raise bad_request("messages must not be empty", "messages")
    stream = fields.get("stream")
    if not isinstance(stream, bool | None):
        raise bad_request("stream must be true or false", "stream")
    return ChatRequest(fields, model, messages, bool(stream), _preferences(fields))


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
