"""Puts together the routers of a configuration."""

from __future__ import annotations

from serving.catalogue import Catalogue
from serving.config import ServerConfig
from serving.engine.base import Engine
from serving.presets import load_presets
from serving.router_registry import RouterRegistry
from serving.router_store import RouterStore
from serving.routers import RouterBuilder, configured_routers
from serving.storage.database import Database


def build_registry(
    config: ServerConfig, catalogue: Catalogue, engine: Engine, database: Database | None
) -> RouterRegistry:
    """The registry, not yet started; raises ConfigError."""
    presets = load_presets(config.presets) if config.presets else {}
    builder = RouterBuilder(presets, catalogue, engine.check_routes)
    configured = configured_routers(config, builder, catalogue)
    store = None if database is None else RouterStore(database)
    reload_s = config.storage.reload_s if config.storage else 0
    return RouterRegistry(configured, builder, lambda: engine.version, store, reload_s)
