"""How long a model's answers take, by a query that the owner's Prometheus answers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import orjson

from serving.config_ranking import PrometheusConfig
from serving.latency import Latencies
from serving.needs import Need
from serving.refresh import Refresher

LABEL = "model_name"
TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 8 * 2**20


class PrometheusLatencies:
    """Seconds by model, as the last query that succeeded told them.

    A series' label is a public name, or the upstream's own name for a model. Failures that this
    server sees itself add to the seconds, as they do to those of `traffic`.
    """

    def __init__(
        self,
        config: PrometheusConfig,
        traffic: Latencies,
        upstream_name: Callable[[str], str | None],
        token: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._traffic = traffic
        self._upstream_name = upstream_name
        self._token = token
        self._seconds: dict[str, float] = {}
        self.refresher = Refresher("latency", self._fetch, config.refresh_s, clock)

    def expected_seconds(self, model: str, need: Need, expected_output: float) -> float | None:
        """The seconds of the query, whatever the request's size; None for a model without any."""
        seconds = self._seconds.get(model)
        if seconds is None:
            seconds = self._seconds.get(self._upstream_name(model) or "")
        if seconds is None:
            return None
        return seconds + self._traffic.penalty_seconds(model, streamed=need.stream)

    def seconds_since(self, model: str, *, streamed: bool) -> float | None:
        """0: what Prometheus measures needs no requests of ours to be fresh."""
        return 0.0

    async def _fetch(self) -> None:
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
            session.get(
                f"{self._config.url}/api/v1/query",
                params={"query": self._config.query},
                allow_redirects=False,
            ) as response,
        ):
            body = await response.content.read(MAX_ANSWER_BYTES + 1)
            while not response.content.at_eof() and len(body) <= MAX_ANSWER_BYTES:
                body += await response.content.read(MAX_ANSWER_BYTES + 1 - len(body))
            if response.status != 200 or len(body) > MAX_ANSWER_BYTES:
                raise ValueError("no answer to the query")
        self._seconds = read_vector(body)


def read_vector(body: bytes) -> dict[str, float]:
    """Seconds by model of an instant query's answer; of several series of one model, the slowest.

    https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries. Series without the
    label and values that are no times (NaN, as quantiles without data are, infinite, negative) are
    passed over. Raises ValueError for an answer that is no vector, or in which nothing is left: an
    empty one is more likely a scrape that failed than the end of all models.
    """
    answer = orjson.loads(body)
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, dict) or data.get("resultType") != "vector":
        raise ValueError("the answer is no vector")
    result = data.get("result")
    seconds: dict[str, float] = {}
    for series in result if isinstance(result, list) else ():
        sample = _sample(series)
        if sample is not None:
            name, value = sample
            seconds[name] = max(value, seconds.get(name, 0.0))
    if not seconds:
        raise ValueError(f"no series has a {LABEL} and a value")
    return seconds


def _sample(series: Any) -> tuple[str, float] | None:
    try:
        name, value = series["metric"][LABEL], float(series["value"][1])
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    usable = isinstance(name, str) and name and math.isfinite(value) and value >= 0
    return (name, value) if usable else None
