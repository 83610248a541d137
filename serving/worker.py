"""Serves an application in this process until it is told to stop, and then drains it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
from fastapi import FastAPI
from granian.server.embed import Server

from serving.api.departure import Drain
from serving.config_listen import DrainConfig, Listen
from serving.listening import make_server
from serving.stopping import LAST_WORDS_S, StopSignals, ends

GC_NEW_OBJECTS = 20_000
"""New objects that set off a collection of the young: some hundred requests' worth."""

log = structlog.get_logger("pointsman")


def settle_memory() -> None:
    """Call it once the application is made: what is loaded now stays, and a full collection over
    it would stall requests again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_NEW_OBJECTS, 20, 50)


async def serve_application(
    app: FastAPI,
    listen: Listen,
    drain: DrainConfig,
    stop: StopSignals,
    serving: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Returns when the server was told to stop and its requests have ended, one way or another.

    `serving` is called once requests are taken.
    The application's lifespan is left in any case: what is to be written at the end is written.
    """
    async with app.router.lifespan_context(app):
        server = make_server(app, listen.host, listen.port, lifespan=False)
        task = asyncio.ensure_future(server.serve())
        if serving is not None:
            await asyncio.sleep(0)  # the socket is bound at its first step
            await serving()
        asked = asyncio.ensure_future(stop.asked.wait())
        await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        await _drain(server, task, app.state.drain, drain, stop)


async def _drain(
    server: Server, task: asyncio.Future[None], state: Drain, limits: DrainConfig, stop: StopSignals
) -> None:
    state.stopping = True
    log.info("draining", under_way=len(state))
    if limits.delay_s:
        await ends(task, limits.delay_s, stop.hurry)
    server.stop()  # nothing new; idle connections are closed
    if not await ends(task, limits.timeout_s, stop.hurry):
        log.warning("stopped_with_requests_under_way", requests=state.stop_all())
        await asyncio.wait({task}, timeout=LAST_WORDS_S)
        task.cancel()
    with suppress(asyncio.CancelledError):
        await task
