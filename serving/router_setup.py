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
    if database is None or config.storage is None:
        return RouterRegistry(configured, builder)
    return RouterRegistry(configured, builder, RouterStore(database), config.storage.reload_s)
