"""`/admin/keys`: API keys. `GET /v1/key`: what a caller may know of its own."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from serving.access.access import Access
from serving.access.key_store import KeyRevoked, KeyStore, Made, NoSuchKey
from serving.access.keys import PREFIX, ApiKey
from serving.access.principal import (
    MOST_A_MINUTE,
    MOST_DOLLARS,
    KeyLimits,
    Principal,
    Role,
)
from serving.api import schemas
from serving.api.admin import require_owner
from serving.api.bodies import body_of
from serving.api.record import principal_of
from serving.api.relay import OrjsonResponse
from serving.errors import ApiError, bad_request

PAGE, MAX_PAGE = 100, 1000
DAY_S = 86_400
MAX_GRACE_S = 90 * DAY_S

routes = APIRouter()

Name = Annotated[str, Field(min_length=1, max_length=255)]
Tenant = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
PerMinute = Annotated[int, Field(ge=1, le=MOST_A_MINUTE)]
Dollars = Annotated[float, Field(ge=0, le=MOST_DOLLARS, allow_inf_nan=False)]
UnixTime = Annotated[int, Field(ge=0, le=2**53)]


class KeyChange(BaseModel):
    """The body of `PATCH /admin/keys/{id}`: what is left out stays, null takes a limit away."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name | None = None
    role: Annotated[Role | None, Field(strict=False)] = None
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    monthly_budget: Annotated[Dollars | None, Field(description="US dollars.")] = None
    expires_at: Annotated[UnixTime | None, Field(description="Seconds since 1970.")] = None


class NewKey(KeyChange):
    """The body of `POST /admin/keys`."""

    name: Name
    tenant: Annotated[
        Tenant | None, Field(description="Keys of one tenant share what is theirs.")
    ] = None


class Rotation(BaseModel):
    """The body of `POST /admin/keys/{id}/rotate`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    grace_s: Annotated[
        int, Field(ge=0, le=MAX_GRACE_S, description="Seconds for which the old key still holds.")
    ] = DAY_S


@routes.post("/admin/keys", openapi_extra=schemas.of_body(NewKey, "The key, shown this once."))
async def create(request: Request) -> Response:
    """Make a key."""
    require_owner(request)
    store = _store(request)
    wanted = await body_of(request, request.app.state.gateway.limits, NewKey)
    made = await store.create(
        wanted.name,
        role=wanted.role or Role.CALLER,
        tenant=wanted.tenant,
        limits=KeyLimits(
            wanted.requests_per_minute, wanted.tokens_per_minute, wanted.monthly_budget
        ),
        expires_at=wanted.expires_at,
    )
    await _access(request).caught_up()
    return OrjsonResponse(_shown_once(made), 201)


@routes.get("/admin/keys")
async def page(request: Request, limit: int = PAGE, after: str | None = None) -> Response:
    """Keys in the order they were made, revoked ones too; `after` is the last id of a page."""
    require_owner(request)
    store = _store(request)
    if not 1 <= limit <= MAX_PAGE:
        raise bad_request(f"limit must be from 1 to {MAX_PAGE}", "limit")
    try:
        found = await store.page(limit + 1, after)
    except NoSuchKey:
        raise bad_request("after must be the id of a key", "after") from None
    shown = [_described(key) for key in found[:limit]]
    return OrjsonResponse(
        {
            "object": "list",
            "data": shown,
            "has_more": len(found) > limit,
            "last_id": shown[-1]["id"] if shown else None,
        }
    )


@routes.get("/admin/keys/{identifier}")
async def retrieve(request: Request, identifier: str) -> Response:
    """One key, with what it has spent this month."""
    require_owner(request)
    try:
        key = await _store(request).get(identifier)
    except NoSuchKey:
        raise _unknown() from None
    usage = await _usage(request, key.principal())
    return OrjsonResponse({**_described(key), "usage": usage})


@routes.patch(
    "/admin/keys/{identifier}", openapi_extra=schemas.of_body(KeyChange, "The key as it now is.")
)
async def change(request: Request, identifier: str) -> Response:
    """Change a key's name, role, limits or end."""
    require_owner(request)
    store = _store(request)
    wanted = await body_of(request, request.app.state.gateway.limits, KeyChange)
    values = wanted.model_dump(exclude_unset=True)
    for field in ("name", "role"):
        if field in values and values[field] is None:
            raise bad_request(f"{field} must not be null", field)
    try:
        key = await store.change(identifier, values)
    except NoSuchKey:
        raise _unknown() from None
    except KeyRevoked:
        raise _revoked() from None
    await _access(request).caught_up()
    return OrjsonResponse(_described(key))


@routes.delete("/admin/keys/{identifier}")
async def revoke(request: Request, identifier: str) -> Response:
    """Refuse a key from now on, for good."""
    require_owner(request)
    try:
        key = await _store(request).revoke(identifier)
    except NoSuchKey:
        raise _unknown() from None
    await _access(request).caught_up()
    return OrjsonResponse(_described(key))


@routes.post(
    "/admin/keys/{identifier}/rotate",
    openapi_extra=schemas.of_body(Rotation, "The key with its new secret, shown this once."),
)
async def rotate(request: Request, identifier: str) -> Response:
    """Give a key another secret; the old one holds until the grace is over."""
    require_owner(request)
    store = _store(request)
    wanted = await body_of(request, request.app.state.gateway.limits, Rotation)
    try:
        made = await store.rotate(identifier, wanted.grace_s)
    except NoSuchKey:
        raise _unknown() from None
    except KeyRevoked:
        raise _revoked() from None
    await _access(request).caught_up()
    return OrjsonResponse(_shown_once(made))


@routes.get("/v1/key")
async def own(request: Request) -> Response:
    """The key that the request bears: its limits, and what it has spent this month."""
    principal = principal_of(request.scope)
    return OrjsonResponse(
        {
            "object": "key",
            "id": principal.key_id,
            "name": principal.name,
            "tenant": principal.tenant,
            "role": principal.role.value,
            **_limits(principal.limits),
            "usage": await _usage(request, principal) if principal.key_id else None,
        }
    )


def _described(key: ApiKey) -> dict[str, Any]:
    newest = key.secrets[0] if key.secrets else None
    return {
        "object": "key",
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "role": key.role.value,
        "redacted": f"{PREFIX}…{newest.last_characters}" if newest else None,
        **_limits(key.limits),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "secrets": [
            {
                "last_characters": each.last_characters,
                "created_at": each.created_at,
                "expires_at": each.expires_at,
            }
            for each in key.secrets
        ],
    }


def _limits(limits: KeyLimits) -> dict[str, Any]:
    return {
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "monthly_budget": limits.monthly_budget,
    }


def _shown_once(made: Made) -> dict[str, Any]:
    return {**_described(made.key), "key": made.plaintext}


async def _usage(request: Request, principal: Principal) -> dict[str, Any]:
    access = _access(request)
    usage = await access.usage(principal)
    budget = principal.limits.monthly_budget
    return {
        "month": access.ledger.month,
        "dollars": usage.dollars,
        "remaining": None if budget is None else max(0.0, budget - usage.dollars),
        "requests": usage.requests,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "estimated_requests": usage.estimated,
        "unpriced_requests": usage.unpriced,
    }


def _access(request: Request) -> Access:
    access: Access = request.app.state.access
    return access


def _store(request: Request) -> KeyStore:
    store = _access(request).keys
    if store is None:
        raise ApiError(
            409,
            "This server keeps no keys: it needs storage, and with PostgreSQL a key secret.",
            code="no_key_store",
        )
    return store


def _unknown() -> ApiError:
    return ApiError(404, "There is no such key.", param="id", code="key_not_found")


def _revoked() -> ApiError:
    return ApiError(409, "The key was revoked.", param="id", code="key_revoked")
