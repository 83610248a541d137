"""The local upstream as a child process: started with the server, restarted if it dies, and gone
when the server is."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import structlog

from serving.errors import ConfigError

MODULE = "serving.local_upstream"
HOST = "127.0.0.1"
STOP_S = 10.0
POLL_S = 0.2
RESTART_S = 2.0
_PR_SET_PDEATHSIG = 1

log = structlog.get_logger("pointsman")


class LocalUpstreamProcess:
    """`python -m serving.local_upstream` on a loopback port.

    Start it from the main thread: Linux ties the child's life to the thread that made it.
    """

    def __init__(self, base: Path, port: int = 0, *, module: str = MODULE) -> None:
        self._base = base
        self._module = module
        self.port = port or free_port(HOST)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        """Where it speaks the OpenAI wire format."""
        return f"http://{HOST}:{self.port}/v1"

    @property
    def pid(self) -> int | None:
        """Process id while it is meant to run."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Spawn it; it loads its weights in the background."""
        command = [sys.executable, "-m", self._module]
        self._process = subprocess.Popen(
            [*command, "--port", str(self.port), "--base", str(self._base)],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            # Ctrl-C reaches the server alone, which stops the child after the last request.
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid()),
        )

    async def wait_until_ready(self) -> None:
        """Returns when it answers; ConfigError if it exits before."""
        async with aiohttp.ClientSession() as session:
            while not await answers(session, f"http://{HOST}:{self.port}/healthz"):
                if self._process is None or self._process.poll() is not None:
                    raise ConfigError("local_upstream: the process ended before it was ready")
                await asyncio.sleep(POLL_S)

    async def supervise(self) -> None:
        """Start it again whenever it dies; runs until cancelled."""
        while True:
            await asyncio.sleep(RESTART_S)
            if self._process is not None and (code := self._process.poll()) is not None:
                log.error("local_upstream_died", exit_code=code)
                self.start()

    def stop(self) -> None:
        """Ask it to end, then make it; safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        # Its session is its own: whatever is left of it, workers too, goes with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


async def answers(session: aiohttp.ClientSession, url: str) -> bool:
    """Whether a GET yields 200."""
    with contextlib.suppress(aiohttp.ClientError, OSError):
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as response:
            return response.status == 200
    return False


if sys.platform == "linux":
    _libc = ctypes.CDLL(None, use_errno=True)

    def _die_with_parent(parent: int):  # type: ignore[no-untyped-def]
        def arrange() -> None:
            # Also when the server is killed and can clean nothing up.
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died before the call
                os._exit(1)

        return arrange

else:

    def _die_with_parent(parent: int) -> None:
        return None
