"""An engine that answers at once: it stands for a session whose decision is known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from routing.conversation import Conversation
from routing.decision import Calibration, Decision, decide
from routing.tasks import Route
from serving.engine.base import EngineFacts, EngineMetrics

MARGIN = 4.0
"""By how much the first route's score exceeds the others': it is chosen, as surely as usual."""


class FirstRoute:
    """Always chooses the first route."""

    name = "bench"
    version = "bench"

    def __init__(self) -> None:
        self._decisions = 0

    def facts(self) -> EngineFacts:
        return EngineFacts(self.name, self.version)

    def check_routes(self, routes: Sequence[Route]) -> None:
        pass

    async def start(self) -> None:
        pass

    async def decide(self, routes: Sequence[Route], conversation: Conversation) -> Decision:
        self._decisions += 1
        return _first(tuple(route.name for route in routes))

    def trouble(self) -> str | None:
        return None

    def metrics(self) -> EngineMetrics:
        return EngineMetrics(decisions=self._decisions)

    async def close(self) -> None:
        pass


@lru_cache(maxsize=64)
def _first(names: tuple[str, ...]) -> Decision:
    return decide(names, [MARGIN] + [0.0] * len(names), Calibration())
