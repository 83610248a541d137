"""`POST /v1/chat/completions`: by a router, or by a model's own name."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from routing.tasks import ROUTER_PREFIX
from serving.api.record import RequestRecord, record_of
from serving.api.responses import Departure, relayed
from serving.catalogue import Target
from serving.failover import AllFailed
from serving.gateway import Gateway, Plan, nothing_on
from serving.requests import ChatRequest, parse_chat, read_body
from serving.upstream import Answer

routes = APIRouter()


@routes.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    """An answer by the model that was chosen, its bytes as they come."""
    gateway: Gateway = request.app.state.gateway
    record = record_of(request.scope)
    deadline = asyncio.get_running_loop().time() + gateway.limits.total_s
    chat = parse_chat(await read_body(request, gateway.limits))
    assert chat.model is not None
    record.stream = chat.stream
    routed = chat.preferences is not None or chat.model.startswith(ROUTER_PREFIX)
    work: Plan | Target = gateway.plan(chat) if routed else gateway.served(chat.model)
    departure = Departure(request.receive)
    try:
        answer = await departure.unless(_answer(gateway, record, chat, work, deadline))
    except BaseException:
        departure.close()
        raise
    return relayed(answer, record, departure, deadline)


async def _answer(
    gateway: Gateway, record: RequestRecord, chat: ChatRequest, work: Plan | Target, deadline: float
) -> Answer:
    candidates = [work] if isinstance(work, Target) else await _decided(gateway, record, work)
    try:
        return await gateway.failover.ask(
            candidates,
            chat.forwarded,
            streamed=chat.stream,
            trail=record.trail,
            deadline=deadline,
        )
    except AllFailed as failure:
        return failure.answer()


async def _decided(gateway: Gateway, record: RequestRecord, plan: Plan) -> list[Target]:
    outcome = await gateway.decide(plan)
    record.router, record.outcome = plan.router, outcome
    candidates = gateway.candidates(plan, outcome)
    if not candidates:
        raise nothing_on()
    return candidates
