"""Every error leaves in the shape of the protocol that was called, else in OpenAI's."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from serving.api.record import record_of
from serving.api.relay import OrjsonResponse
from serving.errors import ApiError, bad_request, field_path, our_fault, storage_unavailable
from serving.protocols.errors import error_body_for
from serving.requests import protocol_of
from serving.storage.database import DatabaseDown


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _parameter_error)
    app.add_exception_handler(DatabaseDown, _database_down)
    app.add_exception_handler(Exception, _fault)


async def api_error(request: Request, error: Exception) -> Response:
    """The answer for an ApiError."""
    assert isinstance(error, ApiError)
    # A body that was refused unread would be taken for the connection's next request.
    headers = {"connection": "close"} if error.status in (408, 413) else {}
    headers |= error.headers or {}
    body = error_body_for(protocol_of(request.url.path), error)
    return OrjsonResponse(body, error.status, headers)


async def _parameter_error(request: Request, error: Exception) -> Response:
    """Of a query that FastAPI reads itself."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = field_path(tuple(first["loc"][1:]))
    return await api_error(request, bad_request(f"{field}: {first['msg']}", field))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    message = {
        404: f"There is no {path!r} here.",
        405: f"{path!r} does not answer {request.method}.",
    }.get(error.status_code, "The request cannot be handled.")
    code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code)
    ours = ApiError(error.status_code, message, code=code)
    body = error_body_for(protocol_of(path), ours)
    headers = dict(error.headers) if error.headers else None
    return OrjsonResponse(body, error.status_code, headers)


async def _fault(request: Request, _: Exception) -> Response:
    """Of a handler that FastAPI calls, which raises the exception again once this is sent."""
    record_of(request.scope).fault_told = True
    return await api_error(request, our_fault())


async def _database_down(request: Request, _: Exception) -> Response:
    return await api_error(request, storage_unavailable())
