"""The order of a pool, and of the requests that not every model can take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from routing.tasks import Router, SelectionPolicy, Weights, resolve_pools
from serving.catalogue import Catalogue
from serving.config import ServerConfig
from serving.exploration import Exploration
from serving.latency import Latencies
from serving.needs import Need
from serving.ranking import Ranked, Ranking, merged

NEED = Need(prompt_tokens=1000)
CHEAPEST = SelectionPolicy(prefer="cheapest")
FASTEST = SelectionPolicy(prefer="fastest")
OPTIMAL = SelectionPolicy(prefer="optimal")


def ranking_of(
    models: Mapping[str, Mapping[str, Any]],
    seconds: Mapping[str, float | None] | None = None,
    *,
    explore_every: int = 0,
) -> Ranking:
    """A ranking of models with such prices and so on, whose answers take so long."""
    entries = {name: {"provider": "p", "model": name, **each} for name, each in models.items()}
    config = ServerConfig.model_validate(
        {"providers": {"p": {"base_url": "https://x.invalid/v1"}}, "models": entries}
    )
    latencies = Latencies()
    for name, value in (seconds or {}).items():
        if value is not None:
            latencies.observe(name, streamed=False, seconds=value)
    exploration = Exploration(latencies, explore_every, stale_after_s=900)
    return Ranking(Catalogue(config, {}), latencies, exploration=exploration)


def priced(price: float | None) -> dict[str, Any]:
    return {} if price is None else {"price": {"input": price, "output": price}}


def names(ranked: list[Ranked]) -> list[str]:
    return [each.name for each in ranked]


values = st.none() | st.floats(0.001, 1000)
pools = st.lists(st.tuples(values, values), min_size=1, max_size=4)
weights = st.builds(
    lambda cost, latency, rank: SelectionPolicy(
        weights=Weights(cost=cost, latency=latency, rank=rank)
    ),
    *[st.floats(0.01, 100)] * 3,
)
policies = st.sampled_from([SelectionPolicy(), CHEAPEST, FASTEST, OPTIMAL]) | weights
few = settings(max_examples=60, deadline=None)


def pool_of(
    pool: list[tuple[float | None, float | None]], scale: tuple[float, float] = (1, 1)
) -> tuple[list[str], Ranking]:
    models = [f"m{number}" for number in range(len(pool))]
    prices = [None if price is None else price * scale[0] for price, _ in pool]
    times = [None if time is None else time * scale[1] for _, time in pool]
    return models, ranking_of(
        {m: priced(price) for m, price in zip(models, prices, strict=True)},
        dict(zip(models, times, strict=True)),
    )


@few
@given(pools, policies)
def test_the_order_is_a_permutation_with_the_best_score_first(
    pool: list[tuple[float | None, float | None]], policy: SelectionPolicy
) -> None:
    models, ranking = pool_of(pool)
    ranked = ranking.order(models, policy, NEED)
    assert sorted(names(ranked)) == models
    scores = [each.score for each in ranked]
    assert scores == sorted(scores)
    assert all(0 <= score <= 1 for score in scores)
    assert not any(each.excluded or each.explored for each in ranked)


@few
@given(pools)
def test_unknown_comes_last_and_the_rest_ascends(
    pool: list[tuple[float | None, float | None]],
) -> None:
    models, ranking = pool_of(pool)
    cheapest = [each.expected_cost for each in ranking.order(models, CHEAPEST, NEED)]
    fastest = [each.expected_seconds for each in ranking.order(models, FASTEST, NEED)]
    for found in (cheapest, fastest):
        known = [value for value in found if value is not None]
        assert found == sorted(known) + [None] * (len(found) - len(known))


@few
@given(pools, policies, st.sampled_from([2.0**k for k in (-8, -1, 3, 10)]), st.integers(-5, 5))
def test_units_and_the_sum_of_weights_do_not_matter(
    pool: list[tuple[float | None, float | None]],
    policy: SelectionPolicy,
    factor: float,
    power: int,
) -> None:
    models, ranking = pool_of(pool)
    _, other = pool_of(pool, (factor, 1 / factor))
    if policy.weights is None:
        scaled = policy
    else:
        found = policy.weights.model_dump()
        scaled = SelectionPolicy(
            weights=Weights(**{name: value * 2.0**power for name, value in found.items()})
        )
    before = ranking.order(models, policy, NEED)
    after = other.order(models, scaled, NEED)
    assert names(before) == names(after)
    assert [each.score for each in before] == pytest.approx([each.score for each in after])


@few
@given(pools, st.integers(0, 3), st.floats(0, 1))
def test_a_price_that_falls_never_costs_a_place(
    pool: list[tuple[float | None, float | None]], which: int, share: float
) -> None:
    which %= len(pool)
    price, time = pool[which]
    if price is None:
        return
    models, ranking = pool_of(pool)
    cheaper = [*pool]
    cheaper[which] = (price * share, time)
    _, other = pool_of(cheaper)
    before = names(ranking.order(models, CHEAPEST, NEED)).index(models[which])
    after = names(other.order(models, CHEAPEST, NEED)).index(models[which])
    assert after <= before


@few
@given(values, st.integers(1, 4), st.permutations(["m0", "m1", "m2", "m3"]), policies)
def test_equals_keep_the_declared_order(
    value: float | None, count: int, declared: list[str], policy: SelectionPolicy
) -> None:
    _, ranking = pool_of([(value, value)] * 4)
    assert names(ranking.order(declared[:count], policy, NEED)) == declared[:count]


def test_the_blend_is_the_documented_formula() -> None:
    models = {"a": priced(10), "b": priced(2), "c": priced(None)}
    ranking = ranking_of(models, {"a": 4, "b": None, "c": 1})
    policy = SelectionPolicy(weights=Weights(cost=1, latency=2, rank=1))
    ranked = {each.name: each.score for each in ranking.order(list(models), policy, NEED)}
    assert ranked["a"] == pytest.approx((1 * 1 + 2 * 1 + 1 * 0) / 4)
    assert ranked["b"] == pytest.approx((1 * 0.2 + 2 * 1 + 1 / 3) / 4)
    assert ranked["c"] == pytest.approx((1 * 1 + 2 * 0.25 + 2 / 3) / 4)


def test_optimal_keeps_the_owners_order_unless_much_is_saved() -> None:
    alike = ranking_of({"best": priced(10), "next": priced(5)}, {"best": 2, "next": 2})
    assert names(alike.order(["best", "next"], OPTIMAL, NEED)) == ["best", "next"]
    bargain = ranking_of({"best": priced(10), "next": priced(1)}, {"best": 2, "next": 2})
    assert names(bargain.order(["best", "next"], OPTIMAL, NEED)) == ["next", "best"]


def test_cost_is_of_this_request_and_not_of_a_rate() -> None:
    models = {
        "reader": {"price": {"input": 1, "output": 20}},
        "writer": {"price": {"input": 4, "output": 4}},
    }
    ranking = ranking_of(models)
    long_prompt = Need(prompt_tokens=50_000, max_output_tokens=100)
    assert names(ranking.order(list(models), CHEAPEST, long_prompt)) == ["reader", "writer"]
    for model in models:
        ranking.observe_output(model, "essay", 5000)
    short_prompt = Need(prompt_tokens=100)
    ranked = ranking.order(list(models), CHEAPEST, short_prompt, route="essay")
    assert names(ranked) == ["writer", "reader"]
    assert ranked[0].expected_cost == pytest.approx((100 * 4 + 5000 * 4) / 1e6)


def test_a_warm_cache_can_make_the_dearer_model_the_cheaper() -> None:
    models = {
        "warm": {"price": {"input": 3, "output": 3, "cached_input": 0.3}},
        "cold": priced(2),
    }
    ranking = ranking_of(models)
    need = Need(prompt_tokens=100_000, max_output_tokens=100)
    assert names(ranking.order(list(models), CHEAPEST, need)) == ["cold", "warm"]
    cached = {"warm": 95_000}
    assert names(ranking.order(list(models), CHEAPEST, need, cached=cached)) == ["warm", "cold"]


# Eligibility


def test_too_small_models_come_last_and_barred_ones_not_at_all() -> None:
    models = {
        "small": {"context_tokens": 500, **priced(1)},
        "blind": {"vision": False, **priced(1)},
        "large": {"context_tokens": 10**6, **priced(9)},
        "tight": {"max_output_tokens": 10, **priced(0.5)},
    }
    ranking = ranking_of(models)
    need = Need(prompt_tokens=1000, max_output_tokens=100, vision=True)
    ranked = ranking.order(list(models), CHEAPEST, need)
    assert [(each.name, each.excluded) for each in ranked] == [
        ("large", None),
        ("tight", "output"),
        ("small", "context"),
    ]
    assert ranking.barred(list(models), need) == {"blind": "vision"}


def test_a_request_too_long_for_all_is_tried_all_the_same() -> None:
    ranking = ranking_of({"a": {"context_tokens": 5}, "b": {"context_tokens": 9}})
    assert names(ranking.order(["a", "b"], SelectionPolicy(), NEED)) == ["a", "b"]


def test_a_models_score_does_not_depend_on_those_that_do_not_fit() -> None:
    models = {"a": priced(1), "b": priced(2), "vast": {"context_tokens": 1, **priced(500)}}
    ranking = ranking_of(models)
    ranked = ranking.order(list(models), OPTIMAL, NEED)
    assert ranked[:2] == ranking.order(["a", "b"], OPTIMAL, NEED)


def test_fallbacks_that_fit_go_before_pool_models_that_do_not() -> None:
    ranking = ranking_of({"a": {"context_tokens": 5}, "b": {}, "c": {"context_tokens": 9}})
    pool = ranking.order(["a", "b"], SelectionPolicy(), NEED)
    fallbacks = ranking.order(["c", "b", "other"], SelectionPolicy(), NEED)
    assert names(merged(pool, fallbacks)) == ["b", "other", "a", "c"]


# Exploration


@few
@given(st.integers(1, 30))
def test_a_stale_model_goes_first_within_so_many_requests(every: int) -> None:
    ranking = ranking_of({"a": {}, "b": {}}, {"a": 1}, explore_every=every)
    rounds = [ranking.order(["a", "b"], FASTEST, NEED) for _ in range(every)]
    assert [names(ranked)[0] for ranked in rounds] == ["a"] * (every - 1) + ["b"]
    assert [ranked[0].explored for ranked in rounds] == [False] * (every - 1) + [True]
    assert all(sorted(names(ranked)) == ["a", "b"] for ranked in rounds)


@pytest.mark.parametrize(
    ("policy", "more"),
    [
        (CHEAPEST, {}),
        (SelectionPolicy(), {}),
        (FASTEST, {"explore": False}),
        (FASTEST, {"cached": {"a": 5}}),
    ],
)
def test_only_latency_is_worth_exploring_and_not_with_a_warm_cache(
    policy: SelectionPolicy, more: dict[str, Any]
) -> None:
    ranking = ranking_of({"a": priced(1), "b": priced(2)}, {"a": 1}, explore_every=1)
    for _ in range(3):
        ranked = ranking.order(["a", "b"], policy, NEED, **more)
        assert names(ranked) == ["a", "b"]
        assert not ranked[0].explored


def test_a_model_that_does_not_fit_is_not_explored() -> None:
    ranking = ranking_of({"a": {}, "b": {"context_tokens": 5}}, {"a": 1}, explore_every=1)
    assert names(ranking.order(["a", "b"], FASTEST, NEED)) == ["a", "b"]


# The policies on the wire


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        ({"prefer": "cheapest", "weights": {"cost": 1}}, "not both"),
        ({"weights": {}}, "above 0"),
        ({"weights": {"cost": 0, "rank": 0}}, "above 0"),
        ({"weights": {"cost": -1}}, "greater than or equal"),
        ({"weights": {"cost": float("inf")}}, "finite"),
        ({"weights": {"cost": float("nan")}}, "finite"),
        ({"weights": {"price": 1}}, "Extra inputs"),
    ],
)
def test_bad_policies_are_refused(raw: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        SelectionPolicy.model_validate(raw)


def test_a_routers_policy_is_that_of_tasks_without_one() -> None:
    def task(name: str, **more: Any) -> dict[str, Any]:
        return {"custom_task": {"name": name, "description": "d"}, "models": ["m"], **more}

    router = Router.model_validate(
        {
            "name": "r",
            "policies": [
                task("a"),
                task("b", selection_policy={"prefer": "fastest"}),
                task("c", selection_policy={"weights": {"rank": 1}}),
                task("d", selection_policy={}),
            ],
            "fallback_models": ["m"],
            "selection_policy": {"prefer": "optimal"},
        }
    )
    for each in (router, Router.model_validate(router.model_dump())):
        found = [pool.selection_policy for pool in resolve_pools(each, [])]
        own_order = SelectionPolicy(weights=Weights(rank=1))
        assert found == [OPTIMAL, FASTEST, own_order, OPTIMAL]
