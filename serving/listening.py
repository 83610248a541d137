"""The socket: whether it is free, who serves on it, and where clients find it."""

from __future__ import annotations

import errno
import json
import shlex
import socket

from fastapi import FastAPI
from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

from routing.tasks import ROUTER_PREFIX
from serving.config_listen import Listen

BACKLOG = 1024


class PortBusy(RuntimeError):
    """Another process listens on the port."""


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


def make_server(app: FastAPI, host: str, port: int, *, lifespan: bool = True) -> Server:
    """A granian server on the running event loop; without `lifespan` the caller keeps the
    application's."""
    return Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGI if lifespan else Interfaces.ASGINL,
        websockets=False,
        backlog=BACKLOG,
        log_level=LogLevels.error,
    )


def reachable_url(listen: Listen) -> str:
    """Where a client on this machine finds the server."""
    host = listen.host
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{listen.port}"


def curl_example(listen: Listen, router: str) -> str:
    """A command line that asks a router for an answer."""
    body = {
        "model": f"{ROUTER_PREFIX}{router}",
        "messages": [{"role": "user", "content": "Write a function that reverses a string."}],
    }
    return (
        f"curl -i {reachable_url(listen)}/v1/chat/completions"
        f" -H 'content-type: application/json' -d {shlex.quote(json.dumps(body))}"
    )
