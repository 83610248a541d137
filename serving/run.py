"""Starts the server: local upstream, application, granian; prints a call that works; stops all."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import structlog
from fastapi import FastAPI
from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

from routing.tasks import ROUTER_PREFIX
from serving import logs
from serving.access.exposure import check_exposure
from serving.app import create_app
from serving.config import EngineKind, ServerConfig, load_config, with_engine
from serving.engine.base import Engine
from serving.errors import ConfigError
from serving.local_process import POLL_S, LocalUpstreamProcess, answers, free_port

GRACE_S = 15.0
"""Requests under way may take this long to end after a stop signal."""
BACKLOG = 1024
GC_NEW_OBJECTS = 20_000
"""New objects that set off a collection of the young: some hundred requests' worth."""

log = structlog.get_logger("pointsman")


class PortBusy(RuntimeError):
    """Another process listens on the port."""


def serve(
    config_path: str | Path,
    *,
    host: str | None = None,
    port: int | None = None,
    base: Path | None = None,
    checkpoint: Path | None = None,
    kind: EngineKind | None = None,
    engine: Engine | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Serve a configuration file until SIGINT or SIGTERM.

    `host`, `port`, `checkpoint` and `kind` of engine override the file's. `base` is the folder of
    the base weights, for the engine and for the local upstream, where the file gives none; `engine`
    replaces the configured one.
    Raises ConfigError, PortBusy or UnsupportedCheckpoint, each with a message for the owner, before
    anything is served.
    """
    logs.configure()
    config = with_overrides(
        load_config(config_path), host=host, port=port, base=base, checkpoint=checkpoint, kind=kind
    )
    check_port_free(config.listen.host, config.listen.port)
    environ = dict(os.environ if environ is None else environ)
    check_exposure(config, environ)
    local = _local_upstream(config, environ)
    if local is not None:
        environ[config.local_upstream.url_env] = local.base_url
    app = create_app(config, engine=engine, environ=environ)
    # What is loaded now stays; a full collection over it would stall requests again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_NEW_OBJECTS, 20, 50)
    _run(_serve(app, config, local))


def with_overrides(
    config: ServerConfig,
    *,
    host: str | None,
    port: int | None,
    base: Path | None,
    checkpoint: Path | None = None,
    kind: EngineKind | None = None,
) -> ServerConfig:
    """The configuration with what the command line gives; a port of 0 becomes a free one."""
    listen = config.listen
    address = host or listen.host
    number = listen.port if port is None else port
    update: dict[str, object] = {
        "listen": listen.model_copy(update={"host": address, "port": number or free_port(address)}),
    }
    if config.engine is not None:
        update["engine"] = with_engine(config.engine, base, checkpoint, kind)
    if base is not None and config.local_upstream.base is None:
        update["local_upstream"] = config.local_upstream.model_copy(update={"base": base})
    return config.model_copy(update=update)


def check_port_free(host: str, port: int) -> None:
    """Raise PortBusy if somebody listens there.

    Needed because granian listens with SO_REUSEPORT: a second server would share the port silently.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise PortBusy(f"cannot listen on {host}:{port}: {error.strerror}") from None
            raise PortBusy(
                f"port {port} on {host} is in use; choose another, as in: make serve PORT=8081"
            ) from None


def make_server(app: FastAPI, host: str, port: int) -> Server:
    """A granian server on the running event loop: one process, so one engine."""
    return Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        websockets=False,
        backlog=BACKLOG,
        log_level=LogLevels.error,
    )


def reachable_url(config: ServerConfig) -> str:
    """Where a client on this machine finds the server."""
    host = config.listen.host
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{config.listen.port}"


def curl_example(config: ServerConfig, router: str) -> str:
    """A command line that asks a router for an answer."""
    body = {
        "model": f"{ROUTER_PREFIX}{router}",
        "messages": [{"role": "user", "content": "Write a function that reverses a string."}],
    }
    return (
        f"curl -i {reachable_url(config)}/v1/chat/completions"
        f" -H 'content-type: application/json' -d {shlex.quote(json.dumps(body))}"
    )


def _local_upstream(
    config: ServerConfig, environ: Mapping[str, str]
) -> LocalUpstreamProcess | None:
    section = config.local_upstream
    if not section.enabled or environ.get(section.url_env):
        return None  # the owner runs one elsewhere
    if section.base is None:
        raise ConfigError("local_upstream.base: no folder of base weights was given")
    return LocalUpstreamProcess(section.base, section.port)


@dataclass(frozen=True, slots=True)
class _Running:
    server: Server
    task: asyncio.Task[None]
    stopping: asyncio.Event


async def _serve(app: FastAPI, config: ServerConfig, local: LocalUpstreamProcess | None) -> None:
    server = make_server(app, config.listen.host, config.listen.port)
    running = _Running(server, asyncio.create_task(server.serve()), asyncio.Event())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.stopping.set)
    supervisor: asyncio.Task[None] | None = None
    try:
        if local is not None:
            local.start()
        stop = asyncio.create_task(running.stopping.wait())
        ready = asyncio.create_task(_announce(app, config, local))
        await asyncio.wait({ready, stop, running.task}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
            if local is not None:
                supervisor = asyncio.create_task(local.supervise())
            await asyncio.wait({stop, running.task}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        stop.cancel()
    finally:
        if supervisor is not None:
            supervisor.cancel()
        await _stop(running)
        if local is not None:
            local.stop()


async def _announce(app: FastAPI, config: ServerConfig, local: LocalUpstreamProcess | None) -> None:
    """Wait until everything answers, then say how to call it."""
    gateway = app.state.gateway
    if local is not None:
        await local.wait_until_ready()
    url = reachable_url(config)
    async with aiohttp.ClientSession() as session:
        while not await answers(session, f"{url}/readyz"):
            if gateway.decider.failure:
                print(  # for the person at the terminal; the log has it too
                    f"The routing model did not start: {gateway.decider.failure}\n"
                    "Requests go to the routers' fallback models.",
                    file=sys.stderr,
                )
                break
            await asyncio.sleep(POLL_S)
    if gateway.routers:
        print(
            f"\nServing on {url}. Try:\n\n{curl_example(config, next(iter(gateway.routers)))}\n",
            flush=True,
        )


async def _stop(running: _Running) -> None:
    """Let requests under way end, within a limit; a second signal cuts it short."""
    running.stopping.clear()
    running.server.stop()
    again = asyncio.create_task(running.stopping.wait())
    done, _ = await asyncio.wait(
        {running.task, again}, timeout=GRACE_S, return_when=asyncio.FIRST_COMPLETED
    )
    again.cancel()
    if running.task not in done:
        log.warning("stopped_with_requests_under_way")
        running.task.cancel()
    with suppress(asyncio.CancelledError):
        await running.task


def _run(main: object) -> None:
    try:
        import uvloop
    except ImportError:  # not on every platform
        asyncio.run(main)  # type: ignore[arg-type]
    else:
        uvloop.run(main)  # type: ignore[arg-type]
