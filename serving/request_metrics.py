"""Prometheus metrics of answers: attempts, tokens, money, times, breakers.

A model's name is a label only for the first models that are asked (`accounts.MAX_MODELS`); clients
can name any `provider/model`, and each new label would be memory for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from serving.accounts import Accounts, Settled
from serving.breaker import Breakers
from serving.histogram import Distribution
from serving.ranking import Ranking

PREFIX = "pointsman"
FIRST_BYTE_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)


class RequestCollector(Collector):
    """Reads the accounts and the breakers when somebody asks."""

    def __init__(
        self,
        accounts: Accounts,
        breakers: Breakers,
        ranking: Ranking,
        registry: CollectorRegistry,
    ) -> None:
        self._accounts = accounts
        self._ranking = ranking
        self._breakers = breakers
        self._first_byte: dict[tuple[str, bool], Distribution] = {}
        """By model and whether it was a stream."""
        accounts.listeners.append(self._observe)
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are known only once there are values."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        accounts = self._accounts
        yield _counts(
            "attempts",
            "Requests to models by result: a status, or what happened instead of an answer.",
            ("model", "result"),
            _items(accounts.attempts),
        )
        yield _counts(
            "tokens",
            "Tokens by kind: input (neither of the next two), cached, cache_write, output.",
            ("model", "kind"),
            _items(accounts.tokens),
        )
        yield _counts(
            "cost_dollars",
            "US dollars that answers cost, where usage and price are known.",
            ("model",),
            {(model,): value for model, value in dict(accounts.dollars).items()},
        )
        yield _counts(
            "unaccounted_answers",
            "Answers whose cost is not known: their upstream told no usage, or there is no price.",
            ("model", "missing"),
            _items(accounts.unknown),
        )
        yield _counts(
            "broken_streams",
            "Streams that ended early, by why.",
            ("reason",),
            {(reason,): count for reason, count in dict(accounts.broken).items()},
        )
        first_byte = HistogramMetricFamily(
            f"{PREFIX}_first_byte_seconds",
            "Time from asking a model to the beginning of its answer, of answers alone.",
            labels=["model", "stream"],
        )
        for (model, streamed), times in dict(self._first_byte).items():
            times.add_to(first_byte, [model, str(streamed).lower()])
        yield first_byte
        states = GaugeMetricFamily(
            f"{PREFIX}_breaker",
            "1 for a model that is left alone: open, cooling (it said Retry-After) or half_open.",
            labels=["model", "state"],
        )
        for model, state in self._breakers.snapshot().items():
            states.add_metric([accounts.name(model), state], 1)
        yield states
        for name, text, age in (
            (
                "prices_age_seconds",
                "Since newer prices were fetched.",
                self._ranking.prices_age_seconds,
            ),
            (
                "latency_age_seconds",
                "Since Prometheus last told latencies.",
                self._ranking.latency_age_seconds,
            ),
        ):
            family = GaugeMetricFamily(f"{PREFIX}_{name}", text)
            if age is not None:
                family.add_metric([], age)
            yield family

    def _observe(self, settled: Settled) -> None:
        key = self._accounts.name(settled.target.name), settled.streamed
        found = self._first_byte.get(key)
        if found is None:
            found = self._first_byte[key] = Distribution(FIRST_BYTE_BUCKETS)
        found.observe(settled.first_byte_s)


def _items(counter: Counter[tuple[str, str]]) -> dict[tuple[str, ...], float]:
    return {tuple(key): count for key, count in dict(counter).items()}


def _counts(
    name: str, text: str, labels: tuple[str, ...], values: dict[tuple[str, ...], float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family
