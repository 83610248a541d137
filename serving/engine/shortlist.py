"""Many routes: an embedding shortlist picks the candidates, the routing model decides among them.

A routing model's time and its budget of tokens bound how many routes it can read; cosines of a
sentence encoder are cheap and rarely leave the right route out of the best two dozen. A
conversation keeps its candidates from turn to turn while the best of the new turn are among them,
so that the prefix stays what the model has read already.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routing.conversation import Conversation
from routing.decision import Decision
from routing.encoder import route_text, turn_texts
from routing.errors import RoutesTooLong
from routing.tasks import NONE, Route
from serving.engine.base import Engine, EngineError, EngineFacts, EngineMetrics
from serving.engine.prefixes import routes_digest

Embed = Callable[[Sequence[str]], NDArray[Any]]

TURN_WEIGHTS = np.array([1.0, 0.25, 0.5], dtype=np.float32)
"""Of a turn, the answer before it and the turn before that: what was said before helps where the
turn itself says little. The pointer of a checkpoint with an encoder starts from the same."""
CONVERSATIONS = 4096
"""Whose candidates are remembered."""
FEWEST = 4
"""Routes; of fewer candidates none is a choice."""


class ShortlistingEngine:
    """An engine that reads at most `limit` routes, or as many as fit its budget of tokens.

    Of more it reads those that an encoder finds nearest.

    `load_embed` gives the vectors of texts; it is called at the first decision that needs it.
    """

    def __init__(self, engine: Engine, load_embed: Callable[[], Embed], limit: int = 24) -> None:
        self.inner = engine
        self._load_embed = load_embed
        self._limit = limit
        self._embed: Embed | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pointsman-shortlist")
        self._kept: OrderedDict[bytes, tuple[int, ...]] = OrderedDict()
        self._fitting: OrderedDict[bytes, int] = OrderedDict()
        self.shortlisted = 0
        """Decisions that needed it."""

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def version(self) -> str:
        return self.inner.version

    def facts(self) -> EngineFacts:
        return self.inner.facts()

    def check_routes(self, routes: Sequence[Route]) -> None:
        """Raise InvalidRequest for routes of which too few fit the model's budget together."""
        self._readable(routes)

    async def start(self) -> None:
        await self.inner.start()

    async def decide(self, routes: Sequence[Route], conversation: Conversation) -> Decision:
        """The decision at the last user turn; routes that were left out get probability 0."""
        most = self._readable(routes)
        if len(routes) <= most:
            return await self.inner.decide(routes, conversation)
        loop = asyncio.get_running_loop()
        try:
            likeness = await loop.run_in_executor(
                self._thread, self._likeness, tuple(routes), conversation
            )
        except RuntimeError as error:
            raise EngineError(f"the shortlist failed: {type(error).__name__}") from error
        chosen = self._candidates(routes, conversation, likeness, most)
        decision = await self.inner.decide([routes[index] for index in chosen], conversation)
        self.shortlisted += 1
        shares = {route.name: decision.distribution.get(route.name, 0.0) for route in routes}
        shares[NONE] = decision.distribution[NONE]
        return Decision(shares, decision.route, decision.routes, decision.confidence)

    def metrics(self) -> EngineMetrics:
        return replace(self.inner.metrics(), shortlisted=self.shortlisted)

    def trouble(self) -> str | None:
        return self.inner.trouble()

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        await self.inner.close()

    def _readable(self, routes: Sequence[Route]) -> int:
        """How many of these routes the model reads at once: `limit`, or as many as always fit.

        Any so many fit if the longest do. Raises what the engine says of fewer than FEWEST.
        """
        key = routes_digest(routes)
        known = self._fitting.get(key)
        if known is not None:
            self._fitting.move_to_end(key)
            return known
        by_length = sorted(routes, key=lambda r: len(r.name) + len(r.description), reverse=True)
        most = min(len(routes), self._limit)
        while True:
            try:
                self.inner.check_routes(by_length[:most] if most < len(routes) else routes)
                break
            except RoutesTooLong:
                if most <= FEWEST:
                    raise
                most = max(FEWEST, most * 3 // 4)
        self._fitting[key] = most
        while len(self._fitting) > CONVERSATIONS:
            self._fitting.popitem(last=False)
        return most

    def _likeness(self, routes: Sequence[Route], conversation: Conversation) -> NDArray[Any]:
        """Likeness [routes] of the last user turn to each route."""
        if self._embed is None:
            self._embed = self._load_embed()
        texts = turn_texts(conversation, {turn.message for turn in conversation.turns})
        last = texts[max(texts)]
        # One call for the lines: all but a new router's come from the embedder's memory.
        vectors = self._embed([*last, *map(route_text, routes)])
        return np.asarray(vectors[len(last) :] @ (TURN_WEIGHTS @ vectors[: len(last)]))

    def _candidates(
        self,
        routes: Sequence[Route],
        conversation: Conversation,
        likeness: NDArray[Any],
        most: int,
    ) -> tuple[int, ...]:
        """Indices of the routes to read, in declared order."""
        best = np.argsort(-likeness, kind="stable")
        first = conversation.turns[0].text if conversation.turns else ""
        key = routes_digest(routes, first)
        kept = self._kept.get(key)
        if kept is None or not set(best[: most // 2].tolist()) <= set(kept):
            kept = tuple(sorted(best[:most].tolist()))
            self._kept[key] = kept
            while len(self._kept) > CONVERSATIONS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return kept
