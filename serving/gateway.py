"""What happens to one request, apart from HTTP: plan it, decide it, list its candidates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from routing.conversation import normalise
from routing.errors import ContractError, InvalidRequest
from routing.tasks import ROUTER_PREFIX, Pool, SelectionPolicy, preference_pools
from serving.access.spending import Spending
from serving.catalogue import Catalogue, Target
from serving.config import Limits, StandIns
from serving.decider import Decider, Outcome
from serving.errors import ApiError, bad_request, clipped, from_contract, unknown_model
from serving.failover import Failover
from serving.needs import Need, Tags, need_of
from serving.plan import Plan
from serving.protocols.conversation_messages import routed_messages
from serving.ranking import Ranked, Ranking, by_cost, merged
from serving.requests import ModelRequest
from serving.router_registry import RouterRegistry
from serving.routers import ServedRouter
from serving.sessions.keeper import Sessions
from serving.sessions.switching import NewTurn

MAX_MODEL_NAME = 255
"""Characters; names are echoed into headers."""
_OWN_ORDER = SelectionPolicy()
"""Of the fallbacks: as they are listed."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts of a running server."""

    limits: Limits
    catalogue: Catalogue
    routers: RouterRegistry
    stand_ins: StandIns | None
    decider: Decider
    ranking: Ranking
    failover: Failover
    sessions: Sessions
    spending: Spending

    async def prepare(self, asked: ModelRequest) -> None:
        """Fetch what `plan` may need and does not know: an older revision that is named. Raises
        ApiError."""
        if asked.model is not None and "@" in asked.model and asked.model.startswith(ROUTER_PREFIX):
            await self.routers.prepare(asked.model.removeprefix(ROUTER_PREFIX))

    def plan(
        self,
        asked: ModelRequest,
        *,
        decision_only: bool = False,
        tags: Tags = (),
        affinity: str | None = None,
        tenant: str = "",
    ) -> Plan:
        """What to decide, and among what; raises ApiError for anything that cannot be routed.

        Pools inside the request replace those of the router. With them `model` may be a plain name,
        which then is the only fallback. Only where nothing is forwarded (`decision_only`) may they
        name models that are not served. Models must have the request's `tags` and the router's.
        `affinity` is the tenant's name of a session.
        """
        router = self._router(asked.model)
        fallbacks = router.fallbacks if router else (asked.model,) if asked.model else ()
        if router is None and asked.model and not decision_only:
            self.served(asked.model)
        if asked.preferences is not None:
            pools = self._inline_pools(asked, served_only=not decision_only)
        elif router is not None:
            pools = router.pools
        else:
            raise bad_request("model must be router:<name>, or give routing_preferences", "model")
        if router is not None:
            tags = (*tags, *router.tags.items())
        messages = routed_messages(asked.protocol, asked.fields)
        try:
            conversation = normalise(messages, self.sessions.envelopes)
        except ContractError as error:
            raise from_contract(error) from None
        need = need_of(asked.protocol, asked.fields, tags)
        visit = self.sessions.visit(
            router.name if router else None,
            conversation,
            messages,
            asked.fields,
            need,
            affinity=affinity,
            tenant=tenant,
            on_user_only=router.definition.route_on_user_only if router else None,
        )
        return Plan(
            router=router.name if router else None,
            router_label=router.label if router else None,
            pools=pools,
            fallbacks=fallbacks,
            inline=asked.preferences is not None,
            conversation=conversation,
            need=need,
            decision_only=decision_only,
            visit=visit,
        )

    async def decide(self, plan: Plan) -> Outcome:
        """The decision, or why there is none; never raises for an engine's failure.

        A session that goes on with its model has none.
        """
        if plan.visit is not None:
            await self.sessions.find(plan.visit)
            kept = plan.visit.kept_model
            if kept is not None and self._may_answer(plan, kept):
                route = plan.visit.keep()
                return Outcome(None, None, 0.0, kept=route if plan.has(route) else None)
        return await self.decider.decide([pool.route for pool in plan.pools], plan.conversation)

    def ranking_for(self, plan: Plan, outcome: Outcome) -> list[Ranked]:
        """The chosen task's models best first, on or off, then the fallbacks; each once, and none
        that must not get the request."""
        models, policy = self._pool(plan, outcome)
        explore = not plan.decision_only and (plan.visit is None or plan.visit.session is None)
        own = self.ranking.order(models, policy, plan.need, route=outcome.route, explore=explore)
        rest = self.ranking.order(plan.fallbacks, _OWN_ORDER, plan.need, route=outcome.route)
        return merged(own, rest)

    def arranged(self, plan: Plan, outcome: Outcome, ranked: Sequence[Ranked]) -> list[str]:
        """Names of what `ranking_for` gave, on or off, the session's choice first."""
        return self._with_session(plan, outcome, [each.name for each in ranked])

    def candidates(self, plan: Plan, outcome: Outcome, ranked: Sequence[Ranked]) -> list[Target]:
        """The models to ask, in order: of what `ranking_for` gave those that are on, else the
        stand-ins, if there are any; but the session's choice first.

        Raises ApiError where models are on and none of them may get the request.
        """
        targets = self._on(each.name for each in ranked)
        if not targets:
            targets = self._last_resort(plan, outcome)
        names = [target.name for target in targets]
        return self._on(self._with_session(plan, outcome, names))

    def _last_resort(self, plan: Plan, outcome: Outcome) -> list[Target]:
        on = self._on([*self._pool(plan, outcome)[0], *plan.fallbacks])
        if not on and self.stand_ins is not None:
            own = self.stand_ins.tasks.get(outcome.route) if outcome.route is not None else None
            on = self._on(dict.fromkeys([*([own] if own else []), self.stand_ins.default]))
        barred = self.ranking.barred([target.name for target in on], plan.need)
        allowed = [target for target in on if target.name not in barred]
        if on and not allowed:
            raise nothing_eligible(barred)
        return allowed

    def passed_over(self, plan: Plan, outcome: Outcome) -> dict[str, str]:
        """Models of the task and the fallbacks that must not get the request, and why."""
        if not plan.need.hard:
            return {}
        names = [*self._pool(plan, outcome)[0], *plan.fallbacks]
        return dict(self.ranking.barred(names, plan.need))

    def _with_session(self, plan: Plan, outcome: Outcome, names: list[str]) -> list[str]:
        """The names, the model first with which the request's session goes on."""
        visit, decision = plan.visit, outcome.decision
        if visit is None or not names:
            return names
        if visit.session is None:
            visit.begin(names[0], outcome.route, decided=decision is not None)
            return names
        models, policy = self._pool(plan, outcome)
        if outcome.route is None:
            models = list(plan.fallbacks)
        fitting = [name for name in names if name in models and self.ranking.fits(name, plan.need)]
        turn = NewTurn(
            pool=fitting or names[:1],
            route=outcome.route,
            confidence=decision.confidence if decision is not None else None,
            by_cost=by_cost(policy),
            need=plan.need,
        )
        return self.sessions.arrange(
            visit, names, turn, may_stay=self._may_answer(plan, visit.session.model)
        )

    def _may_answer(self, plan: Plan, model: str) -> bool:
        """Whether a model that a session had is still one that this request may go to."""
        offered = model in plan.models()
        if not offered and self.stand_ins is not None:
            standing_in = (self.stand_ins.default, *self.stand_ins.tasks.values())
            offered = model in standing_in and not self._on(plan.models())
        on = (plan.inline and plan.decision_only) or self.catalogue.target(model) is not None
        return offered and on and self.ranking.fits(model, plan.need)

    def _pool(self, plan: Plan, outcome: Outcome) -> tuple[list[str], SelectionPolicy]:
        if outcome.route is None:
            return [], _OWN_ORDER
        pool = plan.pool(outcome.route)
        return pool.models, pool.selection_policy

    def served(self, name: str, need: Need | None = None) -> Target:
        """The model behind a plain name; raises ApiError, 404 for none and 400 for one that must
        not get a request of that need."""
        target = self.catalogue.target(name) if len(name) <= MAX_MODEL_NAME else None
        if target is None:
            raise unknown_model(name, self.catalogue.why_off(name))
        if need is not None and (barred := self.ranking.barred([name], need)):
            raise nothing_eligible(barred)
        return target

    def models(self) -> list[str]:
        """Names of the models that can be asked now: listed ones, then those in pools."""
        pooled = [
            name
            for router in self.routers.values()
            for name in [*(m for pool in router.pools for m in pool.models), *router.fallbacks]
        ]
        listed = dict.fromkeys([*self.catalogue.listed(), *pooled])
        return [target.name for target in self._on(listed)]

    def _router(self, model: str | None) -> ServedRouter | None:
        if model is None or not model.startswith(ROUTER_PREFIX):
            return None
        return self.routers.find(model.removeprefix(ROUTER_PREFIX))

    def _inline_pools(self, asked: ModelRequest, *, served_only: bool) -> tuple[Pool, ...]:
        assert asked.preferences is not None
        field = "routing_preferences"
        try:
            pools = preference_pools(asked.preferences)
            self.decider.engine.check_routes([pool.route for pool in pools])
        except InvalidRequest as error:
            raise bad_request(f"{field}: {error.message}", field) from None
        except ValueError as error:
            raise bad_request(f"{field}: {error}", field) from None
        for index, pool in enumerate(pools if served_only else ()):
            for number, model in enumerate(pool.models):
                if not self.catalogue.known(model):
                    at = f"{field}[{index}].models[{number}]"
                    raise bad_request(f"{at}: this server does not serve {model!r}", at)
        return tuple(pools)

    def _on(self, names: Iterable[str]) -> list[Target]:
        return [target for name in names if (target := self.catalogue.target(name)) is not None]


def nothing_on() -> ApiError:
    """503: the owner has switched no model on that could answer."""
    return ApiError(
        503,
        "No model of this router is switched on: its providers have no keys on this server.",
        "server_error",
        code="no_model_available",
    )


def nothing_eligible(barred: Mapping[str, str]) -> ApiError:
    """400: what the request asks of a model, none of those it may go to has."""
    why = ", ".join(f"{clipped(name)} ({reason})" for name, reason in barred.items())
    return bad_request(
        f"No model that this request may go to can take it: {why}.", None, "no_eligible_model"
    )
