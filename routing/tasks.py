"""Tasks, policies and routers, as they travel over the wire.

The JSON of `Router` is the CRUD body, and that of `RoutingPreference` an item of the request's
inline ``routing_preferences``, of DigitalOcean's Inference Router and of Plano 0.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

NONE = "none"
"""Key of the outcome "no task fits" in distributions; no task may be called so."""

ROUTER_PREFIX = "router:"
MAX_MODELS_PER_TASK = 3
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _task_name(value: str) -> str:
    """Names are echoed into prompts and headers: one line, printable, not the reserved "none"."""
    if value != value.strip():
        raise ValueError("must not begin or end with white space")
    if _CONTROL.search(value):
        raise ValueError("must be one line of printable characters")
    if value.casefold() == NONE:
        raise ValueError(f"{NONE!r} is reserved for the outcome that no task fits")
    return value


def _description(value: str) -> str:
    if re.search(r"[\ud800-\udfff]", value):
        raise ValueError("must be valid Unicode")
    if not value.strip():
        raise ValueError("must not be blank")
    return value


TaskName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_task_name)]
Description = Annotated[str, Field(min_length=1, max_length=4000), AfterValidator(_description)]
ModelName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")]
Tag = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""Name or value of a tag such as ``region: eu``; upper and lower case differ."""
Weight = Annotated[FiniteFloat, Field(ge=0)]


class Wire(BaseModel):
    """Strict base: an unknown or misspelt key is an error, not silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Route(Wire):
    """What the routing model sees of a task."""

    name: TaskName
    description: Description


class Weights(Wire):
    """How much each of three terms counts in a blended ranking; only their ratio matters."""

    cost: Weight = 0
    """Of what the answer is expected to cost."""
    latency: Weight = 0
    """Of how long the answer is expected to take."""
    rank: Weight = 0
    """Of the place in the pool's own list."""

    @model_validator(mode="after")
    def _one_counts(self) -> Self:
        if not (self.cost or self.latency or self.rank):
            raise ValueError("at least one weight must be above 0")
        return self


class SelectionPolicy(Wire):
    """How a task's pool is ranked; left out, the list's own order ranks."""

    prefer: Literal["cheapest", "fastest", "optimal"] | None = None
    """What counts: expected cost, expected time, or cost, time and the list's order alike."""
    weights: Weights | None = None
    """A blend of one's own instead of a preference."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.prefer is not None and self.weights is not None:
            raise ValueError("give prefer or weights, not both")
        return self


class CustomTask(Wire):
    """A task that the owner describes."""

    name: TaskName
    """Unique within the router."""
    description: Description
    """A sentence or two: what requests of this task ask for. The routing model reads it."""


class Policy(Wire):
    """One task and its pool: a preset task by slug, or the owner's own."""

    task_slug: Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=255)] | None = None
    """A task of a preset."""
    custom_task: CustomTask | None = None
    """The owner's own task, instead."""
    models: Annotated[list[ModelName], Field(min_length=1, max_length=MAX_MODELS_PER_TASK)]
    """Who may answer it: names of `models`, or `provider/model`."""
    selection_policy: SelectionPolicy = SelectionPolicy()
    """How these models are ranked; left out, as the router says."""

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        if (self.task_slug is None) == (self.custom_task is None):
            raise ValueError("give exactly one of task_slug and custom_task")
        _reject_repeats(self.models, "models")
        return self


class Router(Wire):
    """A named set of policies with ordered fallbacks; body of the routers' CRUD API."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=255)]
    """Clients ask for `router:<name>`."""
    description: Annotated[str, Field(max_length=4000)] = ""
    """For people; the routing model does not read it."""
    policies: Annotated[list[Policy], Field(min_length=1)]
    """Its tasks and their models."""
    fallback_models: Annotated[list[ModelName], Field(min_length=1)]
    """Asked in this order where no task fits, routing failed, or a task's models did."""
    selection_policy: SelectionPolicy = SelectionPolicy()
    """Of the policies whose own says nothing; `weights: {rank: 1}` keeps a list's own order."""
    tags: dict[Tag, Tag] = Field(default_factory=dict)
    """Only models with all of these are asked."""
    route_on_user_only: bool | None = None
    """Whether only a new turn of the user is routed and a tool loop keeps its model; left out, as
    the server's configuration says."""

    @model_validator(mode="after")
    def _no_repeats(self) -> Self:
        _reject_repeats([p.custom_task.name for p in self.policies if p.custom_task], "task names")
        _reject_repeats([p.task_slug for p in self.policies if p.task_slug], "task_slug")
        _reject_repeats(self.fallback_models, "fallback_models")
        return self


class RoutingPreference(Wire):
    """A task with its pool, given inside a request body."""

    name: TaskName
    description: Description
    models: Annotated[list[ModelName], Field(min_length=1, max_length=MAX_MODELS_PER_TASK)]
    selection_policy: SelectionPolicy = SelectionPolicy()

    @model_validator(mode="after")
    def _no_repeats(self) -> Self:
        _reject_repeats(self.models, "models")
        return self


class PresetTask(Wire):
    """A task offered by slug to every router."""

    slug: Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=255)]
    name: TaskName
    description: Description


class Pool(Wire):
    """A task resolved against the presets: its route and its models, ready to rank."""

    route: Route
    models: list[ModelName]
    selection_policy: SelectionPolicy = SelectionPolicy()


def resolve_pools(router: Router, presets: Iterable[PresetTask]) -> list[Pool]:
    """Pools of a router in declared order.

    Raises ValueError for a slug that no preset has and for two tasks that end up with one name.
    """
    by_slug = {task.slug: task for task in presets}
    pools: list[Pool] = []
    for policy in router.policies:
        task: CustomTask | PresetTask | None = policy.custom_task
        if task is None:
            assert policy.task_slug is not None
            task = by_slug.get(policy.task_slug)
            if task is None:
                raise ValueError(f"router {router.name!r}: no preset task {policy.task_slug!r}")
        route = Route(name=task.name, description=task.description)
        own = policy.selection_policy
        selection = own if own.prefer or own.weights else router.selection_policy
        pools.append(Pool(route=route, models=policy.models, selection_policy=selection))
    _reject_repeats([pool.route.name for pool in pools], "task names")
    return pools


def preference_pools(preferences: list[RoutingPreference]) -> list[Pool]:
    """Pools of inline preferences in declared order; raises ValueError for a repeated name."""
    _reject_repeats([p.name for p in preferences], "routing_preferences names")
    return [
        Pool(
            route=Route(name=p.name, description=p.description),
            models=p.models,
            selection_policy=p.selection_policy,
        )
        for p in preferences
    ]


def _reject_repeats(values: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for value in values:
        if value.casefold() in seen:
            raise ValueError(f"{what} must not repeat: {value!r}")
        seen.add(value.casefold())
