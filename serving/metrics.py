"""Prometheus metrics, of decisions and of the engine that makes them.

Counts are read when they are asked for, so that a decision pays for no metric but the bucket that
its time falls into. Labels have few values, none of them from a client.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import REGISTRY, Collector

from serving.accounts import Accounts
from serving.breaker import Breakers
from serving.decider import Decider
from serving.engine.base import Engine
from serving.histogram import Distribution
from serving.process_metrics import ProcessCollector
from serving.ranking import Ranking
from serving.request_metrics import PREFIX, RequestCollector

DECISION_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
VLLM_PREFIX = "vllm:"
"""vLLM's own metrics, which it keeps in the process's registry: queue times, batches, cache."""


disable_created_metrics()  # type: ignore[no-untyped-call]  # series that nobody reads


class Metrics(Collector):
    """Those of one process; `collect` gives all."""

    def __init__(
        self, decider: Decider, accounts: Accounts, breakers: Breakers, ranking: Ranking
    ) -> None:
        self._registry = CollectorRegistry()
        self._engine = EngineCollector(decider.engine)
        self._registry.register(_DecisionCollector(decider))
        self._registry.register(ProcessCollector())
        RequestCollector(accounts, breakers, ranking, self._registry)

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        yield from self._engine.collect()

    async def exposition(self) -> bytes:
        """All metrics in Prometheus' text form."""
        return generate_latest(self)

    def register(self, collector: Collector) -> None:
        """Add a part of the server that counts for itself."""
        self._registry.register(collector)


class _Only(Collector):
    """The metrics of a registry whose names begin so."""

    def __init__(self, registry: CollectorRegistry, prefix: str) -> None:
        self._registry = registry
        self._prefix = prefix

    def collect(self) -> Iterator[Metric]:
        return (each for each in self._registry.collect() if each.name.startswith(self._prefix))


class _DecisionCollector(Collector):
    def __init__(self, decider: Decider) -> None:
        self._decider = decider
        self._times = times = Distribution(DECISION_BUCKETS)
        decider.observe = lambda milliseconds: times.observe(milliseconds / 1000)

    def collect(self) -> Iterator[Metric]:
        seconds = HistogramMetricFamily(
            f"{PREFIX}_decision_seconds",
            "Time from asking the engine to having its decision, or a reason for none.",
            labels=[],
        )
        self._times.add_to(seconds)
        yield seconds
        outcomes = CounterMetricFamily(
            f"{PREFIX}_decisions",
            "Decisions by outcome: decided, or why the request went to its fallbacks.",
            labels=["outcome"],
        )
        for outcome, count in dict(self._decider.counts).items():
            outcomes.add_metric([outcome], count)
        yield outcomes
        yield CounterMetricFamily(
            f"{PREFIX}_decisions_remembered",
            "Decisions answered from memory: the same turn was asked about before.",
            value=self._decider.memo.hits,
        )
        ready = int(self._decider.ready)
        yield GaugeMetricFamily(
            f"{PREFIX}_engine_ready", "1 while the engine can decide.", value=ready
        )
        info = GaugeMetricFamily(
            f"{PREFIX}_checkpoint", "1 for the checkpoint that decides.", labels=["version"]
        )
        info.add_metric([self._decider.engine.version], 1)
        yield info


class EngineCollector(Collector):
    """What an engine tells of itself; vLLM's own metrics too, where it runs in our care."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        found = self._engine.metrics()
        tokens = CounterMetricFamily(
            f"{PREFIX}_decision_tokens",
            "Tokens that decisions needed: computed, or found in the prefix cache.",
            labels=["source"],
        )
        tokens.add_metric(["computed"], found.tokens_computed)
        tokens.add_metric(["cached"], found.tokens_cached)
        yield tokens
        for name, text, value in (
            ("engine_decisions", "Decisions that the engine made.", found.decisions),
            (
                "decision_queue_seconds",
                "Seconds that decisions waited for the model; of vLLM, see its own metrics.",
                found.queue_seconds,
            ),
            (
                "decision_batch",
                "Sum of the decisions under way as each began; over engine_decisions: mean batch.",
                found.batched,
            ),
            ("engine_restarts", "Times that vLLM was started anew.", found.restarts),
            ("cache_evictions", "Segments that the prefix cache let go.", found.cache_evictions),
            (
                "decisions_shortlisted",
                "Decisions with more routes than the model reads.",
                found.shortlisted,
            ),
        ):
            yield CounterMetricFamily(f"{PREFIX}_{name}", text, value=value)
        for name, text, value in (
            ("decisions_waiting", "Decisions that wait for the model.", found.waiting),
            ("decisions_under_way", "Decisions being made.", found.under_way),
            ("cache_bytes", "Bytes of the embedded engine's prefix cache.", found.cache_bytes),
            ("cache_entries", "Segments in that cache.", found.cache_entries),
        ):
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)
        yield from _Only(REGISTRY, VLLM_PREFIX).collect()
