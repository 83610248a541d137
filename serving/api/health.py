"""`GET /healthz`: the process answers. `GET /readyz`: it can route. `GET /metrics`: how it does."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serving.api.relay import OrjsonResponse
from serving.gateway import Gateway
from serving.metrics import Metrics

routes = APIRouter()


@routes.get("/healthz")
async def healthz(request: Request) -> Response:
    """Alive, and how decisions have come out since the start."""
    gateway: Gateway = request.app.state.gateway
    return OrjsonResponse({"status": "ok", "decisions": dict(gateway.decider.counts)})


@routes.get("/readyz")
async def readyz(request: Request) -> Response:
    """Ready once the engine has answered; until then 503 names the part that is not."""
    decider = request.app.state.gateway.decider
    engine = {"name": decider.engine.name, "version": decider.engine.version}
    if decider.ready:
        return OrjsonResponse({"status": "ready", "engine": engine})
    state = decider.trouble or ("failed to start" if decider.failure else "loading")
    body = {"status": "not ready", "engine": engine, "not_ready": {"engine": state}}
    return OrjsonResponse(body, 503)


@routes.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus metrics; each is described in README."""
    found: Metrics = request.app.state.metrics
    return Response(found.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
