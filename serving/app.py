"""The ASGI application.

    uvicorn --factory serving.app:from_environment

serves the file that POINTSMAN_CONFIG names; `pointsman serve` does more: see `serving.run`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import structlog
from fastapi import FastAPI

from serving import logs
from serving.access.access import Access
from serving.accounts import Accounts
from serving.api import (
    admin,
    completions,
    embeddings,
    errors,
    health,
    keys,
    models,
    provider_keys,
    routing,
    schemas,
)
from serving.api.application import Application
from serving.api.record import RequestRecorder
from serving.breaker import Breakers
from serving.catalogue import Catalogue
from serving.config import DEFAULT_CONFIG, ServerConfig, load_config
from serving.decider import Decider
from serving.engine.base import Engine
from serving.engine.configured import switchable_engine
from serving.failover import Failover
from serving.gateway import Gateway
from serving.latency import Latencies
from serving.learning import Learning
from serving.metrics import Metrics
from serving.prices import PublicPrices
from serving.ranking_setup import build_ranking
from serving.routers import build_routers
from serving.storage.database import open_database
from serving.upstream import Upstreams

log = structlog.get_logger("pointsman")


def create_app(
    config: ServerConfig,
    *,
    engine: Engine | None = None,
    environ: Mapping[str, str] | None = None,
) -> FastAPI:
    """The application of a configuration.

    `engine` replaces the configured one; `environ` is where keys are looked up, `os.environ` if
    left out. Raises ConfigError, and UnsupportedCheckpoint for a checkpoint that it cannot serve.
    """
    environ = os.environ if environ is None else environ
    prices = PublicPrices(config.prices)
    catalogue = Catalogue(config, environ, prices)
    engine = engine or switchable_engine(config.engine, environ)
    routers = build_routers(config, catalogue, engine.check_routes)
    limits = config.limits
    decider = Decider(engine, limits.decision_timeout_ms, remembered=limits.remembered_decisions)
    latencies = Latencies(config.latency.half_life_s)
    ranking = build_ranking(config.latency, catalogue, prices, latencies, environ)
    upstreams = Upstreams(limits, config.failover)
    breakers = Breakers(config.breaker)
    database = open_database(config.storage, environ)
    access = Access(config, environ, database, catalogue, ranking)
    accounts = Accounts(ranking.costs.cost_of)
    Learning(ranking, latencies).listen(accounts)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        log.info("starting", providers=catalogue.providers, routers=list(routers))
        if database is not None:
            await database.start()
        await access.start()
        await upstreams.start()
        await ranking.start()
        # In the background: the process is alive, and answers from fallbacks, while it loads.
        loading = asyncio.create_task(decider.start())
        try:
            yield
        finally:
            loading.cancel()
            with suppress(asyncio.CancelledError):
                await loading
            await engine.close()
            await ranking.close()
            await upstreams.close()
            await access.close()
            if database is not None:
                await database.close()
            log.info("stopped")

    app = Application(title="Pointsman", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.gate = access.gate
    app.recorder = RequestRecorder(accounts)
    app.state.started = int(time.time())
    app.state.gateway = Gateway(
        limits=limits,
        catalogue=catalogue,
        routers=routers,
        stand_ins=config.stand_ins,
        decider=decider,
        ranking=ranking,
        failover=Failover(upstreams, breakers),
        spending=access.spending,
    )
    app.state.metrics = Metrics(decider, accounts, breakers, ranking)
    app.state.database = database
    app.state.access = access
    for module in (completions, embeddings, routing, models, health, admin, keys, provider_keys):
        app.include_router(module.routes)
    errors.install(app)
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Add to the OpenAPI document what bodies refer to."""
    document = app.openapi()
    document.setdefault("components", {}).setdefault("schemas", {}).update(schemas.components())


def from_environment() -> FastAPI:
    """The application of POINTSMAN_CONFIG, for servers that take a factory."""
    logs.configure()
    return create_app(load_config(os.environ.get("POINTSMAN_CONFIG", DEFAULT_CONFIG)))
