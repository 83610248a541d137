"""The three ways to ask for an answer: Chat Completions, Responses and Anthropic's Messages.

Each takes a router, or a model's own name.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from routing.tasks import ROUTER_PREFIX
from serving.api import schemas
from serving.api.departure import watched
from serving.api.record import RequestRecord, record_of
from serving.api.relay import relayed
from serving.catalogue import Target
from serving.failover import AllFailed, Attempt
from serving.gateway import Gateway, nothing_on
from serving.needs import TAGS_HEADER, need_of, parse_tags
from serving.outgoing import Outgoing
from serving.plan import Plan
from serving.protocols.base import Protocol
from serving.requests import parse, read_body
from serving.sessions.key import AFFINITY_HEADER, parse_affinity
from serving.upstream import Answer

routes = APIRouter()


@routes.post("/v1/chat/completions", openapi_extra=schemas.completion(Protocol.CHAT))
async def chat_completions(request: Request) -> Response:
    """An answer by the model that was chosen, in OpenAI's Chat Completions."""
    return await _complete(Protocol.CHAT, request)


@routes.post("/v1/responses", openapi_extra=schemas.completion(Protocol.RESPONSES))
async def responses(request: Request) -> Response:
    """An answer by the model that was chosen, in OpenAI's Responses."""
    return await _complete(Protocol.RESPONSES, request)


@routes.post("/v1/messages", openapi_extra=schemas.completion(Protocol.MESSAGES))
async def messages(request: Request) -> Response:
    """An answer by the model that was chosen, in Anthropic's Messages."""
    return await _complete(Protocol.MESSAGES, request)


async def _complete(protocol: Protocol, request: Request) -> Response:
    gateway: Gateway = request.app.state.gateway
    record = record_of(request.scope)
    deadline = asyncio.get_running_loop().time() + gateway.limits.total_s
    asked = parse(protocol, await read_body(request, gateway.limits))
    assert asked.model is not None
    record.stream = asked.stream
    routed = asked.preferences is not None or asked.model.startswith(ROUTER_PREFIX)
    tags = parse_tags(request.headers.getlist(TAGS_HEADER))
    work: Plan | Target
    if routed:
        await gateway.prepare(asked)
        affinity = parse_affinity(request.headers.getlist(AFFINITY_HEADER))
        work = gateway.plan(asked, tags=tags, affinity=affinity, tenant=record.principal.tenant)
        record.exchange.need = work.need
    else:
        record.exchange.need = need_of(protocol, asked.fields, tags)
        work = gateway.served(asked.model, record.exchange.need)
    outgoing = Outgoing(protocol, asked.fields, stream=asked.stream, headers=request.headers)
    departure = watched(request)
    try:
        answer = await departure.unless(_answer(gateway, record, outgoing, work, deadline))
    except BaseException:
        departure.close()
        raise
    return relayed(answer, record, departure, deadline, protocol)


async def _answer(
    gateway: Gateway,
    record: RequestRecord,
    outgoing: Outgoing,
    work: Plan | Target,
    deadline: float,
) -> Answer:
    candidates = [work] if isinstance(work, Target) else await _decided(gateway, record, work)
    allowed = await gateway.spending.begin(
        record.principal, record.exchange, candidates, outgoing.protocol, record.readings
    )
    try:
        return await gateway.failover.ask(
            allowed, outgoing, record.exchange, trail=record.trail, deadline=deadline
        )
    except AllFailed as failure:
        return failure.answer()


async def _decided(gateway: Gateway, record: RequestRecord, plan: Plan) -> list[Target]:
    outcome = await gateway.decide(plan)
    record.decided(plan, outcome)
    record.ranked = ranked = gateway.ranking_for(plan, outcome)
    record.exchange.route = outcome.route
    if plan.visit is not None:
        record.exchange.ended = plan.visit.settled
    record.trail.attempts += [
        Attempt(name, reason, asked=False)
        for name, reason in gateway.passed_over(plan, outcome).items()
    ]
    candidates = gateway.candidates(plan, outcome, ranked)
    if not candidates:
        raise nothing_on()
    return candidates
