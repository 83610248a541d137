"""Metrics of the server's own processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PROCESSES = ("worker", "engine")


def restarts(counts: Mapping[str, int]) -> Metric:
    """Of processes by kind; only a supervisor restarts any."""
    family = CounterMetricFamily(
        "pointsman_process_restarts",
        "Processes that died and were started anew.",
        labels=["process"],
    )
    for process in PROCESSES:
        family.add_metric([process], counts.get(process, 0))
    return family


class ProcessCollector(Collector):
    """Of one process that answers requests."""

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("pointsman_workers", "Processes that answer requests.", value=1)
        yield restarts({})
