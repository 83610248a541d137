"""Rate limits and budgets of keys over HTTP: before the call, and after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from access_fakes import Keyed, bearer, keyed, priced
from serving_fakes import Behaviour, FakeUpstream

COST = 11 * 1 + 7 * 2
"""US dollars of an answer of the fake provider."""
MODELS = priced("p/code-1", "p/code-2", "p/fall-1", "p/fall-2")


@pytest.fixture
async def server(upstream: FakeUpstream, tmp_path: Path) -> AsyncIterator[Keyed]:
    async with keyed(upstream, tmp_path / "keys.db", models=MODELS) as running:
        yield running


async def test_requests_a_minute(server: Keyed):
    key = (await server.make(requests_per_minute=2))["key"]
    told = [await server.chat(key) for _ in range(2)]
    assert [each.headers["x-ratelimit-remaining-requests"] for each in told] == ["1", "0"]
    assert told[0].headers["x-ratelimit-limit-requests"] == "2"
    refused = await server.chat(key)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    # Looking costs nothing, and another key has a bucket of its own.
    assert (await server.http.get("/v1/models", headers=bearer(key))).status_code == 200
    assert (await server.chat((await server.make(requests_per_minute=2))["key"])).is_success
    refused = await server.server.ask("/v1/messages", headers={"x-api-key": key})
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert refused.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert refused.headers["anthropic-ratelimit-requests-reset"].endswith("Z")


async def test_parallel_requests_do_not_slip_past_the_limit(server: Keyed):
    key = (await server.make(requests_per_minute=5))["key"]
    told = await asyncio.gather(*(server.chat(key) for _ in range(20)))
    assert sorted(each.status_code for each in told) == [200] * 5 + [429] * 15


async def test_tokens_a_minute_count_what_was_used(server: Keyed):
    key = (await server.make(tokens_per_minute=100))["key"]
    first = await server.chat(key, max_tokens=10)
    assert first.headers["x-ratelimit-limit-tokens"] == "100"
    for _ in range(4):  # 18 tokens each, whatever was expected
        assert (await server.chat(key, max_tokens=1)).status_code == 200
    refused = await server.chat(key, max_tokens=60)
    assert refused.status_code == 429
    assert "tokens" in refused.json()["error"]["message"]
    # Larger than the bucket: it would need all of it.
    assert (await server.chat(key, max_tokens=10**6)).status_code == 429


async def test_a_request_larger_than_the_limit_gets_a_full_bucket(server: Keyed):
    key = (await server.make(tokens_per_minute=100))["key"]
    assert (await server.chat(key, max_tokens=10**6)).status_code == 200


async def test_a_budget_is_spent_and_then_refused(server: Keyed):
    key = (await server.make(monthly_budget=2 * COST + 1))["key"]
    for _ in range(2):
        assert (await server.chat(key, max_tokens=1)).status_code == 200
    refused = await server.chat(key, max_tokens=1)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert refused.headers["x-should-retry"] == "false"
    other = await server.server.ask("/v1/messages", headers={"x-api-key": key})
    assert (other.status_code, other.json()["error"]["type"]) == (402, "billing_error")
    usage = (await server.own(key))["usage"]
    assert usage["dollars"] == 2 * COST
    assert usage["remaining"] == 1
    assert (usage["requests"], usage["input_tokens"], usage["output_tokens"]) == (2, 22, 14)
    # Deciding alone costs nothing.
    body = {"model": "router:work", "messages": [{"role": "user", "content": "coding"}]}
    decided = await server.http.post("/routing/v1/chat/completions", json=body, headers=bearer(key))
    assert decided.status_code == 200


async def test_what_is_expected_counts_before_it_is_spent(server: Keyed):
    key = (await server.make(monthly_budget=100))["key"]
    assert (await server.chat(key, max_tokens=60)).status_code == 429
    assert (await server.chat(key, max_tokens=10)).status_code == 200


async def test_parallel_calls_keep_to_the_budget(server: Keyed, upstream: FakeUpstream):
    """Each is expected to cost more than it does, so that the bound is the budget itself."""
    budget = 300
    made = await server.make(monthly_budget=budget)
    key = made["key"]
    # Long enough to be expected to cost more also once answers have been seen to be short.
    long = "coding please, " * 12
    told = await asyncio.gather(*(server.chat(key, long, max_tokens=20) for _ in range(40)))
    let_through = [each for each in told if each.status_code == 200]
    assert {each.status_code for each in told} == {200, 429}
    usage = (await server.own(key))["usage"]
    assert usage["dollars"] == COST * len(let_through) <= budget
    assert len(upstream.requests) == len(let_through)
    # What was reserved and not used is there again.
    more = {"monthly_budget": usage["dollars"] + 20}
    await server.admin("PATCH", f"/admin/keys/{made['id']}", json=more)
    assert (await server.chat(key, max_tokens=1)).status_code == 200


async def test_streams_are_settled_also_those_that_break(server: Keyed, upstream: FakeUpstream):
    key = (await server.make(monthly_budget=10_000))["key"]
    assert (await server.chat(key, stream=True)).status_code == 200
    assert (await server.own(key))["usage"]["dollars"] == COST
    upstream.models["code-1"] = Behaviour("cut", after=1)
    assert (await server.chat(key, stream=True, max_tokens=30)).status_code == 200
    usage = (await server.own(key))["usage"]
    # Its upstream told no usage, so it counts as much as it was expected to.
    assert usage["estimated_requests"] == 1
    assert usage["dollars"] >= COST + 2


async def test_who_leaves_before_the_answer_pays_what_was_expected(
    server: Keyed, upstream: FakeUpstream
):
    upstream.models["code-1"] = Behaviour("hang", after=0)
    key = (await server.make(monthly_budget=10_000))["key"]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(server.chat(key, max_tokens=30), 0.2)
    await asyncio.wait_for(upstream.dropped.wait(), 5)
    async with asyncio.timeout(5):
        while not (await server.own(key))["usage"]["estimated_requests"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await server.own(key))["usage"]["dollars"] >= 60


async def test_failed_requests_cost_nothing(server: Keyed, upstream: FakeUpstream):
    for model in ("code-1", "code-2", "fall-1", "fall-2"):
        upstream.models[model] = Behaviour("error", 500)
    key = (await server.make(monthly_budget=500))["key"]
    for _ in range(3):
        assert (await server.chat(key, max_tokens=200)).status_code == 500
    usage = (await server.own(key))["usage"]
    assert (usage["dollars"], usage["requests"]) == (0, 0)


async def test_unknown_prices_are_counted_or_refused(upstream: FakeUpstream, tmp_path: Path):
    async with keyed(upstream, tmp_path / "a.db", models=MODELS) as server:
        key = (await server.make(monthly_budget=1))["key"]
        assert (await server.chat(key, model="p/no-price")).status_code == 200
        usage = (await server.own(key))["usage"]
        assert (usage["dollars"], usage["unpriced_requests"]) == (0, 1)
    strict = {"unknown_prices": "refuse"}
    async with keyed(upstream, tmp_path / "b.db", models=MODELS, access=strict) as server:
        key = (await server.make(monthly_budget=1000))["key"]
        refused = await server.chat(key, model="p/no-price")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "price_unknown")
        assert (await server.chat(key, max_tokens=1)).status_code == 200
        free = (await server.make())["key"]
        assert (await server.chat(free, model="p/no-price")).status_code == 200


async def test_what_was_spent_outlives_the_server(upstream: FakeUpstream, tmp_path: Path):
    file = tmp_path / "k.db"
    async with keyed(upstream, file, models=MODELS, access={"refresh_s": 30}) as server:
        made = await server.make(monthly_budget=COST + 1)
        assert (await server.chat(made["key"], max_tokens=1)).status_code == 200
    async with keyed(upstream, file, models=MODELS) as server:
        assert (await server.chat(made["key"], max_tokens=1)).status_code == 429
        told = await server.admin("GET", f"/admin/keys/{made['id']}")
        assert told.json()["usage"]["dollars"] == COST


async def test_replicas_count_together(upstream: FakeUpstream, database: str):
    async with (
        keyed(upstream, database, models=MODELS) as one,
        keyed(upstream, database, models=MODELS) as other,
    ):
        key = (await one.make(monthly_budget=10 * COST + 1))["key"]
        for server in (one, other):
            for _ in range(5):
                assert (await server.chat(key, max_tokens=1)).status_code == 200
        for server in (one, other):
            async with asyncio.timeout(10):
                while (await server.chat(key, max_tokens=1)).status_code == 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert (await server.own(key))["usage"]["requests"] >= 10
