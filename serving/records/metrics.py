"""Prometheus metrics of records: what waits, what was written, what was lost."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.records.service import Records
from serving.request_metrics import PREFIX


class RecordCollector(Collector):
    """Reads the counts when somebody asks; all are 0 where nothing is recorded."""

    def __init__(self, records: Records | None) -> None:
        self._records = records

    def collect(self) -> Iterator[Metric]:
        records = self._records
        yield CounterMetricFamily(
            f"{PREFIX}_records_written",
            "Records of requests that the database took.",
            value=records.writer.written if records else 0,
        )
        dropped = CounterMetricFamily(
            f"{PREFIX}_records_dropped",
            "Records lost, by why: queue_full, refused, shutdown; text_full: the text alone.",
            labels=["reason"],
        )
        for reason, count in dict(records.queue.dropped).items() if records else ():
            dropped.add_metric([reason], count)
        yield dropped
        yield CounterMetricFamily(
            f"{PREFIX}_record_batches_failed",
            "Batches of records that the database did not take; they are tried again.",
            value=records.writer.failed if records else 0,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}_records_waiting",
            "Records that wait for the database.",
            value=len(records.queue) if records else 0,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}_records_oldest_seconds",
            "Since the request came whose record waits longest.",
            value=records.queue.oldest_seconds if records else 0.0,
        )
