"""`POST /v1/embeddings`: passed on to the model's provider as it came."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from routing.tasks import ROUTER_PREFIX
from serving.api import schemas
from serving.api.departure import watched
from serving.api.record import record_of
from serving.api.relay import relayed
from serving.errors import bad_request
from serving.failover import AllFailed
from serving.gateway import Gateway
from serving.needs import TAGS_HEADER, Need, parse_tags
from serving.outgoing import Passed
from serving.protocols.base import Protocol
from serving.requests import json_object, read_body

routes = APIRouter()
PATH = "/embeddings"


@routes.post("/v1/embeddings", openapi_extra=schemas.embeddings())
async def embeddings(request: Request) -> Response:
    """Vectors by a model's own name: two models' vectors cannot be compared, so none is chosen."""
    gateway: Gateway = request.app.state.gateway
    record = record_of(request.scope)
    deadline = asyncio.get_running_loop().time() + gateway.limits.total_s
    fields = json_object(await read_body(request, gateway.limits))
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise bad_request("model must be a string", "model")
    if model.startswith(ROUTER_PREFIX):
        raise bad_request("model must be a model's own name here: routers choose none", "model")
    if fields.get("input") is None:
        raise bad_request("input is required", "input")
    record.exchange.need = Need(tags=parse_tags(request.headers.getlist(TAGS_HEADER)))
    target = gateway.served(model, record.exchange.need)
    await gateway.spending.begin(
        record.principal, record.exchange, [target], Protocol.CHAT, record.readings
    )
    departure = watched(request)
    try:
        asking = gateway.failover.ask(
            [target], Passed(PATH, fields), record.exchange, trail=record.trail, deadline=deadline
        )
        answer = await departure.unless(asking)
    except AllFailed as failure:
        answer = failure.answer()
    except BaseException:
        departure.close()
        raise
    return relayed(answer, record, departure, deadline, Protocol.CHAT)
