"""Routers ready to serve: definitions resolved against presets and checked once, at start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from routing.errors import InvalidRequest
from routing.tasks import Pool, Route, Router, resolve_pools
from serving.catalogue import Catalogue
from serving.config import ServerConfig
from serving.errors import ConfigError
from serving.presets import Preset, load_presets

CheckRoutes = Callable[[Sequence[Route]], None]


@dataclass(frozen=True)
class ServedRouter:
    """A router's pools and fallbacks, by public model names."""

    name: str
    description: str
    pools: tuple[Pool, ...]
    fallbacks: tuple[str, ...]
    tags: Mapping[str, str]
    """Only models with all of these are asked."""
    route_on_user_only: bool | None = None
    """None for what the configuration's sessions say."""

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """What the routing model sees, in declared order."""
        return tuple(pool.route for pool in self.pools)


def build_routers(
    config: ServerConfig, catalogue: Catalogue, check_routes: CheckRoutes
) -> dict[str, ServedRouter]:
    """Every router of the configuration by name; raises ConfigError that names router and field."""
    presets = load_presets(config.presets) if config.presets else {}
    definitions: list[tuple[str, Router]] = []
    for index, slug in enumerate(config.preset_routers):
        if slug not in presets:
            known = ", ".join(presets) or "none"
            raise ConfigError(f"preset_routers[{index}]: no preset {slug!r}; there are: {known}")
        definitions.append((f"preset {slug}", presets[slug].router()))
    definitions += [(f"routers[{i}]", router) for i, router in enumerate(config.routers)]

    served: dict[str, ServedRouter] = {}
    for where, router in definitions:
        if router.name in served:
            raise ConfigError(f"{where}.name: a router {router.name!r} exists already")
        served[router.name] = _build(where, router, presets, catalogue, check_routes)
    _check_stand_ins(config, served, catalogue)
    return served


def _build(
    where: str,
    router: Router,
    presets: Mapping[str, Preset],
    catalogue: Catalogue,
    check_routes: CheckRoutes,
) -> ServedRouter:
    tasks = [task for preset in presets.values() for task in preset.tasks]
    try:
        pools = resolve_pools(router, tasks)
        check_routes([pool.route for pool in pools])
    except InvalidRequest as error:
        raise ConfigError(f"{where}: router {router.name!r}: {error.message}") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    lists = [
        (f"{where}.policies[{i}].models", policy.models) for i, policy in enumerate(router.policies)
    ]
    for field, models in [*lists, (f"{where}.fallback_models", router.fallback_models)]:
        for index, model in enumerate(models):
            if not catalogue.known(model):
                raise ConfigError(f"{field}[{index}]: {_no_provider(model)}")
    return ServedRouter(
        name=router.name,
        description=router.description,
        pools=tuple(pools),
        fallbacks=tuple(router.fallback_models),
        tags=router.tags,
        route_on_user_only=router.route_on_user_only,
    )


def _check_stand_ins(
    config: ServerConfig, served: Mapping[str, ServedRouter], catalogue: Catalogue
) -> None:
    if config.stand_ins is None:
        return
    tasks = {route.name for router in served.values() for route in router.routes}
    fields = {"default": config.stand_ins.default}
    for task, model in config.stand_ins.tasks.items():
        if task not in tasks:
            raise ConfigError(f"stand_ins.tasks.{task}: no router has such a task")
        fields[f"tasks.{task}"] = model
    for field, model in fields.items():
        if not catalogue.known(model):
            raise ConfigError(f"stand_ins.{field}: {_no_provider(model)}")


def _no_provider(model: str) -> str:
    return f"{model!r} is not under models, and its prefix is no configured provider"
