"""`POST /routing/v1/…`: the decision alone, nothing is forwarded; bodies of all three protocols."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serving.api import schemas
from serving.api.departure import watched
from serving.api.record import record_of
from serving.api.relay import OrjsonResponse
from serving.gateway import Gateway
from serving.needs import TAGS_HEADER, parse_tags
from serving.protocols.base import Protocol
from serving.requests import parse, read_body
from serving.sessions.key import AFFINITY_HEADER, parse_affinity

routes = APIRouter()


@routes.post("/routing/v1/chat/completions", openapi_extra=schemas.decision(Protocol.CHAT))
async def chat_completions(request: Request) -> Response:
    """The decision about a Chat Completions body."""
    return await _decide(Protocol.CHAT, request)


@routes.post("/routing/v1/responses", openapi_extra=schemas.decision(Protocol.RESPONSES))
async def responses(request: Request) -> Response:
    """The decision about a Responses body."""
    return await _decide(Protocol.RESPONSES, request)


@routes.post("/routing/v1/messages", openapi_extra=schemas.decision(Protocol.MESSAGES))
async def messages(request: Request) -> Response:
    """The decision about a Messages body."""
    return await _decide(Protocol.MESSAGES, request)


async def _decide(protocol: Protocol, request: Request) -> Response:
    """Ranked models with the fallbacks last, the route, and how sure the router is.

    Models of a configured router that are off are left out; pools that the request brings are the
    caller's own affair and are ranked as they are. When routing fails the answer still is 200, with
    the fallbacks and a `reason`.
    """
    gateway: Gateway = request.app.state.gateway
    record = record_of(request.scope)
    asked = parse(protocol, await read_body(request, gateway.limits), model_required=False)
    tags = parse_tags(request.headers.getlist(TAGS_HEADER))
    await gateway.prepare(asked)
    affinity = parse_affinity(request.headers.getlist(AFFINITY_HEADER))
    plan = gateway.plan(
        asked, decision_only=True, tags=tags, affinity=affinity, tenant=record.principal.tenant
    )
    departure = watched(request)
    try:
        outcome = await departure.unless(gateway.decide(plan))
    finally:
        departure.close()
    record.decided(plan, outcome)
    record.ranked = ranked = gateway.ranking_for(plan, outcome)
    if plan.inline:
        models = gateway.arranged(plan, outcome, ranked)
    else:
        models = [target.name for target in gateway.candidates(plan, outcome, ranked)]
    if plan.visit is not None and models:
        gateway.sessions.advised(plan.visit, models[0])
    facts = plan.visit.facts() if plan.visit is not None else None
    decision = outcome.decision
    return OrjsonResponse(
        {
            "models": models,
            "route": outcome.route,
            "routes": decision.routes if decision else [],
            "confidence": decision.confidence if decision else None,
            "distribution": decision.distribution if decision else None,
            "router": plan.router_label,
            "reason": outcome.reason,
            "session_id": facts.session_id if facts else None,
            "pinned": facts.pinned if facts else False,
            "switched": facts.switched if facts else False,
            "trace_id": record.trace_id,
        }
    )
