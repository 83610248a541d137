"""`/routing/v1/decisions`: what was decided, why, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from routing.tasks import NONE
from serving.api import schemas
from serving.api.bodies import body_of
from serving.api.record import principal_of
from serving.api.relay import OrjsonResponse
from serving.config import Limits
from serving.errors import ApiError, bad_request, field_path, validation_lines
from serving.records.explain import explained, summary
from serving.records.export import Selection, lines
from serving.records.feedback import say
from serving.records.query import Filters, Whole, page
from serving.records.service import Records

routes = APIRouter()
M = TypeVar("M", bound=BaseModel)


class Feedback(BaseModel):
    """The body of feedback on a decision."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    route: Annotated[str | None, Field(min_length=1)]
    """The right one of the tasks that were offered; null or `none` where no task fits."""


@routes.get("/routing/v1/decisions", openapi_extra=schemas.query(Filters))
async def listed(request: Request) -> Response:
    """Decisions, newest first, a page at a time."""
    records = _records(request)
    filters = _query(Filters, request)
    tenant = _tenant(request)
    if tenant is not None:
        filters = filters.model_copy(update={"tenant": tenant})
    async with records.database.read() as connection:
        found = await page(connection, filters)
    return OrjsonResponse(
        {
            "object": "list",
            "data": [summary(row) for row in found.rows],
            "has_more": found.next_cursor is not None,
            "next_cursor": found.next_cursor,
        }
    )


@routes.get("/routing/v1/decisions/export", openapi_extra=schemas.query(Selection))
async def export(request: Request) -> Response:
    """Conversations that were stored, one a line, as `pointsman data import-logs` reads them."""
    records = _records(request)
    selection = _query(Selection, request)
    made = lines(records.database, selection, _tenant(request))
    first = await anext(made, b"")  # before the answer begins: the database may be down

    async def all_lines() -> Any:
        yield first
        async for more in made:
            yield more

    return StreamingResponse(all_lines(), media_type="application/x-ndjson")


@routes.get("/routing/v1/decisions/{id}")
async def explanation(request: Request, id: str) -> Response:
    """One decision by its id or its trace id: among which tasks, how sure, why this model, what
    each attempt came to."""
    return OrjsonResponse(explained(await _found(request, id)))


@routes.post(
    "/routing/v1/decisions/{id}/feedback", openapi_extra=schemas.of_body(Feedback, "Done.")
)
async def feedback(request: Request, id: str) -> Response:
    """Say which task would have been right; what is said last holds, and exports are labelled by
    it."""
    limits: Limits = request.app.state.gateway.limits
    found = await _found(request, id)
    told = await body_of(request, limits, Feedback)
    offered = found.decision.get("offered")
    if not offered:
        raise bad_request("nothing was decided: the request named its model", "route")
    route = None if told.route == NONE else told.route
    if route is not None and route not in offered:
        raise bad_request(f"route must be none or one of {', '.join(offered)}", "route")
    async with _records(request).database.begin() as connection:
        key_id = principal_of(request.scope).key_id
        await say(connection, found.decision["id"], route, key_id)
    return OrjsonResponse({"id": str(UUID(found.decision["id"])), "route": route})


async def _found(request: Request, id: str) -> Whole:
    records = _records(request)
    tenant = _tenant(request)
    try:
        found = await records.find(UUID(id).hex, tenant)
    except ValueError:
        found = None
    if found is None:
        raise ApiError(404, "There is no such decision.", param="id", code="not_found")
    return found


def _records(request: Request) -> Records:
    records: Records | None = request.app.state.records
    if records is None:
        raise ApiError(404, "This server keeps no records: it has no storage.", code="records_off")
    return records


def _tenant(request: Request) -> str | None:
    """The tenant whose records alone the caller may see; None for the owner, who may see all."""
    principal = principal_of(request.scope)
    return None if principal.is_admin else principal.tenant


def _query(kind: type[M], request: Request) -> M:
    for name in request.query_params:
        if len(request.query_params.getlist(name)) > 1:
            raise bad_request(f"{name}: is given twice", name)
    return _checked(kind, dict(request.query_params))


def _checked(kind: type[M], fields: Mapping[str, Any]) -> M:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        at = field_path(error.errors()[0]["loc"])
        raise bad_request(validation_lines(error)[0], at or None) from None
