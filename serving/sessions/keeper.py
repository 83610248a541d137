"""Sessions as the request path sees them: found, weighed, and kept up to date."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from routing.conversation import ENVELOPES, Conversation
from serving.accounts import Settled
from serving.config_sessions import SessionsConfig
from serving.needs import Need
from serving.sessions.key import begins, explicit_key, implicit_key, turn_digest
from serving.sessions.money import CacheMoney
from serving.sessions.session import MAX_WARM, Session, Warmth
from serving.sessions.store import Clock, SessionStore
from serving.sessions.switching import NewTurn, Reason, weigh
from serving.sessions.visit import Visit
from serving.usage import Usage

_NOTHING = Session(model="", route=None, turn="", decided=False, updated=0.0)
"""Before a session's first answer."""


class Sessions:
    """Those of one process, or of all that share a store."""

    def __init__(
        self,
        config: SessionsConfig,
        store: SessionStore,
        money: CacheMoney,
        clock: Clock = time.time,
    ) -> None:
        self.store = store
        self.envelopes = (*ENVELOPES, *config.envelopes)
        """What is taken off users' messages before anything reads them."""
        self.requests: Counter[str] = Counter()
        """Answers by the reason why their model was asked."""
        self.saved = 0.0
        """US dollars that keeping models saved, where it did, beside what ranking would have."""
        self.lost = 0.0
        """The same where it cost more."""
        self.switch_spend = 0.0
        """US dollars that other models' reading anew has cost."""
        self._config = config
        self._money = money
        self._clock = clock

    def visit(
        self,
        router: str | None,
        conversation: Conversation,
        messages: Sequence[Mapping[str, Any]],
        body: Mapping[str, Any],
        need: Need,
        *,
        affinity: str | None,
        tenant: str,
        on_user_only: bool | None,
    ) -> Visit | None:
        """A request's part in the session that it belongs to; None for one that belongs to none.

        `messages` are those that `conversation` was made of. Sessions of two tenants never meet.
        """
        if affinity is not None:
            key = explicit_key(tenant, router, affinity)
        elif not self._config.implicit:
            return None
        else:
            found = implicit_key(tenant, router, conversation, messages, body)
            if found is None:
                return None
            key = found
        if on_user_only is None:
            on_user_only = self._config.route_on_user_only
        return Visit(
            key=key,
            turn=turn_digest(conversation),
            begins=not key.explicit and begins(conversation),
            on_user_only=on_user_only,
            need=need,
            tell=self._answered,
        )

    async def find(self, visit: Visit) -> None:
        """Look the session up; nothing is found where its store is gone."""
        if not visit.begins:
            visit.session = await self.store.get(visit.key.id)

    def arrange(
        self, visit: Visit, names: Sequence[str], turn: NewTurn, *, may_stay: bool
    ) -> list[str]:
        """The models to ask, the session's choice first; `names` are those of the ranking, and
        `may_stay` says whether the session's model can answer the turn."""
        session = visit.session
        assert session is not None, "a new session has the ranking's order"
        visit.first = turn.pool[0]
        if visit.verdict is None:
            visit.decided = turn.confidence is not None
            visit.route = turn.route if visit.decided else session.route
            visit.verdict = weigh(
                session,
                turn,
                may_stay=may_stay,
                money=self._money,
                config=self._config.switching,
                now=self._clock(),
            )
        model = visit.verdict.model
        return [model, *(name for name in names if name != model)]

    def advised(self, visit: Visit, model: str) -> None:
        """A client was told to ask a model itself: it will, and this is what that should cost."""
        since = self._clock() - self._config.switching.cache_s
        cost = self._money.expected(visit.session, model, visit.route, visit.need, since)
        self._keep(visit, model, None, cost)

    def _answered(self, visit: Visit, settled: Settled) -> None:
        model, cost = settled.target.name, settled.cost
        if cost is None:
            since = self._clock() - self._config.switching.cache_s
            cost = self._money.expected(visit.session, model, visit.route, visit.need, since)
        self._keep(visit, model, settled.usage, cost)

    def _keep(self, visit: Visit, model: str, usage: Usage | None, cost: float | None) -> None:
        now = self._clock()
        since = now - self._config.switching.cache_s
        facts = visit.facts(model)
        assert facts is not None, "only a routed request has a session"
        before = self._latest(visit)
        switched = before is not None and model != before.model
        switch_cost = saved = 0.0
        if before is not None and switched:
            switch_cost = max(0.0, self._money.switch_cost(before, model, since) or 0.0)
        elif before is not None and facts.pinned and usage is not None and cost is not None:
            saved = self._saved(before, visit.first, usage, cost, since)
        self._count(facts.reason, saved, switch_cost)
        past = before if before is not None else _NOTHING
        visit.after = Session(
            model=model,
            route=visit.route,
            turn=visit.turn,
            decided=visit.decided,
            updated=now,
            warm=_warmed(past, model, usage, visit.need, since, now),
            requests=past.requests + 1,
            switches=past.switches + switched,
            spend=past.spend + (cost or 0.0),
            switch_spend=past.switch_spend + switch_cost,
            saved=past.saved + saved,
        )
        self.store.put(visit.key.id, visit.after)

    def _latest(self, visit: Visit) -> Session | None:
        """The session before this answer: other requests may have ended since it was looked up."""
        found = visit.session
        if found is None:
            return None
        own = self.store.own(visit.key.id)
        return own if own is not None and own.updated > found.updated else found

    def _saved(
        self, before: Session, first: str | None, usage: Usage, cost: float, since: float
    ) -> float:
        if first is None or first == before.model:
            return 0.0
        elsewhere = self._money.elsewhere(before, first, usage, since)
        return 0.0 if elsewhere is None else elsewhere - cost

    def _count(self, reason: Reason, saved: float, switch_cost: float) -> None:
        self.requests[reason] += 1
        self.switch_spend += switch_cost
        if saved > 0:
            self.saved += saved
        else:
            self.lost -= saved


def _warmed(
    before: Session, model: str, usage: Usage | None, need: Need, since: float, now: float
) -> dict[str, Warmth]:
    """What caches hold after an answer."""
    warm = dict(before.warm)
    last = warm.pop(model, None)
    if usage is None:
        tokens = need.prompt_tokens
    elif usage.cache_write_tokens:
        tokens = usage.cached_tokens + usage.cache_write_tokens
    elif not usage.cached_tokens and last is not None and last.at >= since:
        tokens = 0  # what it had read lately was not there again: it caches nothing
    else:
        tokens = usage.input_tokens
    warm[model] = Warmth(tokens, now)
    while len(warm) > MAX_WARM:
        del warm[next(iter(warm))]
    return warm
