"""Prometheus metrics of sessions."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.request_metrics import PREFIX
from serving.sessions.keeper import Sessions


class SessionCollector(Collector):
    """Reads the sessions of this process when somebody asks."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def collect(self) -> Iterator[Metric]:
        sessions = self._sessions
        requests = CounterMetricFamily(
            f"{PREFIX}_session_requests",
            "Answers within a session, by why their model was asked.",
            labels=["reason"],
        )
        for reason, count in dict(sessions.requests).items():
            requests.add_metric([reason], count)
        yield requests
        for name, text, value in (
            (
                "session_saved_dollars",
                "US dollars that answers would have cost more without sessions.",
                sessions.saved,
            ),
            (
                "session_lost_dollars",
                "US dollars that other answers would have cost less without sessions.",
                sessions.lost,
            ),
            (
                "session_switch_dollars",
                "US dollars for reading anew what the cache of the model before held.",
                sessions.switch_spend,
            ),
            (
                "session_store_failures",
                "Times that Redis did not answer, or not in time.",
                sessions.store.failures,
            ),
        ):
            yield CounterMetricFamily(f"{PREFIX}_{name}", text, value=value)
        for name, text, value in (
            ("sessions", "Sessions in this process's memory.", sessions.store.size),
            ("session_store_up", "1 while sessions can be read and kept.", int(sessions.store.up)),
        ):
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)
