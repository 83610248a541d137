"""When a session leaves its model, by the price of its prompt cache."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.catalogue import Catalogue
from serving.config import ServerConfig
from serving.config_sessions import SwitchingConfig
from serving.costs import Costs, OutputLengths
from serving.needs import Need
from serving.sessions.money import CacheMoney
from serving.sessions.session import Session, Warmth
from serving.sessions.switching import NewTurn, Verdict, weigh

PRICES = {
    "dear": {"input": 3, "cached_input": 0.3, "output": 15},
    "cheap": {"input": 1, "cached_input": 0.1, "output": 5},
    "cheapest": {"input": 0.9, "cached_input": 0.09, "output": 4.9},
    "uncached": {"input": 2, "output": 10},
}
NAMES = [*PRICES, "unpriced"]
CONFIG = ServerConfig.model_validate(
    {
        "providers": {"p": {"base_url": "http://localhost:1/v1"}},
        "models": {
            **{n: {"provider": "p", "model": n, "price": p} for n, p in PRICES.items()},
            "unpriced": {"provider": "p", "model": "unpriced"},
        },
    }
)
CATALOGUE = Catalogue(CONFIG, {})
MONEY = CacheMoney(CATALOGUE, Costs(CATALOGUE), OutputLengths())
NOW = 10_000.0


def session(model: str, cached: int = 0, **fields: object) -> Session:
    caches = {model: Warmth(cached, NOW - 1)} if cached else {}
    known = Session(model, "a", "t", True, NOW - 1, caches, requests=1, spend=1.0)
    return dataclasses.replace(known, **fields)  # type: ignore[arg-type]


def turn(*pool: str, route: str = "b", tokens: int = 1000, **fields: object) -> NewTurn:
    need = Need(prompt_tokens=tokens, max_output_tokens=100)
    known = NewTurn(pool, route, 0.9, False, need)
    return dataclasses.replace(known, **fields)  # type: ignore[arg-type]


def weighed(known: Session, asked: NewTurn, *, may_stay: bool = True, **config: object) -> Verdict:
    switching = SwitchingConfig.model_validate(config)
    return weigh(known, asked, may_stay=may_stay, money=MONEY, config=switching, now=NOW)


def test_the_cost_of_a_switch_is_reading_anew_what_was_cached():
    known = session("dear", warm={"dear": Warmth(100_000, NOW), "cheap": Warmth(40_000, NOW)})
    expected = (60_000 * 1 + 40_000 * 0.1 - 100_000 * 0.3) / 1e6
    assert MONEY.switch_cost(known, "cheap", NOW - 300) == pytest.approx(expected)
    assert MONEY.switch_cost(known, "unpriced", NOW - 300) is None
    assert MONEY.switch_cost(known, "dear", NOW - 300) == 0


def test_a_cache_that_has_gone_cold_costs_nothing_to_leave():
    known = session("cheap", warm={"cheap": Warmth(100_000, NOW - 301)})
    assert MONEY.switch_cost(known, "dear", NOW - 300) == 0


@pytest.mark.parametrize(
    ("asked", "verdict"),
    [
        (turn("cheap", "dear"), Verdict("cheap", "first_choice")),
        (turn("dear", "cheap", route="a"), Verdict("cheap", "same_task")),
        (turn("dear", "cheap"), Verdict("dear", "other_task")),
        (turn("dear", "cheap", confidence=0.4), Verdict("cheap", "unsure")),
        (turn("dear", confidence=0.4), Verdict("dear", "other_task")),
        (turn("dear", confidence=None), Verdict("cheap", "undecided")),
    ],
)
def test_a_list_of_the_owners_is_followed_where_the_task_has_changed(
    asked: NewTurn, verdict: Verdict
):
    assert weighed(session("cheap", 1000), asked) == verdict


def test_a_model_that_may_not_answer_is_left_whatever_it_costs():
    known = session("cheap", 10**6, spend=0.0)
    assert weighed(known, turn("dear"), may_stay=False) == Verdict("dear", "unfit")
    undecided = turn("dear", confidence=None)
    assert weighed(known, undecided, may_stay=False) == Verdict("dear", "unfit")


def test_a_pool_by_cost_is_left_only_where_the_saving_pays_for_the_cache():
    asked = turn("cheapest", "cheap", tokens=100_000, route="a", by_cost=True)
    young = session("cheap", 100_000)
    assert weighed(young, asked) == Verdict("cheap", "not_worth")
    old = dataclasses.replace(young, requests=1000)
    assert weighed(old, asked) == Verdict("cheapest", "cheaper")
    assert weighed(session("cheap"), asked) == Verdict("cheapest", "cheaper")


def test_the_cap_is_a_share_of_what_the_session_has_spent():
    known = session("cheap", 100_000, spend=0.28, switch_spend=0.0)
    assert weighed(known, turn("dear")) == Verdict("cheap", "spend_cap")
    richer = dataclasses.replace(known, spend=0.3)
    assert weighed(richer, turn("dear")) == Verdict("dear", "other_task")
    spent = dataclasses.replace(richer, switch_spend=0.02)
    assert weighed(spent, turn("dear")) == Verdict("cheap", "spend_cap")
    assert weighed(spent, turn("dear"), max_switch_spend_pct=None).model == "dear"
    assert weighed(known, turn("unpriced")) == Verdict("unpriced", "other_task")


SESSIONS = st.builds(
    session,
    st.sampled_from(NAMES),
    st.integers(0, 200_000),
    requests=st.integers(1, 200),
    spend=st.floats(0, 5),
    switch_spend=st.floats(0, 2),
)
TURNS = st.builds(
    lambda pool, **fields: turn(*pool, **fields),
    st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
    route=st.sampled_from(["a", "b"]),
    tokens=st.integers(1, 200_000),
    confidence=st.none() | st.floats(0, 1),
    by_cost=st.booleans(),
)
CAPS = st.none() | st.floats(0, 200)


@given(SESSIONS, TURNS, CAPS)
def test_a_switch_goes_to_a_model_of_the_pool_and_keeps_to_the_cap(
    known: Session, asked: NewTurn, cap: float | None
):
    verdict = weighed(known, asked, max_switch_spend_pct=cap)
    if verdict.model == known.model:
        return
    assert verdict.model in asked.pool
    cost = MONEY.switch_cost(known, verdict.model, NOW - 300)
    if cap is not None and cost is not None and cost > 0:
        assert known.switch_spend + cost <= known.spend * cap / 100


@given(SESSIONS, TURNS)
def test_a_pool_by_cost_never_moves_to_where_going_on_is_dearer(known: Session, asked: NewTurn):
    asked = dataclasses.replace(asked, by_cost=True, pool=(*asked.pool, known.model))
    verdict = weighed(known, asked)
    here, there = (
        MONEY.going_on(known, model, asked.route, asked.need, NOW - 300)
        for model in (known.model, verdict.model)
    )
    if verdict.model != known.model:
        assert here is not None
        assert there is not None
        assert there < here


@given(SESSIONS, TURNS)
def test_the_warmer_the_cache_the_sooner_a_session_stays(known: Session, asked: NewTurn):
    """Where a session stays by cost, it stays with a warmer cache too."""
    asked = dataclasses.replace(
        asked, by_cost=True, pool=(*asked.pool, known.model), confidence=1.0
    )
    tokens = known.warm_tokens(known.model, 0)
    warmer = dataclasses.replace(
        known,
        requests=1,
        warm={known.model: Warmth(min(asked.need.prompt_tokens, 2 * tokens), NOW)},
    )
    known = dataclasses.replace(
        known, requests=1, warm={known.model: Warmth(min(asked.need.prompt_tokens, tokens), NOW)}
    )
    if weighed(known, asked).model == known.model:
        assert weighed(warmer, asked).model == known.model
