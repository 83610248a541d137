"""Metrics of several processes as one: what counts is summed, also over processes that are gone."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

Families = list[list[Any]]
"""`[name, type, documentation, [[sample, labels, value], ...]]` each, as JSON."""
Key = tuple[str, tuple[tuple[str, str], ...]]

CUMULATIVE = ("counter", "histogram", "summary")
LARGEST = ("pointsman_breaker", "pointsman_checkpoint", "_age_seconds")
"""Endings of gauges of which the largest is told; of all others the sum."""
LEAST = ("_ready", "_up")
"""Endings of gauges that are as low as the lowest."""


def told(metrics: Iterable[Metric]) -> Families:
    """Metrics of a collector."""
    return [
        [m.name, m.type, m.documentation, [[s.name, s.labels, s.value] for s in m.samples]]
        for m in metrics
    ]


class Totals(Collector):
    """What every process told last, added up."""

    def __init__(self) -> None:
        self._of: dict[str, Families] = {}
        self._gone: dict[str, Metric] = {}

    def put(self, process: str, families: Families) -> None:
        """What a process says now of itself since its start."""
        self._of[process] = families

    def gone(self, process: str) -> None:
        """A process has ended: what it counted stays, what it held does not."""
        _add(self._gone, [f for f in self._of.pop(process, []) if f[1] in CUMULATIVE])

    def collect(self) -> Iterator[Metric]:
        """The metrics of all."""
        merged: dict[str, Metric] = {}
        _add(merged, told(self._gone.values()))
        for families in self._of.values():
            _add(merged, families)
        return iter(merged.values())


def _add(merged: dict[str, Metric], families: Families) -> None:
    """Add families to those of the same names."""
    for name, kind, documentation, samples in families:
        metric = merged.setdefault(name, Metric(name, documentation, kind))
        join = _join(name, kind)
        values: dict[Key, float] = {
            (s.name, tuple(s.labels.items())): s.value for s in metric.samples
        }
        for sample, labels, value in samples:
            key = (sample, tuple(labels.items()))
            values[key] = join(values[key], value) if key in values else value
        metric.samples = []
        for (sample, pairs), value in values.items():
            metric.add_sample(sample, dict(pairs), value)


def _join(name: str, kind: str) -> Callable[[float, float], float]:
    if kind not in CUMULATIVE and name.endswith(LARGEST):
        return max
    if kind not in CUMULATIVE and name.endswith(LEAST):
        return min
    return operator.add
