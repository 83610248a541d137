"""What keeping a model saves, told in headers, metrics and the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from conversations import Talk
from serving_fakes import FakeEngine, FakeUpstream, Running, config_for, serving, task
from structlog.testing import capture_logs
from test_metrics import scrape

from scripts.bench.prompt_cache import CachingProvider

PRICES = {
    "one": {"input": 3, "cached_input": 0.3, "output": 15},
    "two": {"input": 3, "cached_input": 0.3, "output": 15},
    "small": {"input": 1, "cached_input": 0.1, "output": 5},
}
LONG = "You are an agent that works on a repository. " * 50


@pytest.fixture
async def provider() -> AsyncIterator[CachingProvider]:
    fake = CachingProvider()
    await fake.start()
    yield fake
    await fake.stop()


def config(provider: CachingProvider, upstream: FakeUpstream, **update: Any) -> Any:
    models = {
        name: {"provider": "caching", "model": name, "price": price}
        for name, price in PRICES.items()
    }
    policies = [task("coding", "one", "two", prefer="fastest"), task("writing", "small")]
    given = {
        "providers": {"caching": {"base_url": provider.url}},
        "models": models,
        "routers": [{"name": "work", "policies": policies, "fallback_models": ["small"]}],
        "latency": {"explore_every": 0},
    }
    return config_for(upstream, **(given | update))


def make_fastest(server: Running, model: str) -> None:
    """As if other conversations had found the model to answer at once, and the others not to."""
    latencies = server.app.state.gateway.ranking._latency
    for each in ("one", "two"):
        seconds = 0.001 if each == model else 9.0
        for prompt in (500, 5000) * 50:
            latencies.observe_speed(
                each, streamed=False, tokens=60, seconds=seconds, prompt_tokens=prompt
            )
            latencies.observe(each, streamed=False, seconds=seconds, prompt_tokens=prompt)


async def loop(server: Running, calls: int, *, restless: bool) -> list[list[str]]:
    """The models that answered a conversation of three user turns and so many calls of tools."""
    talk = Talk("chat", LONG)
    used: list[list[str]] = []
    made = 0
    for turn in ("coding", "writing", "coding"):
        talk.user(f"{turn} please")
        used.append([])
        for _ in range(calls // 3 + 1):
            if restless:
                make_fastest(server, ("one", "two")[made % 2])
            answer = await server.http.post(talk.path, json=talk.body())
            assert answer.status_code == 200, answer.text
            used[-1].append(answer.headers["x-pointsman-model"])
            made += 1
            talk.tool("A line of a file.\n" * 20)
        talk.items = talk.items[:-2]
        talk.assistant()
    return used


async def test_an_agent_loop_of_30_calls_changes_its_model_at_user_turns_alone(
    provider: CachingProvider, upstream: FakeUpstream
):
    async with serving(config(provider, upstream), FakeEngine(), upstream) as server:
        with capture_logs() as logs:
            used = await loop(server, 30, restless=True)
        assert [len(turn) for turn in used] == [11, 11, 11]
        assert [set(turn) for turn in used] == [{"one"}, {"small"}, {"one"}]
        metrics = await scrape(server)
    saved = metrics["pointsman_session_saved_dollars_total"]
    assert metrics["pointsman_session_requests_total[same_turn]"] == 30
    assert metrics["pointsman_session_requests_total[other_task]"] == 2
    assert metrics["pointsman_sessions"] == 1
    assert saved > 0
    lines = [line for line in logs if line["event"] == "request"]
    assert {line["pinned"] for line in lines} == {True, False}
    assert lines[-1]["session_saved"] == pytest.approx(
        saved - metrics["pointsman_session_lost_dollars_total"], abs=1e-6
    )


async def test_what_was_saved_is_what_the_same_loop_costs_more_without_sessions(
    provider: CachingProvider, upstream: FakeUpstream
):
    dollars: list[float] = []
    for sessions in ({}, {"implicit": False}):
        given = config(provider, upstream, sessions=sessions)
        async with serving(given, FakeEngine(), upstream) as server:
            used = await loop(server, 30, restless=True)
            metrics = await scrape(server)
        dollars.append(sum(v for k, v in metrics.items() if k.startswith("pointsman_cost_dollars")))
        switches = sum(a != b for turn in used for a, b in pairwise(turn))
        assert switches == (0 if not sessions else 20)
        if not sessions:
            saved = metrics["pointsman_session_saved_dollars_total"]
            saved -= metrics["pointsman_session_lost_dollars_total"]
        provider.forget()
    kept, free = dollars
    assert free > kept
    assert saved == pytest.approx(free - kept, rel=0.2)


async def test_nothing_is_saved_where_nothing_would_have_changed(
    provider: CachingProvider, upstream: FakeUpstream
):
    async with serving(config(provider, upstream), FakeEngine(), upstream) as server:
        make_fastest(server, "one")
        await loop(server, 6, restless=False)
        metrics = await scrape(server)
    assert metrics["pointsman_session_saved_dollars_total"] == 0
    assert metrics["pointsman_session_lost_dollars_total"] == 0
    assert metrics["pointsman_session_switch_dollars_total"] > 0


async def test_the_cap_keeps_a_session_at_a_model_that_it_can_stay_with(
    provider: CachingProvider, upstream: FakeUpstream
):
    policies = [task("coding", "small"), task("writing", "one")]
    routers = [{"name": "work", "policies": policies, "fallback_models": ["small"]}]
    for cap, model, reason in ((0, "small", "spend_cap"), (None, "one", "other_task")):
        sessions = {"switching": {"max_switch_spend_pct": cap}}
        given = config(provider, upstream, routers=routers, sessions=sessions)
        async with serving(given, FakeEngine(), upstream) as server:
            talk = Talk("chat", LONG).user("coding please")
            await server.http.post(talk.path, json=talk.body())
            talk.assistant().user("writing now")
            answer = await server.http.post(talk.path, json=talk.body())
            assert answer.headers["x-pointsman-session-reason"] == reason
            assert answer.headers["x-pointsman-model"] == model
