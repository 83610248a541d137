"""Latency from Prometheus: read, kept while it is away, and never made of nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from aiohttp import web

from routing.tasks import SelectionPolicy
from serving.catalogue import Catalogue
from serving.config import ServerConfig
from serving.errors import ConfigError
from serving.latency import FAILURE_SECONDS, Latencies
from serving.needs import Need
from serving.prices import PublicPrices
from serving.prometheus_latency import read_vector
from serving.ranking import Ranking
from serving.ranking_setup import build_ranking

QUERY = 'histogram_quantile(0.5, sum by (le, model_name) (rate(ttft_bucket{job="a"}[5m])))'
FASTEST = SelectionPolicy(prefer="fastest")
POOL = ["p/unknown", "p/slow", "named"]


def vector(*samples: tuple[str | None, str]) -> dict[str, Any]:
    result = [
        {"metric": {"model_name": name} if name else {}, "value": [1.7e9, value]}
        for name, value in samples
    ]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


class FakePrometheus:
    def __init__(self) -> None:
        self.answer: Any = vector(("p/slow", "2.5"), ("upstream", "0.5"))
        self.queries: list[str] = []
        self.tokens: list[str | None] = []
        self.url = ""
        self.runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/api/v1/query", self._query)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def die(self) -> None:
        assert self.runner is not None
        await self.runner.cleanup()

    async def _query(self, request: web.Request) -> web.Response:
        self.queries.append(request.query["query"])
        self.tokens.append(request.headers.get("authorization"))
        return web.Response(body=orjson.dumps(self.answer), content_type="application/json")


@pytest.fixture
async def prometheus() -> AsyncIterator[FakePrometheus]:
    fake = FakePrometheus()
    await fake.start()
    yield fake
    await fake.die()


def ranking_by(url: str, traffic: Latencies, environ: dict[str, str], **more: Any) -> Ranking:
    config = ServerConfig.model_validate(
        {
            "providers": {"p": {"base_url": "https://x.invalid/v1"}},
            "models": {"named": {"provider": "p", "model": "upstream"}},
            "latency": {"prometheus": {"url": url, "query": QUERY, "refresh_s": 0.02, **more}},
        }
    )
    prices = PublicPrices(config.prices)
    catalogue = Catalogue(config, {}, prices)
    return build_ranking(config.latency, catalogue, prices, traffic, environ)


def seconds_of(ranking: Ranking) -> dict[str, float | None]:
    ranked = ranking.order(POOL, FASTEST, Need(prompt_tokens=10))
    return {each.name: each.expected_seconds for each in ranked}


async def until(condition: Callable[[], Any]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def test_the_last_good_answer_outlives_prometheus(prometheus: FakePrometheus) -> None:
    ranking = ranking_by(prometheus.url, Latencies(), {})
    assert ranking.latency_age_seconds is None
    await ranking.start()
    try:
        await until(lambda: ranking.latency_age_seconds is not None)
        known = {"named": 0.5, "p/slow": 2.5, "p/unknown": None}
        assert list(seconds_of(ranking).items()) == list(known.items())
        assert prometheus.queries[0] == QUERY

        prometheus.answer = vector(("p/slow", "0.25"))
        await until(lambda: seconds_of(ranking)["p/slow"] == 0.25)
        assert list(seconds_of(ranking)) == ["p/slow", "p/unknown", "named"]

        await prometheus.die()
        await until(lambda: (ranking.latency_age_seconds or 0) > 0.2)
        assert seconds_of(ranking)["p/slow"] == 0.25
    finally:
        await ranking.close()
        await ranking.close()


async def test_failures_that_the_server_sees_itself_count_too(prometheus: FakePrometheus) -> None:
    traffic = Latencies()
    ranking = ranking_by(prometheus.url, traffic, {})
    await ranking.start()
    try:
        await until(lambda: ranking.latency_age_seconds is not None)
    finally:
        await ranking.close()
    traffic.observe_failure("named", streamed=False)
    assert seconds_of(ranking)["named"] == pytest.approx(0.5 + FAILURE_SECONDS, abs=0.1)


async def test_a_token_is_sent_and_required(prometheus: FakePrometheus) -> None:
    ranking = ranking_by(prometheus.url, Latencies(), {"T": " secret \n"}, token_env="T")
    await ranking.start()
    try:
        await until(lambda: prometheus.tokens)
    finally:
        await ranking.close()
    assert prometheus.tokens[0] == "Bearer secret"
    with pytest.raises(ConfigError, match=r"latency\.prometheus\.token_env: variable T"):
        ranking_by(prometheus.url, Latencies(), {}, token_env="T")


def test_values_that_are_no_times_are_passed_over() -> None:
    answer = vector(
        *(("a", "NaN"), ("b", "+Inf"), ("c", "-1"), (None, "3"), ("d", "x")),
        *(("e", "0"), ("f", "1"), ("f", "4"), ("f", "2")),
    )
    answer["data"]["result"] += [None, {"metric": {"model_name": "g"}, "value": []}]
    assert read_vector(orjson.dumps(answer)) == {"e": 0, "f": 4}


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {"status": "error", "error": "bad query"},
        {"data": {"resultType": "matrix", "result": []}},
        {"data": {"resultType": "scalar", "result": [1, "2"]}},
        vector(),
        vector(("a", "NaN")),
    ],
)
def test_an_answer_without_any_time_is_none(answer: Any) -> None:
    with pytest.raises(ValueError, match=r"answer is no vector|no series"):
        read_vector(orjson.dumps(answer))
