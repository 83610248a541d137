"""Keeps worker processes and the engine's alive, adds up their metrics, and ends them in order."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from prometheus_client.exposition import generate_latest

from serving.config import ServerConfig
from serving.engine.base import EngineFactory
from serving.errors import ConfigError
from serving.process_metrics import restarts
from serving.stopping import LAST_WORDS_S, StopSignals, ends
from serving.workers.channel import CallFailed, Channel, ChannelClosed
from serving.workers.spec import CONTROL_SOCKET, Child, Role
from serving.workers.totals import Totals, told

FIRST_RESTART_S, LAST_RESTART_S = 0.2, 30.0
STEADY_S = 60.0
"""A process that has lived so long is restarted without delay when it dies."""
SCRAPE_S = 0.5
"""A process that does not tell its metrics in this time is counted as of when it last did."""
ENGINE_STOP_S = 15.0
OWN = "supervisor"

log = structlog.get_logger("pointsman")


@dataclass(eq=False, slots=True)
class _Running:
    """A process."""

    child: Child
    process: asyncio.subprocess.Process
    channel: Channel | None = None
    serving: bool = False

    @property
    def key(self) -> str:
        return f"{self.child.name} {self.process.pid}"


class Supervisor:
    """As many workers as the configuration says, with `environ`, around one engine."""

    def __init__(
        self,
        config: ServerConfig,
        environ: Mapping[str, str],
        make_engine: EngineFactory | None,
    ) -> None:
        self._config = config
        self._environ = dict(environ)
        self._make_engine = make_engine
        self._folder = Path()
        self._running: dict[int, _Running] = {}
        self._totals = Totals()
        self._restarts: Counter[str] = Counter()
        self._checkpoint: str | None = None
        self._has_served = False
        self._stopping = asyncio.Event()
        self._refusal: str | None = None
        self._refused = asyncio.Event()

    async def run(self, stop: StopSignals) -> None:
        """Serve until told to stop; raises ConfigError if no worker could begin to."""
        with tempfile.TemporaryDirectory(prefix="pointsman-") as name:
            self._folder = Path(name)  # only this user may enter
            server = await asyncio.start_unix_server(self._attend, self._folder / CONTROL_SOCKET)
            engine = asyncio.ensure_future(self._keep("engine", "engine"))
            names = [f"worker-{n + 1}" for n in range(self._config.listen.workers)]
            workers = [asyncio.ensure_future(self._keep("worker", n)) for n in names]
            try:
                await ends(asyncio.ensure_future(self._refused.wait()), None, stop.asked)
            finally:
                self._stopping.set()
                await self._end_workers(workers, stop)
                await self._end_engine(engine)
                server.close()
        if self._refusal is not None:
            raise ConfigError(self._refusal)

    async def _keep(self, role: Role, name: str) -> None:
        wait = FIRST_RESTART_S
        while not self._stopping.is_set():
            began = time.monotonic()
            running = await self._start(role, name)
            code = await running.process.wait()
            await self._left(running)
            if self._stopping.is_set():
                return
            log.error("process_died", process_name=name, exit_code=code)
            if role == "worker" and not self._has_served:
                self._refuse(f"{name} ended (exit status {code}) before it served")
                return
            self._restarts[role] += 1
            wait = FIRST_RESTART_S if time.monotonic() - began > STEADY_S else wait
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)
            wait = min(2 * wait, LAST_RESTART_S)

    async def _start(self, role: Role, name: str) -> _Running:
        child = Child(role, name, self._folder, self._config, self._make_engine, self._checkpoint)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "serving.workers.child"),
            stdin=asyncio.subprocess.PIPE,
            stdout=sys.stderr.fileno(),
            env=self._environ,
            # Ctrl-C reaches the supervisor alone.
            start_new_session=True,
        )
        log.info("process_started", process_name=name, pid=process.pid)
        running = self._running[process.pid] = _Running(child, process)
        assert process.stdin is not None
        with suppress(OSError):  # it died at once
            process.stdin.write(pickle.dumps(child))
            await process.stdin.drain()
        process.stdin.close()
        if self._stopping.is_set():  # since it was asked for
            process.kill()
        return running

    async def _left(self, running: _Running) -> None:
        del self._running[running.process.pid]
        self._totals.gone(running.key)
        # Its session is its own: what it started goes with it.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(running.process.pid, signal.SIGKILL)
        await self._tell_workers()

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller: list[_Running] = []

        async def answer(name: str, value: Any) -> Any:
            if name != "hello":
                return await self._answer(caller[0], name, value) if caller else None
            if (running := self._running.get(value[1])) is not None:
                running.channel = channel
                caller.append(running)
            return None

        channel = Channel(reader, writer, answer)
        await channel.run()

    async def _answer(self, running: _Running, name: str, value: Any) -> Any:
        if name == "counts":
            self._totals.put(running.key, value)
        elif name == "serving":
            running.serving = self._has_served = True
            await self._tell_workers()
        elif name == "metrics":
            return await self._metrics()
        elif name == "checkpoint":
            self._checkpoint = value
        elif name == "refused":
            self._refuse(value)
        return None

    async def _tell_workers(self) -> None:
        serving = sum(running.serving for running in self._running.values())
        state = [serving, self._config.listen.workers]
        await asyncio.gather(
            *(self._ask(r, "workers", state) for r in self._running.values() if r.serving)
        )

    async def _metrics(self) -> str:
        async def ask(running: _Running) -> None:
            counts = await self._ask(running, "counts", None)
            if counts is not None and running.process.pid in self._running:
                self._totals.put(running.key, counts)

        await asyncio.gather(*(ask(running) for running in tuple(self._running.values())))
        self._totals.put(OWN, told([restarts(self._restarts)]))
        return generate_latest(self._totals).decode()

    async def _ask(self, running: _Running, name: str, value: Any) -> Any:
        """What it says; None if it says nothing in time."""
        if running.channel is None:
            return None
        with suppress(ChannelClosed, CallFailed, TimeoutError):
            async with asyncio.timeout(SCRAPE_S):
                return await running.channel.ask(name, value)
        return None

    def _refuse(self, why: str) -> None:
        if self._has_served:
            log.error("process_refused", why=why)
        elif self._refusal is None:
            self._refusal = why
            self._refused.set()

    async def _end_workers(
        self, keepers: Sequence[asyncio.Future[None]], stop: StopSignals
    ) -> None:
        """Let every worker drain; a second signal is passed on, and time is limited."""
        drain = self._config.drain
        limit_s = drain.delay_s + drain.timeout_s + 2 * LAST_WORDS_S
        self._signal_workers(signal.SIGTERM)
        every = asyncio.gather(*keepers, return_exceptions=True)
        if not await ends(every, limit_s, stop.hurry):
            self._signal_workers(signal.SIGTERM)
            if not await ends(every, 2 * LAST_WORDS_S):
                self._signal_workers(signal.SIGKILL)
        await every

    def _signal_workers(self, number: signal.Signals) -> None:
        for running in tuple(self._running.values()):
            if running.child.role == "worker":
                with suppress(ProcessLookupError):
                    running.process.send_signal(number)

    async def _end_engine(self, keeper: asyncio.Future[None]) -> None:
        for running in tuple(self._running.values()):
            if running.channel is not None:
                running.channel.close()  # which ends it, in its own time
            else:
                running.process.kill()
        if not await ends(keeper, ENGINE_STOP_S):
            for running in tuple(self._running.values()):
                running.process.kill()
        await asyncio.gather(keeper, return_exceptions=True)
