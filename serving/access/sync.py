"""Keeps what is in memory and what is in the database alike, off the path of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from serving.storage.database import DatabaseDown

MIN_GAP_S = 0.2
"""Between two looks, however often somebody asks for one: keys that nobody has made must not make
work for the database."""
CATCH_UP_S = 2.0
"""A request waits no longer for a look."""

log = structlog.get_logger("pointsman")


class Sync:
    """Calls `look` every so many seconds between `start` and `close`, and when asked to.

    A failure changes nothing and is logged by its type alone; the database itself tells when it is
    down.
    """

    def __init__(self, look: Callable[[], Awaitable[None]], every_s: float) -> None:
        self._look = look
        self._every = every_s
        self._begun = 0
        self._ended = asyncio.Condition()
        self._last = 0
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once, for a few seconds at most, then in the background; needs a running loop."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            await self.caught_up()

    async def close(self) -> None:
        """Stop; safe to call twice."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def caught_up(self) -> None:
        """Return after a look that began later than this call, or when that takes too long."""
        if self._task is None:
            return
        wanted = self._begun + 1
        self._wanted.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_S), self._ended:
                await self._ended.wait_for(lambda: self._last >= wanted)

    async def once(self) -> None:
        """Look now."""
        self._wanted.clear()
        self._begun += 1
        number = self._begun
        try:
            await self._look()
        except DatabaseDown:
            pass
        except Exception as error:
            log.error("access_sync_failed", error=type(error).__name__)
        self._last = number
        async with self._ended:
            self._ended.notify_all()

    async def _run(self) -> None:
        while True:
            await self.once()
            await asyncio.sleep(min(MIN_GAP_S, self._every))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._wanted.wait()
