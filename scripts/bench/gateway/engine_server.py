"""Our server with an engine that answers at once.

    python -m scripts.bench.gateway.engine_server CONFIG

The engine is not what is measured here: `make bench-decision` does that. This one stands for a
session whose decision is known, and holds no model, so that memory is the gateway's alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache

from routing.conversation import Conversation
from routing.decision import Calibration, Decision, decide
from routing.tasks import Route
from serving.engine.base import EngineFacts, EngineMetrics
from serving.run import serve

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


def main() -> None:
    if "torch" in sys.modules:
        raise SystemExit("the server imported torch: its memory would not be the gateway's alone")
    serve(sys.argv[1], engine=FirstRoute())


if __name__ == "__main__":
    main()
