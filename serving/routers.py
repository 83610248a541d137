"""Routers ready to serve: definitions resolved against presets and checked once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from routing.errors import InvalidRequest
from routing.tasks import Pool, Route, Router, resolve_pools
from serving.catalogue import Catalogue
from serving.config import ServerConfig
from serving.errors import ConfigError
from serving.presets import Preset

CheckRoutes = Callable[[Sequence[Route]], None]


class RouterRefused(ValueError):
    """A definition that cannot be served here: which field, and why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True)
class ServedRouter:
    """A router's pools and fallbacks, by public model names."""

    name: str
    description: str
    pools: tuple[Pool, ...]
    fallbacks: tuple[str, ...]
    tags: Mapping[str, str]
    """Only models with all of these are asked."""
    definition: Router
    """What it was built of."""
    revision: int | None = None
    """Of a stored router; one of the configuration file has none."""

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """What the routing model sees, in declared order."""
        return tuple(pool.route for pool in self.pools)

    @cached_property
    def label(self) -> str:
        """`name@revision`, or the name alone where there are no revisions."""
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


class RouterBuilder:
    """Builds routers of definitions, as far as this server can serve them."""

    def __init__(
        self, presets: Mapping[str, Preset], catalogue: Catalogue, check_routes: CheckRoutes
    ) -> None:
        self.presets = presets
        self._tasks = [task for preset in presets.values() for task in preset.tasks]
        self._catalogue = catalogue
        self._check_routes = check_routes

    def build(self, router: Router, revision: int | None = None) -> ServedRouter:
        """The router; raises RouterRefused for what the presets, the providers or the routing
        model do not allow."""
        slugs = {task.slug for task in self._tasks}
        for index, policy in enumerate(router.policies):
            if policy.task_slug is not None and policy.task_slug not in slugs:
                reason = f"no preset task {policy.task_slug!r}"
                raise RouterRefused(f"policies[{index}].task_slug", reason)
        try:
            pools = resolve_pools(router, self._tasks)
            self._check_routes([pool.route for pool in pools])
        except InvalidRequest as error:
            raise RouterRefused("policies", error.message) from None
        except ValueError as error:
            raise RouterRefused("policies", str(error)) from None
        lists = [(f"policies[{i}].models", each.models) for i, each in enumerate(router.policies)]
        for field, models in [*lists, ("fallback_models", router.fallback_models)]:
            for index, model in enumerate(models):
                if not self._catalogue.known(model):
                    raise RouterRefused(f"{field}[{index}]", _no_provider(model))
        return ServedRouter(
            router.name,
            router.description,
            tuple(pools),
            tuple(router.fallback_models),
            router.tags,
            router,
            revision,
        )


def configured_routers(
    config: ServerConfig, builder: RouterBuilder, catalogue: Catalogue
) -> dict[str, ServedRouter]:
    """Every router of the configuration by name; raises ConfigError that names router and field."""
    presets = builder.presets
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
        try:
            served[router.name] = builder.build(router)
        except RouterRefused as refused:
            raise ConfigError(f"{where}.{refused.field}: {refused.reason}") from None
    _check_stand_ins(config, served, catalogue)
    return served


def _check_stand_ins(
    config: ServerConfig, served: Mapping[str, ServedRouter], catalogue: Catalogue
) -> None:
    if config.stand_ins is None:
        return
    tasks = {route.name for router in served.values() for route in router.routes}
    fields = {"default": config.stand_ins.default}
    for task, model in config.stand_ins.tasks.items():
        if task not in tasks and config.storage is None:  # a stored router may have it yet
            raise ConfigError(f"stand_ins.tasks.{task}: no router has such a task")
        fields[f"tasks.{task}"] = model
    for field, model in fields.items():
        if not catalogue.known(model):
            raise ConfigError(f"stand_ins.{field}: {_no_provider(model)}")


def _no_provider(model: str) -> str:
    return f"{model!r} is not under models, and its prefix is no configured provider"
