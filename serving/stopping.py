"""Signals that ask the process to end."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

LAST_WORDS_S = 2.0
"""For telling the clients of streams that the server stops."""


class StopSignals:
    """The first SIGINT or SIGTERM asks for an end, the second for haste."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()

    def install(self) -> None:
        """Let the running event loop handle the signals."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)

    def stop(self) -> None:
        """Ask once, or once more."""
        (self.hurry if self.asked.is_set() else self.asked).set()


async def ends(
    task: asyncio.Future[Any], limit_s: float | None, unless: asyncio.Event | None = None
) -> bool:
    """Whether `task` ends within the limit and before the event is set; it is left running."""
    event = asyncio.ensure_future((unless or asyncio.Event()).wait())
    await asyncio.wait({task, event}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    event.cancel()
    return task.done()
