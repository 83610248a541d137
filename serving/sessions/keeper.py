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
from serving.sessions.ledger import Ledger
from serving.sessions.money import CacheMoney
from serving.sessions.session import Session
from serving.sessions.store import Clock, SessionStore
from serving.sessions.switching import NewTurn, weigh
from serving.sessions.visit import Visit
from serving.usage import Usage


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
        """US dollars that answers would have cost more without sessions; see `ledger`."""
        self.lost = 0.0
        """US dollars that others would have cost less."""
        self.switch_spend = 0.0
        """US dollars that other models' reading anew has cost."""
        self._config = config
        self._money = money
        self._ledger = Ledger(money, config.switching.cache_s)
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
        """A client was told which model to ask itself: it will, for what that should cost."""
        self._keep(visit, model, None, None)

    def _answered(self, visit: Visit, settled: Settled) -> None:
        self._keep(visit, settled.target.name, settled.usage, settled.cost)

    def _keep(self, visit: Visit, model: str, usage: Usage | None, cost: float | None) -> None:
        facts = visit.facts(model)
        assert facts is not None, "only a routed request has a session"
        before = self._latest(visit)
        after = self._ledger.after(before, visit, model, usage, cost, self._clock())
        self.requests[facts.reason] += 1
        if before is not None:
            self.switch_spend += after.switch_spend - before.switch_spend
            saved = after.saved - before.saved
            if saved > 0:
                self.saved += saved
            else:
                self.lost -= saved
        visit.after = after
        self.store.put(visit.key.id, after)

    def _latest(self, visit: Visit) -> Session | None:
        """The session before this answer: other requests may have ended since it was looked up."""
        found = visit.session
        if found is None:
            return None
        own = self.store.own(visit.key.id)
        return own if own is not None and own.updated > found.updated else found
