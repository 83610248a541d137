"""The decision alone: ranked models, the route, how sure, and nothing is forwarded."""

from __future__ import annotations

from typing import Any

import pytest
from serving_fakes import FakeEngine, FakeUpstream, Running, config_for, serving, task

INLINE = [
    {"name": "coding", "description": "Code.", "models": ["anyone/strong", "anyone/cheap"]},
    {"name": "poetry", "description": "Poems.", "models": ["somebody/bard"]},
]


async def test_a_configured_router(server: Running):
    response = await server.decision({"model": "router:work"})
    body = response.json()
    assert body["models"] == ["p/code-1", "p/code-2", "p/fall-1", "p/fall-2"]
    assert body["route"] == "coding"
    assert body["routes"] == ["coding"]
    assert body["router"] == "work"
    assert body["reason"] is None
    assert set(body["distribution"]) == {"coding", "writing", "none"}
    assert sum(body["distribution"].values()) == pytest.approx(1)
    assert body["confidence"] == body["distribution"]["coding"]
    assert body["trace_id"] == response.headers["x-pointsman-trace-id"]
    assert response.headers["x-model-router-selected-route"] == "coding"
    assert server.upstream.asked == []


async def test_none_is_an_outcome_of_its_own(server: Running):
    body = (
        await server.decision(
            {"model": "router:work", "messages": [{"role": "user", "content": "else"}]}
        )
    ).json()
    assert body["models"] == ["p/fall-1", "p/fall-2"]
    assert body["route"] is None
    assert body["routes"] == []
    assert body["reason"] == "no_task_matches"
    assert body["confidence"] == body["distribution"]["none"]


@pytest.mark.parametrize(
    ("model", "fallbacks", "router"),
    [
        (None, [], None),
        ("gpt-from-elsewhere", ["gpt-from-elsewhere"], None),
        ("router:work", ["p/fall-1", "p/fall-2"], "work"),
    ],
)
async def test_inline_pools_may_name_models_that_are_not_served(
    server: Running, model: str | None, fallbacks: list[str], router: str | None
):
    body: dict[str, Any] = {"routing_preferences": INLINE}
    if model:
        body["model"] = model
    answer = (await server.decision(body)).json()
    assert answer["models"] == ["anyone/strong", "anyone/cheap", *fallbacks]
    assert answer["route"] == "coding"
    assert answer["router"] == router
    assert set(answer["distribution"]) == {"coding", "poetry", "none"}


async def test_an_unknown_router_is_not_found_even_with_inline_pools(server: Running):
    response = await server.decision({"model": "router:nope", "routing_preferences": INLINE})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("body", [{}, {"model": "p/code-1"}])
async def test_without_anything_to_decide_among(server: Running, body: dict[str, Any]):
    response = await server.decision(body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "model"


async def test_models_that_are_off_are_left_out_of_a_configured_router(upstream: FakeUpstream):
    routers = [
        {
            "name": "work",
            "policies": [task("coding", "off/a", "p/b")],
            "fallback_models": ["off/c", "p/d"],
        }
    ]
    async with serving(config_for(upstream, routers=routers), FakeEngine(), upstream) as server:
        body = (await server.decision({"model": "router:work"})).json()
    assert body["models"] == ["p/b", "p/d"]


async def test_cheapest_and_fastest_rank_the_pool(upstream: FakeUpstream):
    prices = {
        "dear": {"provider": "p", "model": "dear", "price": {"input": 5, "output": 20}},
        "cheap": {"provider": "p", "model": "cheap", "price": {"input": 1, "output": 2}},
    }
    routers = [
        {
            "name": "work",
            "policies": [
                task("coding", "p/unpriced", "dear", "cheap", prefer="cheapest"),
                task("writing", "p/never-asked", "p/slow", "p/quick", prefer="fastest"),
            ],
            "fallback_models": ["p/f"],
        }
    ]
    config = config_for(upstream, routers=routers, models=prices)
    async with serving(config, FakeEngine(), upstream) as server:
        latencies = server.app.state.gateway.ranking._latency
        latencies.observe("p/slow", streamed=False, seconds=0.9)
        latencies.observe("p/quick", streamed=False, seconds=0.1)
        cheapest = (await server.decision({"model": "router:work"})).json()
        writing = [{"role": "user", "content": "writing"}]
        fastest = (await server.decision({"model": "router:work", "messages": writing})).json()
        await server.chat("writing", model="router:work")
    assert cheapest["models"] == ["cheap", "dear", "p/unpriced", "p/f"]
    assert fastest["models"] == ["p/quick", "p/slow", "p/never-asked", "p/f"]
    assert upstream.asked == ["quick"]
    assert latencies.seconds("p/quick", streamed=False) < 0.1  # the real answer was taken in
