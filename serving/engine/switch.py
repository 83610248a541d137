"""Blue and green: another checkpoint loads beside the one that decides, and takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import structlog

from routing.conversation import Conversation, Turn
from routing.decision import Decision
from routing.errors import ContractError
from routing.tasks import Route
from serving.decider import check_decision
from serving.engine.base import Engine, EngineError, EngineFacts, EngineMetrics

DRAIN_S = 30.0
"""Decisions under way on the old checkpoint may take this long before it is freed."""
SMOKE = (
    Conversation((Turn("user", "Hello, can you help me with something?", 0),)),
    Conversation(
        (
            Turn("user", "Write a function that reverses a list.", 0),
            Turn("assistant", "def reverse(items): return items[::-1]", 1),
            Turn("user", "shorter please, and explain it", 2),
        )
    ),
)
"""Conversations that a new checkpoint must decide before anybody's request meets it."""

log = structlog.get_logger("pointsman")


class ChangeRefused(Exception):
    """A checkpoint that does not take over; the message says why, and nothing has changed."""


class ChangeUnderWay(ChangeRefused):
    """One change at a time."""


class ChangeImpossible(ChangeRefused):
    """Not with this kind of engine."""

    def __init__(self, message: str = "This server's engine cannot change its checkpoint.") -> None:
        super().__init__(message)


REFUSALS = {kind.__name__: kind for kind in (ChangeRefused, ChangeUnderWay, ChangeImpossible)}


@runtime_checkable
class Changeable(Protocol):
    """An engine whose checkpoint can be changed."""

    async def change(self, checkpoint: Path, routers: Sequence[Sequence[Route]]) -> str:
        """Let `checkpoint` take over, and return its version; raises ChangeRefused."""
        ...


class _Slot:
    """An engine and the decisions that it has under way."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.under_way = 0
        self.idle = asyncio.Event()
        self.idle.set()


class SwitchableEngine:
    """An engine whose checkpoint can be changed while it decides.

    `build` makes an engine of a checkpoint folder as the first one was made.
    """

    def __init__(self, engine: Engine, build: Callable[[Path], Engine]) -> None:
        self._slot = _Slot(engine)
        self._build = build
        self._changing = False
        self._earlier = EngineMetrics()
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def current(self) -> Engine:
        """The engine that decides now."""
        return self._slot.engine

    @property
    def name(self) -> str:
        return self._slot.engine.name

    @property
    def version(self) -> str:
        return self._slot.engine.version

    def facts(self) -> EngineFacts:
        return self._slot.engine.facts()

    def check_routes(self, routes: Sequence[Route]) -> None:
        self._slot.engine.check_routes(routes)

    async def start(self) -> None:
        await self._slot.engine.start()

    async def decide(self, routes: Sequence[Route], conversation: Conversation) -> Decision:
        slot = self._slot
        slot.under_way += 1
        slot.idle.clear()
        try:
            return await slot.engine.decide(routes, conversation)
        finally:
            slot.under_way -= 1
            if slot.under_way == 0:
                slot.idle.set()

    def metrics(self) -> EngineMetrics:
        """Of the engine that decides now, with the totals of those before it."""
        return self._slot.engine.metrics().after(self._earlier)

    def trouble(self) -> str | None:
        return self._slot.engine.trouble()

    async def close(self) -> None:
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._slot.engine.close()

    async def change(self, checkpoint: Path, routers: Sequence[Sequence[Route]]) -> str:
        """Let `checkpoint` take over, and return its version.

        It is loaded beside the old one, must take the routes of all `routers` and decide the smoke
        set among each, which also warms their prefixes; then it takes over at once for all new
        decisions, and the old one is freed when its last has ended. Raises ChangeRefused with the
        reason, and then nothing has changed.
        """
        if self._changing:
            raise ChangeUnderWay("another checkpoint is being loaded")
        self._changing = True
        try:
            fresh = await self._ready(checkpoint, routers)
        finally:
            self._changing = False
        self._earlier = self.metrics()
        old, self._slot = self._slot, _Slot(fresh)
        log.info("checkpoint_changed", old=old.engine.version, new=fresh.version)
        ending = asyncio.create_task(self._end(old))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return fresh.version

    async def _ready(self, checkpoint: Path, routers: Sequence[Sequence[Route]]) -> Engine:
        try:
            fresh = await asyncio.to_thread(self._build, checkpoint)
        except ContractError as error:
            raise ChangeRefused(str(error)) from None
        try:
            for routes in routers:
                fresh.check_routes(routes)
            await fresh.start()
            for routes in routers:
                for conversation in SMOKE:
                    check_decision(await fresh.decide(routes, conversation), routes)
        except BaseException as error:
            await fresh.close()
            if isinstance(error, ContractError | EngineError):
                raise ChangeRefused(f"{checkpoint}: {error}") from None
            raise
        return fresh

    async def _end(self, old: _Slot) -> None:
        try:
            await asyncio.wait_for(old.idle.wait(), DRAIN_S)
        except TimeoutError:
            log.warning("checkpoint_drained_late", under_way=old.under_way)
        finally:
            await old.engine.close()
