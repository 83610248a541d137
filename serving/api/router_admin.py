"""`/v2/gen-ai/models/routers`: routers made, changed and rolled back while the server runs.

Paths and shapes are DigitalOcean's, with revisions beside. A change needs `If-Match`; it holds on
this server once it is answered, and on other replicas within `storage.reload_s`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from routing.tasks import Router
from serving.api import router_schemas as schemas
from serving.api.admin import require_owner
from serving.api.conditions import changed, etag, if_match, not_modified
from serving.api.record import principal_of
from serving.api.relay import OrjsonResponse
from serving.api.router_answers import (
    answer_of,
    configured_answer,
    configured_id,
    page_of,
    paged,
    preset_tasks,
    stored_answer,
)
from serving.errors import ApiError, bad_request, field_path, validation_lines
from serving.gateway import Gateway
from serving.requests import json_object, read_body
from serving.router_registry import RouterRegistry
from serving.router_store import Changed, NameTaken, NotStored, RouterStore, StoredRouter
from serving.routers import RouterRefused
from serving.storage.database import DatabaseDown

ROUTERS = "/v2/gen-ai/models/routers"
MAX_TASKS = 256
MAX_PROBLEMS = 10
"""Of a definition that is refused, so many problems are told at once."""

routes = APIRouter()


@routes.get(ROUTERS, openapi_extra=schemas.listing("Routers, those of the file first."))
async def list_routers(request: Request) -> Response:
    """Routers of the configuration file and stored ones."""
    registry = _registry(request)
    page, size = page_of(request)
    configured = [configured_answer(router) for router in registry.configured.values()]
    offset = (page - 1) * size
    items, total = configured[offset : offset + size], len(configured)
    if registry.store is not None:
        with _told(registry):
            start = max(0, offset - len(configured))
            stored, count = await registry.store.page(start, size - len(items))
        items += [answer_of(registry, router) for router in stored]
        total += count
    return OrjsonResponse(paged(request, "model_routers", items, page, size, total))


@routes.post(ROUTERS, openapi_extra=schemas.definition("The router, at its first revision."))
async def create_router(request: Request) -> Response:
    """Store a router; `router:<name>` can be asked at once."""
    registry = _registry(request)
    definition = await _definition(request, registry)
    with _told(registry, definition.name) as store:
        stored = await store.create(definition, _author(request))
    return await _changed(registry, stored)


@routes.get(
    f"{ROUTERS}/tasks/presets", openapi_extra=schemas.listing("Tasks, with the models for each.")
)
async def list_preset_tasks(request: Request) -> Response:
    """Preset tasks, which a policy names by `task_slug`."""
    page, size = page_of(request)
    tasks = preset_tasks(_registry(request).builder.presets)
    items = tasks[(page - 1) * size : page * size]
    return OrjsonResponse(paged(request, "tasks", items, page, size, len(tasks)))


@routes.get(f"{ROUTERS}/{{uuid}}", openapi_extra=schemas.conditional_read())
async def get_router(request: Request, uuid: str) -> Response:
    """A router at its current revision, with its ETag."""
    registry = _registry(request)
    for router in registry.configured.values():
        if str(configured_id(router.name)) == uuid:
            return OrjsonResponse({"model_router": configured_answer(router)})
    with _told(registry) as store:
        stored = await store.get(_id(uuid))
    if not_modified(request, stored.revision):
        return Response(status_code=304, headers={"etag": etag(stored.revision)})
    return _answer(registry, stored)


@routes.put(
    f"{ROUTERS}/{{uuid}}", openapi_extra=schemas.definition("The router.", conditional=True)
)
async def replace_router(request: Request, uuid: str) -> Response:
    """Replace a router's definition by a new revision; the same definition makes none."""
    registry = _registry(request)
    id = _changeable(registry, uuid)
    seen = if_match(request)
    definition = await _definition(request, registry)
    with _told(registry) as store:
        current = await store.get(id)
        if current.name != definition.name:
            raise bad_request(
                f"name: a router keeps its name, {current.name!r}: make another one", "name"
            )
        stored = await store.replace(id, definition, seen, _author(request))
    return await _changed(registry, stored)


@routes.delete(f"{ROUTERS}/{{uuid}}", openapi_extra=schemas.conditional_change("Its id."))
async def delete_router(request: Request, uuid: str) -> Response:
    """Delete a router with all its revisions; its name may be given to another."""
    registry = _registry(request)
    id = _changeable(registry, uuid)
    seen = if_match(request)
    with _told(registry) as store:
        await store.delete(id, seen)
    await _take_over(registry)
    return OrjsonResponse({"uuid": str(id)})


@routes.get(
    f"{ROUTERS}/{{uuid}}/revisions", openapi_extra=schemas.listing("Revisions, newest first.")
)
async def list_revisions(request: Request, uuid: str) -> Response:
    """A router at each of its revisions."""
    registry = _registry(request)
    page, size = page_of(request)
    with _told(registry) as store:
        found, total = await store.revisions(_id(uuid), (page - 1) * size, size)
    items = [stored_answer(each, None) for each in found]
    return OrjsonResponse(paged(request, "revisions", items, page, size, total))


@routes.get(f"{ROUTERS}/{{uuid}}/revisions/{{number}}", openapi_extra=schemas.read())
async def get_revision(request: Request, uuid: str, number: str) -> Response:
    """A router at one of its revisions; requests may name it: `router:<name>@<number>`."""
    registry = _registry(request)
    with _told(registry) as store:
        found = await store.revision(_id(uuid), _revision(number))
    return OrjsonResponse({"model_router": stored_answer(found, None)})


@routes.post(
    f"{ROUTERS}/{{uuid}}/revisions/{{number}}/restore",
    openapi_extra=schemas.conditional_change("The router, at a new revision."),
)
async def restore_revision(request: Request, uuid: str, number: str) -> Response:
    """Roll back: an older revision's definition becomes the next revision."""
    registry = _registry(request)
    id = _changeable(registry, uuid)
    seen = if_match(request)
    with _told(registry) as store:
        old = await store.revision(id, _revision(number))
        definition = _checked(registry, old.definition)
        note = f"restored from revision {old.revision}"
        stored = await store.replace(id, definition, seen, _author(request), note)
    return await _changed(registry, stored)


def _registry(request: Request) -> RouterRegistry:
    require_owner(request)
    gateway: Gateway = request.app.state.gateway
    return gateway.routers


@contextmanager
def _told(registry: RouterRegistry, name: str | None = None) -> Iterator[RouterStore]:
    """The store, whose errors become a client's. `name` is of a router to be made."""
    if registry.store is None:
        if name is None:
            raise _unknown()
        raise ApiError(
            501,
            "This server keeps no routers: its configuration has no storage.",
            code="no_storage",
        )
    if name in registry.configured:
        raise ApiError(
            409,
            f"name: the configuration file has a router {name!r}",
            param="name",
            code="router_in_file",
        )
    try:
        yield registry.store
    except NotStored:
        raise _unknown() from None
    except Changed as other:
        raise changed(other.revision) from None
    except NameTaken:
        raise ApiError(
            409, f"name: a router {name!r} exists already", param="name", code="router_exists"
        ) from None


async def _definition(request: Request, registry: RouterRegistry) -> Router:
    gateway: Gateway = request.app.state.gateway
    return _checked(registry, json_object(await read_body(request, gateway.limits)))


def _checked(registry: RouterRegistry, definition: dict[str, object]) -> Router:
    """The definition as a router that this server can serve; raises ApiError 400 that names each
    field at fault and why."""
    try:
        router = Router.model_validate(definition)
    except ValidationError as error:
        lines = validation_lines(error)[:MAX_PROBLEMS]
        raise bad_request("; ".join(lines), field_path(error.errors()[0]["loc"]) or None) from None
    if len(router.policies) > MAX_TASKS:
        raise bad_request(f"policies: at most {MAX_TASKS} tasks", "policies")
    try:
        registry.builder.build(router)
    except RouterRefused as refused:
        raise bad_request(str(refused), refused.field) from None
    return router


async def _changed(registry: RouterRegistry, stored: StoredRouter) -> Response:
    await _take_over(registry)
    return _answer(registry, stored)


async def _take_over(registry: RouterRegistry) -> None:
    with suppress(DatabaseDown):  # stored it is; it is taken over once the database answers
        await registry.reload()


def _answer(registry: RouterRegistry, stored: StoredRouter) -> Response:
    body = {"model_router": answer_of(registry, stored)}
    return OrjsonResponse(body, headers={"etag": etag(stored.revision)})


def _changeable(registry: RouterRegistry, uuid: str) -> UUID:
    id = _id(uuid)
    for name in registry.configured:
        if configured_id(name) == id:
            raise ApiError(
                409,
                f"The router {name!r} is in the configuration file: change it there.",
                code="router_in_file",
            )
    return id


def _id(uuid: str) -> UUID:
    try:
        return UUID(uuid)
    except ValueError:
        raise _unknown() from None


def _revision(number: str) -> int:
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise _unknown()
    return int(number)


def _unknown() -> ApiError:
    return ApiError(404, "There is no such router, or no such revision.", code="router_not_found")


def _author(request: Request) -> str:
    """Whose key changes a router; for the revision."""
    return principal_of(request.scope).name
