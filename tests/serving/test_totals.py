"""Metrics of several processes added up."""

from __future__ import annotations

import json

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from serving.workers.totals import Totals, told


class Process:
    """What one process counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.answers = Counter("answers", "Answers.", ["model"], registry=self.registry)
        self.seconds = Histogram("seconds", "Time.", buckets=(1, 5), registry=self.registry)
        self.held = Gauge("held", "Held.", registry=self.registry)
        self.ready = Gauge("engine_ready", "Ready.", registry=self.registry)
        self.age = Gauge("prices_age_seconds", "Age.", registry=self.registry)

    def tell(self, totals: Totals, name: str) -> None:
        totals.put(name, json.loads(json.dumps(told(self.registry.collect()))))


def shown(totals: Totals) -> set[str]:
    lines = generate_latest(totals).decode().splitlines()
    return {line for line in lines if not line.startswith("#")}


def test_counts_are_summed_and_states_are_joined() -> None:
    totals, one, other = Totals(), Process(), Process()
    one.answers.labels("a").inc(2)
    other.answers.labels("a").inc(3)
    other.answers.labels("b").inc()
    one.seconds.observe(0.5)
    other.seconds.observe(3)
    for process, held, ready, age in ((one, 4, 1, 10), (other, 5, 0, 20)):
        process.held.set(held)
        process.ready.set(ready)
        process.age.set(age)
    one.tell(totals, "one")
    other.tell(totals, "other")
    assert {
        'answers_total{model="a"} 5.0',
        'answers_total{model="b"} 1.0',
        'seconds_bucket{le="1.0"} 1.0',
        'seconds_bucket{le="5.0"} 2.0',
        'seconds_bucket{le="+Inf"} 2.0',
        "seconds_count 2.0",
        "seconds_sum 3.5",
        "held 9.0",
        "engine_ready 0.0",
        "prices_age_seconds 20.0",
    } <= shown(totals)
    # Told again, nothing is counted twice.
    one.tell(totals, "one")
    assert 'answers_total{model="a"} 5.0' in shown(totals)


def test_what_a_process_counted_outlives_it_and_what_it_held_does_not() -> None:
    totals, one = Totals(), Process()
    one.answers.labels("a").inc(2)
    one.seconds.observe(9)
    one.held.set(4)
    one.tell(totals, "one")
    totals.gone("one")
    again = Process()
    again.answers.labels("a").inc()
    again.held.set(1)
    again.tell(totals, "again")
    found = shown(totals)
    assert {'answers_total{model="a"} 3.0', "held 1.0", "seconds_count 1.0"} <= found
    totals.gone("again")
    totals.gone("never there")
    found = shown(totals)
    assert 'answers_total{model="a"} 3.0' in found
    assert not any(line.startswith("held") for line in found)
