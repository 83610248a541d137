"""`pointsman config`: checks a server configuration, and describes what can be in one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from scripts.places import CONFIGS

app = typer.Typer(help="The server's configuration.", no_args_is_help=True)


@app.command()
def reference() -> None:
    """Print every section and field; `configs/README.md` is this."""
    from serving.config_reference import reference as write

    print(write(), end="")


@app.command()
def check(
    config: Annotated[Path, typer.Argument(help="Server configuration.")] = CONFIGS / "serve.yaml",
) -> None:
    """Say what is wrong with a configuration, or what it serves: nothing is started or loaded."""
    from serving.catalogue import Catalogue
    from serving.config import load_config
    from serving.engine.unloaded import unloaded_engine
    from serving.errors import ConfigError
    from serving.router_setup import build_registry
    from serving.storage.engines import database_url

    loaded = load_config(config)
    if loaded.engine is None:
        raise ConfigError(f"{config}: engine: is required")
    engine = unloaded_engine(loaded.engine)
    catalogue = Catalogue(loaded, os.environ)
    routers = build_registry(loaded, catalogue, engine, None)
    print(f"engine: {engine.name}, checkpoint {engine.version}")
    if loaded.storage is not None:
        print(f"storage: {database_url(loaded.storage, os.environ).get_backend_name()}")
    for name, router in routers.items():
        print(f"router {name}: {len(router.routes)} tasks")
    for name in loaded.providers:
        on = name in catalogue.providers
        print(f"provider {name}: {'on' if on else catalogue.why_off(f'{name}/any')}")
