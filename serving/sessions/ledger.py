"""Keeps a session's account: what it spent, what switching cost it, what staying saved it.

What staying saved is told by a second account, of the same requests as they would have been without
the session: each at the model that was ranked first just then, and caches as those requests would
have left them.
"""

from __future__ import annotations

from collections.abc import Mapping

from serving.sessions.money import CacheMoney
from serving.sessions.session import MAX_WARM, Session, Warmth
from serving.sessions.visit import Visit
from serving.usage import Usage

_NOTHING = Session(model="", route=None, turn="", decided=False, updated=0.0)
"""Before a session's first answer."""


class Ledger:
    """Caches hold for `cache_s` seconds what was read."""

    def __init__(self, money: CacheMoney, cache_s: float) -> None:
        self._money = money
        self._cache_s = cache_s

    def after(
        self,
        before: Session | None,
        visit: Visit,
        model: str,
        usage: Usage | None,
        cost: float | None,
        now: float,
    ) -> Session:
        """The session after a model's answer; without a `cost`, by what was to be expected of it.

        Without a usage the estimate of the request's tokens stands in for it.
        """
        since = now - self._cache_s
        if cost is None:
            cost = self._money.expected(before, model, visit.route, visit.need, since)
        past = before if before is not None else _NOTHING
        switched = before is not None and model != before.model
        switch_cost = 0.0
        if before is not None and switched:
            switch_cost = max(0.0, self._money.switch_cost(before, model, since) or 0.0)
        warm = _read(past.warm, model, _held(past.warm.get(model), visit, usage, since), now)
        # A model that failed would have done so without a session too.
        first = visit.first if visit.verdict and visit.verdict.model == model else model
        otherwise, saved = warm, 0.0
        if first is not None and (first != model or past.otherwise != past.warm):
            saved = self._saved(past, first, model, usage, cost, since)
            tokens = usage.input_tokens if usage is not None else visit.need.prompt_tokens
            otherwise = _read(past.otherwise, first, tokens, now)
        return Session(
            model=model,
            route=visit.route,
            turn=visit.turn,
            decided=visit.decided,
            updated=now,
            warm=warm,
            otherwise=otherwise,
            requests=past.requests + 1,
            switches=past.switches + switched,
            spend=past.spend + (cost or 0.0),
            switch_spend=past.switch_spend + switch_cost,
            saved=past.saved + saved,
        )

    def _saved(
        self,
        past: Session,
        first: str,
        model: str,
        usage: Usage | None,
        cost: float | None,
        since: float,
    ) -> float:
        if usage is None or cost is None:
            return 0.0
        if first == model and past.otherwise.get(first) == past.warm.get(first):
            return 0.0
        otherwise = self._money.otherwise(past, first, usage, since)
        return 0.0 if otherwise is None else otherwise - cost


def _held(last: Warmth | None, visit: Visit, usage: Usage | None, since: float) -> int:
    """Tokens of a request that are in its model's cache now."""
    if usage is None:
        return visit.need.prompt_tokens
    if usage.cache_write_tokens:
        return usage.cached_tokens + usage.cache_write_tokens
    if not usage.cached_tokens and last is not None and last.at >= since:
        return 0  # what it had read lately was not there again: it caches nothing
    return usage.input_tokens


def _read(caches: Mapping[str, Warmth], model: str, tokens: int, now: float) -> dict[str, Warmth]:
    """Caches after a model has read so much."""
    warm = {name: each for name, each in caches.items() if name != model}
    warm[model] = Warmth(tokens, now)
    while len(warm) > MAX_WARM:
        del warm[next(iter(warm))]
    return warm
