"""Time limits that cost a request next to nothing: a wheel of timers, of which few ever fire.

An event loop's own timer costs more than most waits that it would watch over. Here a timer is an
entry in the set of those that are due in the same step, and the loop has one timer for all: a
hashed timing wheel (https://www.cs.columbia.edu/~nahum/w6998/papers/sosp87-timing-wheels.pdf).
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from types import TracebackType
from typing import Any, Protocol

STEP_S = 0.02
"""Timers fire up to so much late, never early."""


class Timer(Protocol):
    """What a wheel calls."""

    def due(self) -> None:
        """The time has come; called once."""


class Wheel:
    """The timers of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, set[Timer]] = {}
        self._passed = 0
        """The last step whose timers have fired."""
        self._turning = False

    def put(self, timer: Timer, when: float) -> set[Timer]:
        """Call the timer at `when` on the loop's clock, if it then still is in the set given back.

        Whoever takes it out cancels it. The timer holds nothing that the wheel made for it, so
        that no cycle of objects is left behind.
        """
        if not self._turning:
            self._turning = True
            self._passed = int(self._loop.time() / STEP_S)
            self._loop.call_later(STEP_S, self._turn)
        step = max(int(when / STEP_S), self._passed) + 1
        slot = self._slots.get(step)
        if slot is None:
            slot = self._slots[step] = set()
        slot.add(timer)
        return slot

    def _turn(self) -> None:
        now = int(self._loop.time() / STEP_S)
        while self._passed < now:
            self._passed += 1
            slot = self._slots.pop(self._passed, None)
            while slot:
                slot.pop().due()
        if self._slots:
            self._loop.call_later(STEP_S, self._turn)
        else:
            self._turning = False


@lru_cache(maxsize=1)
def wheel_of(loop: asyncio.AbstractEventLoop) -> Wheel:
    """The wheel of an event loop; a process that serves has one."""
    return Wheel(loop)


class TimeLimit:
    """What `asyncio.timeout_at` does, on the wheel: ``with TimeLimit(when): ...``.

    Raises TimeoutError when the loop's clock has passed `when`.
    """

    __slots__ = ("_cancelling", "_expired", "_slot", "_task", "_when")

    def __init__(self, when: float) -> None:
        self._when = when
        self._expired = False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task: asyncio.Task[Any] | None = asyncio.current_task(loop)
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._slot = wheel_of(loop).put(self, self._when)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._slot.discard(self)
        # Whoever else has cancelled the task is to be heard: as in asyncio.timeout.
        if not self._expired or self._task.uncancel() > self._cancelling:
            return
        if kind is asyncio.CancelledError:
            raise TimeoutError from error

    def due(self) -> None:
        """End the wait now."""
        self._expired = True
        self._task.cancel()


def within(seconds: float, deadline: float = float("inf")) -> TimeLimit:
    """A limit of so many seconds from now, and not beyond `deadline` on the loop's clock."""
    return TimeLimit(min(asyncio.get_running_loop().time() + seconds, deadline))
