"""`/admin/providers`: which providers are on, and the stored keys of those that need one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from serving.access.access import Access
from serving.access.provider_keys import NoSuchProviderKey, ProviderKeyEntry, ProviderKeyStore
from serving.access.stored_key import StoredProviderKey
from serving.api import schemas
from serving.api.admin import require_owner
from serving.api.bodies import body_of
from serving.api.relay import OrjsonResponse
from serving.errors import ApiError
from serving.gateway import Gateway

routes = APIRouter()


class ProviderKey(BaseModel):
    """The body of `PUT /admin/providers/{name}/key`."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    key: Annotated[
        str,
        Field(
            min_length=1,
            max_length=8192,
            pattern=r"^[\x21-\x7e]+$",
            description="Printable ASCII without spaces.",
        ),
    ]


@routes.get("/admin/providers")
async def providers(request: Request) -> Response:
    """All providers; of a stored key, when and for which origin it was stored, never more."""
    require_owner(request)
    store = _access(request).provider_keys
    stored = {each.provider: each for each in await store.entries()} if store else {}
    catalogue = _gateway(request).catalogue
    on = set(catalogue.providers)
    return OrjsonResponse(
        {
            "object": "list",
            "data": [
                {
                    "object": "provider",
                    "name": name,
                    "on": name in on,
                    "origin": catalogue.origin(name),
                    "stored_key": _described(stored.get(name)),
                }
                for name in catalogue.all_providers
            ],
        }
    )


@routes.put(
    "/admin/providers/{name}/key",
    openapi_extra=schemas.of_body(ProviderKey, "When and for which origin it was stored."),
)
async def put(request: Request, name: str) -> Response:
    """Store a key for the origin of a provider's base URL; the environment's goes before it."""
    require_owner(request)
    store = _store(request)
    wanted = await body_of(request, _gateway(request).limits, ProviderKey)
    catalogue = _gateway(request).catalogue
    if name not in catalogue.all_providers:
        raise _unknown()
    origin = catalogue.origin(name)
    if origin is None:
        raise ApiError(409, "The provider has no base URL to store a key for.", code="no_base_url")
    entry = await store.put(StoredProviderKey(name, origin, wanted.key))
    await _access(request).caught_up()
    return OrjsonResponse(_described(entry))


@routes.delete("/admin/providers/{name}/key")
async def remove(request: Request, name: str) -> Response:
    """Forget a provider's stored key."""
    require_owner(request)
    try:
        await _store(request).remove(name)
    except NoSuchProviderKey:
        raise _unknown() from None
    await _access(request).caught_up()
    return OrjsonResponse({"object": "provider_key", "provider": name, "deleted": True})


def _described(entry: ProviderKeyEntry | None) -> dict[str, object] | None:
    if entry is None:
        return None
    return {
        "object": "provider_key",
        "provider": entry.provider,
        "origin": entry.origin,
        "created_at": entry.created_at,
    }


def _store(request: Request) -> ProviderKeyStore:
    store = _access(request).provider_keys
    if store is None:
        raise ApiError(
            409,
            "This server stores no provider keys: it needs storage and encryption keys.",
            code="no_provider_key_store",
        )
    return store


def _unknown() -> ApiError:
    return ApiError(404, "There is no such provider, or no stored key.", code="provider_not_found")


def _access(request: Request) -> Access:
    access: Access = request.app.state.access
    return access


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway
