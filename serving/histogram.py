"""A histogram that costs an observation two additions, and is a metric when somebody asks.

prometheus_client's own takes a lock for each addition; here one event loop does them all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily


class Distribution:
    """Counts of values by bucket; a bucket ends with its bound, a float, and the last has none."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str] = ()) -> None:
        """Add what was counted so far to a metric."""
        bounds = [*map(str, self._bounds), "+Inf"]
        counts = [float(count) for count in accumulate(self._counts)]
        family.add_metric(labels, list(zip(bounds, counts, strict=True)), self._sum)
