"""The engine's process: it decides for all workers, and tells them how it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from serving.engine.base import Engine
from serving.engine.switch import Changeable, ChangeImpossible
from serving.workers.channel import Channel, ChannelClosed
from serving.workers.wire import (
    read_conversation,
    read_routes,
    write_decision,
)

WATCH_S = 0.1
"""How often the engine is asked how it is."""

log = structlog.get_logger("pointsman")


class EngineHost:
    """Serves an engine on a Unix socket.

    `checkpoint` is what the engine was changed to before, `changed` is told of the next. The other
    side is asked `state` with what changed: `version`, `checkpoint` (a folder, once it
    was changed), `started`, and `trouble`.
    """

    def __init__(
        self, engine: Engine, checkpoint: str | None, changed: Callable[[str], Awaitable[Any]]
    ) -> None:
        self.engine = engine
        self.checkpoint = checkpoint
        self._changed = changed
        self._started = False
        self._failure: str | None = None
        self._channels: set[Channel] = set()
        self._told: dict[str, Any] = {}

    async def run(self, socket: Path) -> None:
        """Load the engine and serve it until cancelled."""
        server = await asyncio.start_unix_server(self._serve, socket)
        loading = asyncio.ensure_future(self._load())
        try:
            while True:
                state = self.state()
                if state != self._told:
                    self._told = state
                    await asyncio.gather(*(self._tell(c) for c in tuple(self._channels)))
                await asyncio.sleep(WATCH_S)
        finally:
            loading.cancel()
            server.close()
            for channel in tuple(self._channels):
                channel.close()
            await self.engine.close()

    def state(self) -> dict[str, Any]:
        """How the engine is."""
        return {
            "version": self.engine.version,
            "checkpoint": self.checkpoint,
            "started": self._started,
            "trouble": self.engine.trouble() if self._started else self._failure,
        }

    async def _load(self) -> None:
        try:
            await self.engine.start()
        except Exception as error:
            self._failure = "failed to start"
            told = f"{type(error).__name__}: {error}"
            log.error("engine_failed_to_start", engine=self.engine.name, error=told)
        else:
            self._started = True
            log.info("engine_ready", engine=self.engine.name, version=self.engine.version)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = Channel(reader, writer, self._answer)
        self._channels.add(channel)
        telling = asyncio.ensure_future(self._tell(channel))
        try:
            await channel.run()
        finally:
            telling.cancel()
            self._channels.discard(channel)

    async def _tell(self, channel: Channel) -> None:
        with suppress(ChannelClosed):
            await channel.ask("state", self.state())

    async def _answer(self, name: str, value: Any) -> Any:
        if name == "decide":
            routes, conversation = value
            return write_decision(
                await self.engine.decide(read_routes(routes), read_conversation(conversation))
            )
        assert name == "change", name
        if not isinstance(self.engine, Changeable):
            raise ChangeImpossible
        checkpoint, routers = value
        version = await self.engine.change(Path(checkpoint), [read_routes(r) for r in routers])
        self.checkpoint, self._started, self._failure = checkpoint, True, None
        await self._changed(checkpoint)
        return version
