"""An engine in another process of this server, asked over a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from routing.conversation import Conversation
from routing.decision import Decision
from routing.errors import ContractError
from routing.tasks import Route
from serving.engine.base import Engine, EngineBusy, EngineError, EngineFacts, EngineMetrics
from serving.engine.switch import REFUSALS, ChangeRefused
from serving.workers.channel import CallFailed, Channel, ChannelClosed, connect
from serving.workers.wire import read_decision, write_conversation, write_routes

RECONNECT_S = 0.1
GONE = "the engine's process is not running"

log = structlog.get_logger("pointsman")


class RemoteEngine:
    """Decides by asking the engine's process; while that is away, decisions fail at once.

    `unloaded` makes, of a checkpoint's folder or of None for the configured one, what checks routes
    here: an engine that is never started.
    """

    def __init__(self, socket: Path, unloaded: Callable[[Path | None], Engine]) -> None:
        self._socket = socket
        self._unloaded = unloaded
        self._checks = unloaded(None)
        self._channel: Channel | None = None
        self._state: dict[str, Any] = {}
        self._checkpoint: str | None = None
        self._was_there = False
        self._started = asyncio.Event()
        self._staying: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self._checks.name

    @property
    def version(self) -> str:
        return str(self._state.get("version") or self._checks.version)

    def facts(self) -> EngineFacts:
        return replace(self._checks.facts(), version=self.version)

    def check_routes(self, routes: Sequence[Route]) -> None:
        self._checks.check_routes(routes)

    async def start(self) -> None:
        """Returns when the engine's process has loaded it; until then `trouble` says why not."""
        if self._staying is None:
            self._staying = asyncio.create_task(self._stay_connected())
        await self._started.wait()

    async def decide(self, routes: Sequence[Route], conversation: Conversation) -> Decision:
        """The decision at the last user turn; raises EngineBusy or EngineError."""
        asked = [write_routes(routes), write_conversation(conversation)]
        try:
            return read_decision(await self._ask("decide", asked))
        except CallFailed as failure:
            if failure.kind == EngineBusy.__name__:
                raise EngineBusy(str(failure)) from None
            raise EngineError(f"{failure.kind} in the engine's process") from None

    def trouble(self) -> str | None:
        if self._channel is None:
            return GONE if self._was_there else "loading"
        trouble = self._state.get("trouble")
        if trouble is None and not self._state.get("started"):
            return "loading"
        return None if trouble is None else str(trouble)

    def metrics(self) -> EngineMetrics:
        """Nothing: the engine's process tells its own."""
        return EngineMetrics()

    async def change(self, checkpoint: Path, routers: Sequence[Sequence[Route]]) -> str:
        """As of SwitchableEngine, for all workers at once."""
        asked = [str(checkpoint), [write_routes(routes) for routes in routers]]
        try:
            return str(await self._ask("change", asked))
        except CallFailed as failure:
            raise REFUSALS.get(failure.kind, ChangeRefused)(str(failure)) from None

    async def close(self) -> None:
        staying, self._staying = self._staying, None
        if staying is not None:
            staying.cancel()
            await asyncio.gather(staying, return_exceptions=True)

    async def _ask(self, name: str, value: Any) -> Any:
        channel = self._channel
        if channel is None:
            raise EngineError(GONE)
        try:
            return await channel.ask(name, value)
        except ChannelClosed:
            raise EngineError(GONE) from None

    async def _stay_connected(self) -> None:
        while True:
            try:
                channel = await connect(self._socket, self._told)
            except OSError:
                await asyncio.sleep(RECONNECT_S)
                continue
            self._state = {}
            self._channel = channel
            self._was_there = True
            try:
                await channel.run()
            finally:
                self._channel = None
            log.error("engine_gone")

    async def _told(self, name: str, value: Any) -> None:
        assert name == "state", name
        if value["checkpoint"] != self._checkpoint:
            folder = Path(value["checkpoint"]) if value["checkpoint"] else None
            try:
                self._checks = await asyncio.to_thread(self._unloaded, folder)
            except ContractError as error:  # it decides all the same
                log.error("checkpoint_unreadable", error=str(error))
            self._checkpoint = value["checkpoint"]
        self._state = value
        if value["started"]:
            self._started.set()
