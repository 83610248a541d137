"""Asks the engine, under a time limit, and never lets its failure become the request's."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import structlog

from routing.conversation import Conversation
from routing.decision import Decision
from routing.errors import InvalidScores
from routing.tasks import NONE, Route
from routing.values import value_type
from serving.engine.base import Engine, EngineBusy, EngineFacts
from serving.memo import DecisionMemo

Reason = Literal[
    "no_task_matches",
    "no_text",
    "engine_not_ready",
    "engine_busy",
    "engine_error",
    "decision_timeout",
]
"""Why a request goes to the fallbacks."""

SUM_TOLERANCE = 1e-3
MAX_ABANDONED = 64
"""Decisions that ran out of time and did not stop when told; beyond it the engine is not asked."""

log = structlog.get_logger("pointsman")


@value_type
class Outcome:
    """A decision or the reason that there is none; also a decision for "none" has a reason."""

    decision: Decision | None
    reason: Reason | None
    milliseconds: float
    remembered: bool = False
    """Whether the decision was made for an earlier request about the same turn."""
    facts: EngineFacts | None = None
    """Of the engine as it was asked."""
    kept: str | None = None
    """The task of the request's session, where the engine was not asked."""

    @property
    def route(self) -> str | None:
        return self.decision.route if self.decision else self.kept


class Decider:
    """Bounds an engine: by its readiness, by time, and by whether its answer makes sense."""

    def __init__(self, engine: Engine, timeout_ms: float, *, remembered: int = 0) -> None:
        self.engine = engine
        self.memo = DecisionMemo(remembered)
        self.counts: Counter[str] = Counter()
        """Outcomes so far: "decided" or a Reason."""
        self.observe: Callable[[float], None] = lambda milliseconds: None
        """Told how long each took."""
        self._timeout = timeout_ms / 1000
        self._ready = False
        self._failure: str | None = None
        self._abandoned: set[asyncio.Task[Decision]] = set()

    @property
    def ready(self) -> bool:
        """Whether the engine has answered once, and is not in trouble."""
        return self._ready and self.trouble is None

    @property
    def trouble(self) -> str | None:
        """What keeps an engine that had started from deciding."""
        return self.engine.trouble() if self._ready else None

    @property
    def failure(self) -> str | None:
        """Why the engine did not start, in words for the owner; None while it may yet."""
        return self._failure

    @property
    def state(self) -> str | None:
        """Why the engine cannot decide now, in words for the owner; None if it can."""
        if self._ready:
            return self.trouble
        return "failed to start" if self._failure else self.engine.trouble() or "loading"

    async def start(self) -> None:
        """Load the engine; a failure is logged and remembered, requests go to fallbacks."""
        try:
            await self.engine.start()
        except Exception as error:
            self._failure = f"{type(error).__name__}: {error}"
            log.error("engine_failed_to_start", engine=self.engine.name, error=self._failure)
        else:
            self._ready = True
            log.info("engine_ready", engine=self.engine.name, version=self.engine.version)

    def started(self) -> None:
        """An engine that had not started was replaced by one that has."""
        self._ready, self._failure = True, None

    async def decide(self, routes: Sequence[Route], conversation: Conversation) -> Outcome:
        """The engine's decision about the last user turn, or the reason for having none."""
        started = time.perf_counter()
        facts = self.engine.facts()
        decision: Decision | None = None
        remembered = False
        reason = self._obstacle(conversation)
        if reason is None:
            asked = conversation.up_to_last_user_turn()
            key = self.memo.key(facts.version, routes, asked)
            decision = self.memo.get(key)
            remembered = decision is not None
            if decision is None:
                decision, reason = await self._ask(routes, asked)
                if decision is not None:
                    self.memo.put(key, decision)
        if decision is not None and decision.route is None:
            reason = "no_task_matches"
        milliseconds = (time.perf_counter() - started) * 1000
        self.counts[reason or "decided"] += 1
        self.observe(milliseconds)
        return Outcome(decision, reason, milliseconds, remembered, facts)

    def _obstacle(self, conversation: Conversation) -> Reason | None:
        """Why the engine need not be asked."""
        if not conversation.has_user_text:
            return "no_text"
        if not self.ready:
            return "engine_not_ready"
        if len(self._abandoned) >= MAX_ABANDONED:
            log.error("routing_failed", reason="engine_error", error="decisions do not stop")
            return "engine_error"
        return None

    async def _ask(
        self, routes: Sequence[Route], asked: Conversation
    ) -> tuple[Decision | None, Reason | None]:
        # Not asyncio.timeout, which would wait for an engine that swallows its cancellation.
        task = asyncio.ensure_future(self.engine.decide(routes, asked))
        try:
            done, _ = await asyncio.wait({task}, timeout=self._timeout)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if not done:
            self._abandon(task)
            log.warning("routing_failed", reason="decision_timeout")
            return None, "decision_timeout"
        try:
            return check_decision(task.result(), routes), None
        except EngineBusy:
            log.warning("routing_failed", reason="engine_busy")
            return None, "engine_busy"
        except (Exception, asyncio.CancelledError) as error:
            # Only where it happened: an engine's message may hold a piece of the prompt.
            log.error("routing_failed", reason="engine_error", error=where_raised(error))
            return None, "engine_error"

    def _abandon(self, task: asyncio.Task[Decision]) -> None:
        task.cancel()
        self._abandoned.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Decision]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio would print it


def check_decision(decision: object, routes: Sequence[Route]) -> Decision:
    """The decision if it makes sense for these routes; raises InvalidScores if not."""
    if not isinstance(decision, Decision):
        raise InvalidScores(f"the engine answered with {type(decision).__name__}")
    names = [route.name for route in routes]
    numbers = [decision.confidence, *decision.distribution.values()]
    if not all(isinstance(n, int | float) and math.isfinite(n) and 0 <= n <= 1 for n in numbers):
        raise InvalidScores("probabilities must be finite and between 0 and 1")
    if set(decision.distribution) != {*names, NONE}:
        raise InvalidScores("the distribution is not over these routes")
    if abs(sum(decision.distribution.values()) - 1) > SUM_TOLERANCE:
        raise InvalidScores("the distribution does not sum to 1")
    chosen = [decision.route] if decision.route is not None else []
    if any(name not in names for name in [*chosen, *decision.routes]):
        raise InvalidScores("the chosen route is none of these")
    return decision


def where_raised(error: BaseException) -> str:
    """Type of an exception and the place it came from, without its message."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    code = trace.tb_frame.f_code
    return f"{type(error).__name__} in {code.co_qualname}, line {trace.tb_lineno}"
