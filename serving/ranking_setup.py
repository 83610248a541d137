"""Puts a ranking together as the configuration says."""

from __future__ import annotations

from collections.abc import Mapping

from serving.catalogue import Catalogue
from serving.config_ranking import LatencyConfig
from serving.errors import ConfigError
from serving.exploration import Exploration
from serving.latency import Latencies, LatencySource
from serving.prices import PublicPrices
from serving.prometheus_latency import PrometheusLatencies
from serving.ranking import Ranking
from serving.refresh import Refresher


def build_ranking(
    config: LatencyConfig,
    catalogue: Catalogue,
    prices: PublicPrices,
    traffic: Latencies,
    environ: Mapping[str, str],
) -> Ranking:
    """A ranking by own traffic, or by Prometheus; raises ConfigError where its token is missing.

    Its `start` and `close` are those of what it refreshes, prices included.
    """
    source: LatencySource = traffic
    latency_refresher: Refresher | None = None
    if config.prometheus is not None:
        prometheus = PrometheusLatencies(
            config.prometheus,
            traffic,
            catalogue.upstream_name,
            _token(config.prometheus.token_env, environ),
        )
        source, latency_refresher = prometheus, prometheus.refresher
    return Ranking(
        catalogue,
        source,
        exploration=Exploration(source, config.explore_every, config.stale_after_s),
        prices_refresher=prices.refresher,
        latency_refresher=latency_refresher,
    )


def _token(variable: str | None, environ: Mapping[str, str]) -> str | None:
    if variable is None:
        return None
    token = environ.get(variable, "").strip()
    if not token:
        raise ConfigError(f"latency.prometheus.token_env: variable {variable} is not set")
    if not token.isascii() or not token.isprintable():
        raise ConfigError(f"environment variable {variable}: must be printable ASCII")
    return token
