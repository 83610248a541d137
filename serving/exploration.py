"""A model that nobody has timed lately goes first now and then: else it never would be timed."""

from __future__ import annotations

from collections.abc import Sequence

from serving.bounded import Bounded
from serving.latency import MAX_MODELS, LatencySource


class Exploration:
    """A schedule, not a lottery: a model is due after `every` requests that it could have had.

    `every` 0 never explores.
    """

    def __init__(self, latency: LatencySource, every: int, stale_after_s: float) -> None:
        self._latency = latency
        self._every = every
        self._stale_after = stale_after_s
        self._passed: Bounded[tuple[str, bool], int] = Bounded(2 * MAX_MODELS)

    def due(self, models: Sequence[str], *, streamed: bool) -> str | None:
        """The model of those ranked behind the first that is to go first this time, if any is.

        To be asked once for each request: it counts.
        """
        if not self._every or len(models) < 2:
            return None
        chosen: str | None = None
        self._passed.pop((models[0], streamed), None)
        for model in models[1:]:
            age = self._latency.seconds_since(model, streamed=streamed)
            if age is not None and age < self._stale_after:
                self._passed.pop((model, streamed), None)
                continue
            passed = self._passed.get((model, streamed), 0) + 1
            if chosen is None and passed >= self._every:
                chosen, passed = model, 0
            self._passed[model, streamed] = passed
        return chosen
