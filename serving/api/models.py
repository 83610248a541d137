"""`GET /v1/models`: the routers and the models that can be asked now."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from routing.tasks import ROUTER_PREFIX
from serving.api.relay import OrjsonResponse
from serving.errors import unknown_model
from serving.gateway import Gateway

routes = APIRouter()


@routes.get("/v1/models")
async def list_models(request: Request) -> Response:
    """OpenAI's list; routers come first."""
    return OrjsonResponse({"object": "list", "data": list(_entries(request).values())})


@routes.get("/v1/models/{name:path}")
async def retrieve_model(request: Request, name: str) -> Response:
    """One entry of the list."""
    entry = _entries(request).get(name)
    if entry is None:
        raise unknown_model(name)
    return OrjsonResponse(entry)


def _entries(request: Request) -> dict[str, dict[str, Any]]:
    gateway: Gateway = request.app.state.gateway
    owners = {f"{ROUTER_PREFIX}{name}": "pointsman" for name in gateway.routers}
    for name in gateway.models():
        owners[name] = gateway.served(name).provider.name
    created = request.app.state.started
    return {
        name: {"id": name, "object": "model", "created": created, "owned_by": owner}
        for name, owner in owners.items()
    }
