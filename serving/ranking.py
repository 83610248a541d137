"""The order in which a pool's models are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from routing.tasks import SelectionPolicy, Weights
from routing.values import value_type
from serving.catalogue import Catalogue
from serving.costs import Costs, OutputLengths
from serving.eligibility import HARD, Reason, why_not
from serving.exploration import Exploration
from serving.latency import LatencySource
from serving.needs import Need
from serving.refresh import Refresher

POLICIES: Mapping[str | None, Weights] = {
    None: Weights(rank=1),
    "cheapest": Weights(cost=1),
    "fastest": Weights(latency=1),
    "optimal": Weights(rank=0.5, cost=0.3, latency=0.2),
}
"""What each preference is a name for. `optimal` trusts the owner's order most: the second of two
goes first if 0.3 of the cost it saves and 0.2 of the time it saves, as shares, exceed 0.25."""


@value_type
class Ranked:
    """A model in its place, and why it stands there."""

    name: str
    expected_cost: float | None
    """US dollars; worked out, like the next, only where the policy weighs one of them."""
    expected_seconds: float | None
    score: float
    """Lower is better; comparable within one pool."""
    excluded: Reason | None = None
    """Why it is asked last, after all models that fit."""
    explored: bool = False
    """Whether it stands first because its latency is to be learnt, against its score."""


class Ranking:
    """Ranks names by what the catalogue says of them and by how they have answered so far.

    Of each model of a pool, the score is the weighted mean of three terms between 0 and 1:

        cost     its expected cost over the highest in the pool
        latency  its expected seconds over the highest in the pool
        rank     its place in the declared order, from 0, over the number of models

    So only ratios count, of costs, of times and of weights. An unknown cost or time is 1, and of
    equal scores the one with fewer unknowns goes first, then the declared order.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        latency: LatencySource,
        *,
        exploration: Exploration | None = None,
        prices_refresher: Refresher | None = None,
        latency_refresher: Refresher | None = None,
    ) -> None:
        self.costs = Costs(catalogue)
        self.outputs = OutputLengths()
        self._catalogue = catalogue
        self._latency = latency
        self._exploration = exploration
        self._prices = prices_refresher
        self._latencies = latency_refresher

    @property
    def prices_age_seconds(self) -> float | None:
        """Since public prices were fetched; None while those that came with the server are used."""
        return self._prices.age_seconds if self._prices else None

    @property
    def latency_age_seconds(self) -> float | None:
        """Since Prometheus last answered; None before, and where own traffic is the source."""
        return self._latencies.age_seconds if self._latencies else None

    async def start(self) -> None:
        """Begin to refresh prices and latencies, where the configuration says so."""
        for refresher in (self._prices, self._latencies):
            if refresher is not None:
                await refresher.start()

    async def close(self) -> None:
        """Stop that; safe to call twice."""
        for refresher in (self._prices, self._latencies):
            if refresher is not None:
                await refresher.close()

    def observe_output(self, model: str, route: str | None, tokens: int) -> None:
        """Take in how many tokens an answer to a request of a task had."""
        self.outputs.observe_output(model, route, tokens)

    def order(
        self,
        models: Sequence[str],
        policy: SelectionPolicy,
        need: Need,
        *,
        route: str | None = None,
        cached: Mapping[str, int] | None = None,
        explore: bool = True,
    ) -> list[Ranked]:
        """The models that may be asked, best first; those that seem too small come last.

        Models with a hard reason against them are left out: see `barred`. `cached` gives the tokens
        of this prompt that a model's cache holds; a request that has any is not used to explore,
        nor is one without `explore`.
        """
        cached = cached or {}
        fitting: list[str] = []
        too_small: dict[str, Reason] = {}
        for model in models:
            reason = why_not(self._catalogue.capabilities(model), need)
            if reason is None:
                fitting.append(model)
            elif reason not in HARD:
                too_small[model] = reason
        weights = policy.weights or POLICIES[policy.prefer]
        ranked = self._scored(fitting, weights, need, route, cached)
        if explore and not cached and weights.latency and self._exploration is not None:
            ranked = self._explored(ranked, self._exploration, need)
        last = self._scored(list(too_small), weights, need, route, cached)
        return ranked + [replace(each, excluded=too_small[each.name]) for each in last]

    def barred(self, models: Sequence[str], need: Need) -> dict[str, Reason]:
        """The models that must not get a request, and why."""
        reasons = {model: why_not(self._catalogue.capabilities(model), need) for model in models}
        return {model: reason for model, reason in reasons.items() if reason in HARD}

    def fits(self, model: str, need: Need) -> bool:
        """Whether nothing is known that speaks against a model."""
        return why_not(self._catalogue.capabilities(model), need) is None

    def _scored(
        self,
        models: Sequence[str],
        weights: Weights,
        need: Need,
        route: str | None,
        cached: Mapping[str, int],
    ) -> list[Ranked]:
        if not models:
            return []
        if not (weights.cost or weights.latency):  # the list's own order: nothing to work out
            return [Ranked(m, None, None, i / len(models)) for i, m in enumerate(models)]
        costs: list[float | None] = []
        seconds: list[float | None] = []
        for model in models:
            output = self.outputs.expected_output(model, route, need)
            cost = self.costs.expected_cost(model, need, output, cached.get(model, 0))
            costs.append(cost)
            seconds.append(self._latency.expected_seconds(model, need, output))
        total = max(weights.cost, weights.latency, weights.rank)
        cost_weight, latency_weight, rank_weight = (
            weight / total for weight in (weights.cost, weights.latency, weights.rank)
        )
        total = cost_weight + latency_weight + rank_weight
        most, longest = _highest(costs), _highest(seconds)
        keyed: list[tuple[float, int, Ranked]] = []
        for place, (model, cost, time) in enumerate(zip(models, costs, seconds, strict=True)):
            score = (
                cost_weight * _share(cost, most)
                + latency_weight * _share(time, longest)
                + rank_weight * place / len(models)
            ) / total
            unknown = (cost is None and cost_weight > 0) + (time is None and latency_weight > 0)
            keyed.append((score, unknown, Ranked(model, cost, time, score)))
        # The sort is stable: equals keep the declared order.
        return [ranked for _, _, ranked in sorted(keyed, key=lambda each: each[:2])]

    def _explored(self, ranked: list[Ranked], exploration: Exploration, need: Need) -> list[Ranked]:
        due = exploration.due([each.name for each in ranked], streamed=need.stream)
        if due is None:
            return ranked
        first = next(each for each in ranked if each.name == due)
        rest = [each for each in ranked if each is not first]
        return [replace(first, explored=True), *rest]


def by_cost(policy: SelectionPolicy) -> bool:
    """Whether nothing but cost ranks."""
    weights = policy.weights or POLICIES[policy.prefer]
    return bool(weights.cost) and not (weights.latency or weights.rank)


def merged(*rankings: Sequence[Ranked]) -> list[Ranked]:
    """Rankings one after the other, each model once, but those that seem too small at the end."""
    once: dict[str, Ranked] = {}
    for each in (each for ranking in rankings for each in ranking):
        once.setdefault(each.name, each)
    return sorted(once.values(), key=lambda each: each.excluded is not None)


def _highest(values: Sequence[float | None]) -> float:
    return max((value for value in values if value is not None), default=0.0)


def _share(value: float | None, highest: float) -> float:
    if value is None:
        return 1.0
    return value / highest if highest else 0.0
