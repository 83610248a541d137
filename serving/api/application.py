"""The ASGI application: a FastAPI one, with a short way for the calls that matter.

FastAPI knows every route, for its OpenAPI document, for wrong methods and for the admin calls. A
call that asks a model goes to its handler at once: the layers between would take longer than all
that the server does for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.access.gate import Gate
from serving.api import completions, embeddings, router_schemas, routing, schemas
from serving.api.errors import api_error
from serving.api.record import RequestRecorder, record_of
from serving.api.turn_away import turn_away
from serving.errors import ApiError

Handler = Callable[[Request], Awaitable[Response]]

SHORT: Mapping[str, Handler] = {
    route.path: route.endpoint  # type: ignore[attr-defined]
    for router in (completions.routes, embeddings.routes, routing.routes)
    for route in router.routes
}
"""POST calls by path."""


class Application(FastAPI):
    """Give `recorder` and `gate` before the first request."""

    recorder: RequestRecorder | None = None
    gate: Gate

    def openapi(self) -> dict[str, Any]:
        """The document, with what bodies refer to; made when it is first asked for."""
        if self.openapi_schema is None:
            known = super().openapi().setdefault("components", {}).setdefault("schemas", {})
            known.update(schemas.components() | router_schemas.components())
        assert self.openapi_schema is not None
        return self.openapi_schema

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.recorder is not None:
            await self.recorder(scope, receive, send, self._answer)
        else:
            await super().__call__(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = record_of(scope)
        try:
            record.principal = await self.gate.admit(scope, record.readings)
        except ApiError as error:
            await turn_away(scope, receive, send, error)
            return
        handler = SHORT.get(scope["path"]) if scope["method"] == "POST" else None
        if handler is None:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        request = Request(scope, receive, send)
        try:
            response = await handler(request)
        except ApiError as error:
            response = await api_error(request, error)
        await response(scope, receive, send)
