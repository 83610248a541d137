"""`GET /healthz`: the process answers. `GET /readyz`: it can route. `GET /metrics`: how it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serving.api.relay import OrjsonResponse
from serving.gateway import Gateway
from serving.readiness import Readiness

routes = APIRouter()


@routes.get("/healthz")
async def healthz(request: Request) -> Response:
    """Alive, and how decisions have come out since the start."""
    gateway: Gateway = request.app.state.gateway
    return OrjsonResponse({"status": "ok", "decisions": dict(gateway.decider.counts)})


@routes.get("/readyz")
async def readyz(request: Request) -> Response:
    """Ready once the engine has answered; until then, and while the server stops, 503.

    Every part is named with its state. One that the server can do without for a while leaves it
    "degraded", which is 200.
    """
    readiness: Readiness = request.app.state.readiness
    engine = request.app.state.gateway.decider.engine
    report = readiness.report()
    body: dict[str, Any] = {
        "status": report.status,
        "engine": {"name": engine.name, "version": engine.version},
        "parts": report.parts,
    }
    if report.missing:
        body["not_ready"] = report.missing
    return OrjsonResponse(body, 200 if report.takes_requests else 503)


@routes.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus metrics; each is described in README."""
    scrape: Callable[[], Awaitable[bytes]] = request.app.state.scrape
    return Response(await scrape(), media_type="text/plain; version=0.0.4; charset=utf-8")
