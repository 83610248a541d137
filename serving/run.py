"""Starts the server: local upstream, then one process or several; prints a call that works; stops
all."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from serving import logs
from serving.access.exposure import check_exposure
from serving.config import EngineKind, ServerConfig, load_config, with_engine
from serving.engine.base import EngineFactory
from serving.errors import ConfigError
from serving.listening import check_port_free, curl_example, reachable_url
from serving.local_process import POLL_S, LocalUpstreamProcess, free_port
from serving.service_manager import tell_service_manager
from serving.stopping import StopSignals

log = structlog.get_logger("pointsman")

Service = Callable[[StopSignals], Awaitable[None]]
"""Serves until it is told to stop."""


def serve(
    config_path: str | Path,
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    base: Path | None = None,
    checkpoint: Path | None = None,
    kind: EngineKind | None = None,
    make_engine: EngineFactory | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Serve a configuration file until SIGINT or SIGTERM.

    `host`, `port`, `workers`, `checkpoint` and `kind` of engine override the file's. `base` is the
    folder of the base weights, for the engine and for the local upstream, where the file gives
    none; the engine that `make_engine` makes replaces the configured one, and with several workers
    must be a function of a module.
    Raises ConfigError, PortBusy or UnsupportedCheckpoint, each with a message for the owner, before
    anything is served.
    """
    config = with_overrides(
        load_config(config_path),
        host=host,
        port=port,
        workers=workers,
        base=base,
        checkpoint=checkpoint,
        kind=kind,
    )
    logs.configure(config.logging.level)
    check_port_free(config.listen.host, config.listen.port)
    environ = dict(os.environ if environ is None else environ)
    check_exposure(config, environ)
    local = _local_upstream(config, environ)
    if local is not None:
        environ[config.local_upstream.url_env] = local.base_url
    if config.listen.workers > 1:
        from serving.workers.supervisor import Supervisor

        service: Service = Supervisor(config, environ, make_engine).run
    else:
        service = _alone(config, environ, make_engine)
    run_loop(_serve(service, config, local))


def with_overrides(
    config: ServerConfig,
    *,
    host: str | None,
    port: int | None,
    base: Path | None,
    workers: int | None = None,
    checkpoint: Path | None = None,
    kind: EngineKind | None = None,
) -> ServerConfig:
    """The configuration with what the command line gives; a port of 0 becomes a free one."""
    listen = config.listen
    address = host or listen.host
    number = listen.port if port is None else port
    update: dict[str, object] = {
        "listen": type(listen)(
            host=address, port=number or free_port(address), workers=workers or listen.workers
        ),
    }
    if config.engine is not None:
        update["engine"] = with_engine(config.engine, base, checkpoint, kind)
    if base is not None and config.local_upstream.base is None:
        update["local_upstream"] = config.local_upstream.model_copy(update={"base": base})
    return config.model_copy(update=update)


def run_loop(main: Awaitable[None]) -> None:
    """Run it on an event loop of the quicker kind, where there is one."""
    try:
        import uvloop
    except ImportError:  # not on every platform
        asyncio.run(main)  # type: ignore[arg-type]
    else:
        uvloop.run(main)  # type: ignore[arg-type]


def _alone(
    config: ServerConfig, environ: Mapping[str, str], make_engine: EngineFactory | None
) -> Service:
    """Everything in this process."""
    from serving.app import create_app
    from serving.worker import serve_application, settle_memory

    app = create_app(config, engine=make_engine() if make_engine else None, environ=environ)
    settle_memory()

    async def run(stop: StopSignals) -> None:
        await serve_application(app, config.listen, config.drain, stop)

    return run


def _local_upstream(
    config: ServerConfig, environ: Mapping[str, str]
) -> LocalUpstreamProcess | None:
    section = config.local_upstream
    if not section.enabled or environ.get(section.url_env):
        return None  # the owner runs one elsewhere
    if section.base is None:
        raise ConfigError("local_upstream.base: no folder of base weights was given")
    return LocalUpstreamProcess(section.base, section.port)


async def _serve(
    service: Service, config: ServerConfig, local: LocalUpstreamProcess | None
) -> None:
    stop = StopSignals()
    stop.install()
    helpers: list[asyncio.Future[Any]] = []
    serving = asyncio.ensure_future(service(stop))
    try:
        if local is not None:
            local.start()
        ready = asyncio.ensure_future(_announce(config, local))
        helpers.append(ready)
        asked = asyncio.ensure_future(stop.asked.wait())
        helpers.append(asked)
        await asyncio.wait({ready, asked, serving}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done() and not asked.done() and not serving.done():
            ready.result()
            if local is not None:
                helpers.append(asyncio.ensure_future(local.supervise()))
            await asyncio.wait({asked, serving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        tell_service_manager("STOPPING=1")
        for helper in helpers:
            helper.cancel()
        if not stop.asked.is_set():
            stop.stop()
        try:
            await serving
        finally:
            if local is not None:
                local.stop()


async def _announce(config: ServerConfig, local: LocalUpstreamProcess | None) -> None:
    """Wait until everything answers, then say how to call it."""
    if local is not None:
        await local.wait_until_ready()
    url = reachable_url(config.listen)
    async with aiohttp.ClientSession() as session:
        while (state := await _engine_state(session, url)) != "ready":
            if state == "failed to start":
                print(  # for the person at the terminal; the log has it too
                    "The routing model did not start; the log says why.\n"
                    "Requests go to the routers' fallback models.",
                    file=sys.stderr,
                )
                break
            await asyncio.sleep(POLL_S)
    tell_service_manager("READY=1")
    routers = [*config.preset_routers, *(router.name for router in config.routers)]
    if routers:
        print(
            f"\nServing on {url}. Try:\n\n{curl_example(config.listen, routers[0])}\n", flush=True
        )


async def _engine_state(session: aiohttp.ClientSession, url: str) -> str | None:
    """What `/readyz` says of the engine; None while nobody answers."""
    limit = aiohttp.ClientTimeout(total=5)
    try:
        async with session.get(f"{url}/readyz", timeout=limit) as response:
            return str((await response.json())["parts"]["engine"])
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None
