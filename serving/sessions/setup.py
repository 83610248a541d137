"""Puts sessions together as the configuration says."""

from __future__ import annotations

from collections.abc import Mapping

from serving.catalogue import Catalogue
from serving.config_sessions import SessionsConfig
from serving.ranking import Ranking
from serving.sessions.keeper import Sessions
from serving.sessions.money import CacheMoney
from serving.sessions.store import MemoryStore, SessionStore


def build_sessions(
    config: SessionsConfig, catalogue: Catalogue, ranking: Ranking, environ: Mapping[str, str]
) -> Sessions:
    """Sessions in memory, or in Redis where there is a URL; raises ConfigError for a bad one."""
    local = MemoryStore(config.max_sessions, config.ttl_s)
    store: SessionStore = local
    url = config.redis(environ)
    if url is not None:
        # Redis's client takes a quarter of a second to import, in every worker.
        from serving.sessions.shared import RedisStore

        store = RedisStore(
            url,
            local,
            limit=config.max_sessions,
            ttl_s=config.ttl_s,
            timeout_s=config.redis_timeout_ms / 1000,
        )
    return Sessions(config, store, CacheMoney(catalogue, ranking.costs, ranking.outputs))
