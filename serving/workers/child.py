"""A process under the supervisor: a worker, or the engine's.

    python -m serving.workers.child

reads what to be from standard input, a pickled `Child`, which only the supervisor writes.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from prometheus_client.registry import Collector

from routing.errors import ContractError
from serving import logs
from serving.app import create_app
from serving.errors import ConfigError
from serving.metrics import EngineCollector
from serving.run import run_loop
from serving.stopping import StopSignals
from serving.worker import serve_application, settle_memory
from serving.workers.channel import Channel, ChannelClosed, connect
from serving.workers.engine_host import EngineHost
from serving.workers.remote_engine import RemoteEngine
from serving.workers.spec import CONTROL_SOCKET, ENGINE_SOCKET, Child
from serving.workers.totals import told

TELL_S = 1.0
"""How often counts are told unasked: more than so old they are not when a process is killed."""
REFUSED = 3
"""Exit status of a process that has told why it cannot serve this configuration."""


class Control:
    """The connection to the supervisor."""

    def __init__(self) -> None:
        self._channel: Channel | None = None
        self._workers = [0, 0]
        self.collector: Collector | None = None
        """What is told of this process."""

    async def connect(self, child: Child, ended: Callable[[], None]) -> None:
        """`ended` is called when the supervisor is gone, or wants this process to be."""
        # Until the supervisor tells otherwise, this process may be the first that serves.
        self._workers = [0, child.config.listen.workers]
        channel = self._channel = await connect(child.folder / CONTROL_SOCKET, self._answer)
        running = asyncio.ensure_future(channel.run())
        running.add_done_callback(lambda _: ended())
        await self.tell("hello", [child.name, os.getpid()])

    async def tell(self, name: str, value: Any = None) -> Any:
        """Tell the supervisor, and return what it says; None if it is gone."""
        assert self._channel is not None, "connect() comes first"
        with suppress(ChannelClosed):
            return await self._channel.ask(name, value)

    async def keep_telling(self) -> None:
        """Tell counts every so often, until cancelled."""
        while True:
            await asyncio.sleep(TELL_S)
            await self.tell_counts()

    async def tell_counts(self) -> None:
        await self.tell("counts", self._counts())

    async def scrape(self) -> bytes:
        """The metrics of all processes in Prometheus' text form."""
        text = await self.tell("metrics")
        return b"" if text is None else str(text).encode()

    def missing_workers(self) -> str | None:
        """How many workers serve, if some do not."""
        serving, wanted = self._workers
        return None if serving >= wanted else f"{serving} of {wanted}"

    def _counts(self) -> list[Any]:
        return [] if self.collector is None else told(self.collector.collect())

    async def _answer(self, name: str, value: Any) -> Any:
        if name == "counts":
            return self._counts()
        assert name == "workers", name
        self._workers = value
        return None


async def _run(child: Child) -> None:
    stop = StopSignals()
    if child.role == "worker":
        stop.install()
    else:
        # Workers that drain need it to the end; the supervisor says when that is.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    control = Control()
    await control.connect(child, stop.stop)
    telling = asyncio.ensure_future(control.keep_telling())
    try:
        await (_work if child.role == "worker" else _host)(child, control, stop)
        await control.tell_counts()
    except (ConfigError, ContractError) as error:
        await control.tell("refused", str(error))
        sys.exit(REFUSED)
    finally:
        telling.cancel()


async def _work(child: Child, control: Control, stop: StopSignals) -> None:
    engine = RemoteEngine(child.folder / ENGINE_SOCKET, child.unloaded)
    app = create_app(child.config, engine=engine, environ=os.environ)
    control.collector = app.state.metrics
    app.state.scrape = control.scrape
    app.state.readiness.add("workers", control.missing_workers)
    settle_memory()
    serving = partial(control.tell, "serving")
    await serve_application(app, child.config.listen, child.config.drain, stop, serving)


async def _host(child: Child, control: Control, stop: StopSignals) -> None:
    host = EngineHost(child.engine(), child.checkpoint, partial(control.tell, "checkpoint"))
    control.collector = EngineCollector(host.engine)
    hosting = asyncio.ensure_future(host.run(child.folder / ENGINE_SOCKET))
    await stop.asked.wait()
    hosting.cancel()
    with suppress(asyncio.CancelledError):
        await hosting


def main() -> None:
    """Be what standard input says."""
    child: Child = pickle.load(sys.stdin.buffer)
    logs.configure(child.config.logging.level, process=child.name)
    run_loop(_run(child))


if __name__ == "__main__":
    main()
