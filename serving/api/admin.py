"""`/admin`: what only the owner may do. With a key, or without one from this machine alone."""

from __future__ import annotations

import hmac
import ipaddress
from pathlib import Path
from typing import Annotated

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from serving.api import schemas
from serving.api.relay import OrjsonResponse
from serving.engine.switch import (
    Changeable,
    ChangeImpossible,
    ChangeRefused,
    ChangeUnderWay,
)
from serving.errors import ApiError, bad_request, validation_lines
from serving.gateway import Gateway
from serving.requests import read_body

ADMIN_KEY_ENV = "POINTSMAN_ADMIN_KEY"
"""Variable whose value callers of /admin must bear; unset, only this machine may call."""

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
    body = await read_body(request, gateway.limits)
    try:
        wanted = CheckpointChange.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not JSON: {error}", None) from None
    except ValidationError as error:
        field = error.errors()[0]["loc"]
        raise bad_request(validation_lines(error)[0], str(field[0]) if field else None) from None
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
    return OrjsonResponse({"engine": engine.name, "version": version, "previous": before})


def require_owner(request: Request) -> None:
    """Raise ApiError for anyone but the owner; keys are compared in constant time."""
    key: str | None = request.app.state.admin_key
    if key:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), key.encode()):
            raise ApiError(401, "The admin key is wrong or missing.", code="invalid_api_key")
        return
    host = request.client.host if request.client else ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = False
    if not here:
        raise ApiError(403, f"Without {ADMIN_KEY_ENV}, /admin answers on the server's machine.")


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway
