"""The ASGI application.

    uvicorn --factory serving.app:from_environment

serves the file that POINTSMAN_CONFIG names; `pointsman serve` does more: see `serving.run`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Protocol

import structlog
from fastapi import FastAPI

from serving import logs
from serving.access.access import Access
from serving.accounts import Accounts
from serving.api import (
    admin,
    completions,
    decisions,
    embeddings,
    errors,
    health,
    keys,
    models,
    provider_keys,
    router_admin,
    routing,
)
from serving.api.application import Application
from serving.api.departure import Drain
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
from serving.readiness import Readiness
from serving.records.metrics import RecordCollector
from serving.records.service import open_records
from serving.router_setup import build_registry
from serving.sessions.metrics import SessionCollector
from serving.sessions.setup import build_sessions
from serving.storage.database import open_database
from serving.tracing import open_tracing
from serving.upstream import Upstreams

ROUTES = (
    completions,
    embeddings,
    routing,
    decisions,
    models,
    health,
    admin,
    router_admin,
    keys,
    provider_keys,
)

log = structlog.get_logger("pointsman")


class Part(Protocol):
    """What lives as long as the server."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


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
    limits = config.limits
    prices = PublicPrices(config.prices)
    catalogue = Catalogue(config, environ, prices)
    engine = engine or switchable_engine(config.engine, environ)
    database = open_database(config.storage, environ)
    routers = build_registry(config, catalogue, engine, database)
    decider = Decider(engine, limits.decision_timeout_ms, remembered=limits.remembered_decisions)
    latencies = Latencies(config.latency.half_life_s)
    ranking = build_ranking(config.latency, catalogue, prices, latencies, environ)
    sessions = build_sessions(config.sessions, catalogue, ranking, environ)
    upstreams = Upstreams(limits, config.failover)
    breakers = Breakers(config.breaker)
    access = Access(config, environ, database, catalogue, ranking)
    accounts = Accounts(ranking.costs.cost_of)
    Learning(ranking, latencies).listen(accounts)
    records = open_records(config.records, database)
    tracing = open_tracing(config.tracing)

    parts: list[Part | None] = [
        database,
        access,
        routers,
        records,
        sessions.store,
        upstreams,
        ranking,
    ]

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        log.info("starting", providers=catalogue.providers, routers=list(routers))
        async with AsyncExitStack() as stack:
            for part in filter(None, parts):
                await part.start()
                stack.push_async_callback(part.close)
            if tracing is not None:
                stack.push_async_callback(tracing.close)
            stack.push_async_callback(engine.close)
            # In the background: the process is alive, and answers from fallbacks, while it loads.
            loading = asyncio.create_task(decider.start())
            try:
                yield
            finally:
                await recorder.all_ended()
                loading.cancel()
                with suppress(asyncio.CancelledError):
                    await loading
        log.info("stopped")

    drain = Drain()
    recorder = RequestRecorder(accounts, drain, tracing)
    app = Application(title="Pointsman", lifespan=lifespan, docs_url=None, redoc_url=None)
    readiness = Readiness(lambda: drain.stopping)
    readiness.add("engine", lambda: decider.state, required=True)
    if database is not None:
        readiness.add("database", lambda: None if database.ready else "does not answer")
    app.gate = access.gate
    readiness.add("sessions", lambda: None if sessions.store.up else "Redis does not answer")
    app.recorder = recorder
    recorder.listeners += [part.ended for part in (records, tracing) if part is not None]
    metrics = Metrics(decider, accounts, breakers, ranking)
    metrics.register(RecordCollector(records))
    metrics.register(SessionCollector(sessions))
    app.state.started = int(time.time())
    app.state.gateway = Gateway(
        limits=limits,
        catalogue=catalogue,
        routers=routers,
        stand_ins=config.stand_ins,
        decider=decider,
        ranking=ranking,
        failover=Failover(upstreams, breakers),
        sessions=sessions,
        spending=access.spending,
    )
    app.state.drain = drain
    app.state.readiness = readiness
    app.state.metrics = metrics
    app.state.scrape = metrics.exposition
    app.state.database = database
    app.state.records = records
    app.state.access = access
    for module in ROUTES:
        app.include_router(module.routes)
    errors.install(app)
    return app


def from_environment() -> FastAPI:
    """The application of POINTSMAN_CONFIG, for servers that take a factory."""
    config = load_config(os.environ.get("POINTSMAN_CONFIG", DEFAULT_CONFIG))
    logs.configure(config.logging.level)
    return create_app(config)
