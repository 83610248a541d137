"""`/admin`: what only the owner may do."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from serving.api import schemas
from serving.api.bodies import body_of
from serving.api.record import principal_of
from serving.api.relay import OrjsonResponse
from serving.engine.switch import (
    Changeable,
    ChangeImpossible,
    ChangeRefused,
    ChangeUnderWay,
)
from serving.errors import ApiError
from serving.gateway import Gateway
from serving.storage.database import DatabaseDown

routes = APIRouter()


class CheckpointChange(BaseModel):
    """The body of `POST /admin/checkpoint`."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: Annotated[Path, Field(description="Folder on the server's machine.")]


@routes.get("/admin/checkpoint")
async def current(request: Request) -> Response:
    """The checkpoint that decides."""
    require_owner(request)
    engine = _gateway(request).decider.engine
    return OrjsonResponse({"engine": engine.name, "version": engine.version})


@routes.post("/admin/checkpoint", openapi_extra=schemas.checkpoint_change())
async def change(request: Request) -> Response:
    """Load another checkpoint beside the one that decides, try it, and let it take over.

    Answers when it has: 200 with old and new version; 409 while another change is under way; 422
    with the reason for a checkpoint that is not fit, and then nothing has changed.
    """
    require_owner(request)
    gateway = _gateway(request)
    wanted = await body_of(request, gateway.limits, CheckpointChange)
    engine = gateway.decider.engine
    if not isinstance(engine, Changeable):
        raise ApiError(409, str(ChangeImpossible()))
    before = engine.version
    pools = [[pool.route for pool in router.pools] for router in gateway.routers.values()]
    try:
        version = await engine.change(wanted.checkpoint, [each for each in pools if each])
    except ChangeUnderWay as error:
        raise ApiError(409, str(error), code="change_under_way") from None
    except ChangeImpossible as error:
        raise ApiError(409, str(error)) from None
    except ChangeRefused as error:
        raise ApiError(422, str(error), param="checkpoint", code="checkpoint_refused") from None
    gateway.decider.started()
    with suppress(DatabaseDown):
        await gateway.routers.reload(retry=True)
    return OrjsonResponse({"engine": engine.name, "version": version, "previous": before})


def require_owner(request: Request) -> None:
    """Raise ApiError for anyone but an admin. The gate has asked already, wherever the path is an
    admin's; this is for handlers that must never be anyone else's."""
    if not principal_of(request.scope).is_admin:
        raise ApiError(403, "This key is no admin's.", "permission_error", code="admin_required")


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway
