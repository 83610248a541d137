"""What is fetched again and again in the background, and whose last good state is kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

log = structlog.get_logger("pointsman")


class Refresher:
    """Calls `fetch` at once and then every `every_s` seconds, between `start` and `close`.

    `fetch` takes over what it fetched, or raises and changes nothing. A failure is logged by its
    type alone: a message may hold what was fetched, or an address with a secret.
    """

    def __init__(
        self,
        name: str,
        fetch: Callable[[], Awaitable[None]],
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._fetch = fetch
        self._every = every_s
        self._clock = clock
        self._fetched: float | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def age_seconds(self) -> float | None:
        """Since the last fetch that succeeded; None before the first."""
        return None if self._fetched is None else self._clock() - self._fetched

    async def start(self) -> None:
        """Begin; needs a running loop."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop; safe to call twice."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def refresh(self) -> bool:
        """Fetch once, now; whether it succeeded."""
        try:
            await self._fetch()
        except Exception as error:
            age = self.age_seconds
            log.warning(
                "refresh_failed",
                what=self._name,
                error=type(error).__name__,
                age_s=None if age is None else round(age),
            )
            return False
        self._fetched = self._clock()
        return True

    async def _run(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(self._every)
