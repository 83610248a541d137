"""Presets: tasks with pools that every router may use by slug, one YAML file a preset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from routing.tasks import (
    MAX_MODELS_PER_TASK,
    ModelName,
    Policy,
    PresetTask,
    Router,
    SelectionPolicy,
)
from serving.config import parse, read_yaml
from serving.config_base import Strict
from serving.errors import ConfigError


class PresetPool(PresetTask):
    """A task of a preset and the models that it recommends."""

    models: Annotated[list[ModelName], Field(min_length=1, max_length=MAX_MODELS_PER_TASK)]
    selection_policy: SelectionPolicy = SelectionPolicy()


class Preset(Strict):
    """A preset file: a router ready to serve, and tasks for the owner's own routers."""

    slug: Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=255)]
    """Also the name of the router: `router:<slug>`."""
    title: str
    description: Annotated[str, Field(max_length=4000)] = ""
    tasks: Annotated[list[PresetPool], Field(min_length=1)]
    fallback_models: Annotated[list[ModelName], Field(min_length=1)]
    selection_policy: SelectionPolicy = SelectionPolicy()
    """Of the tasks whose own says nothing."""

    @model_validator(mode="after")
    def _is_a_router(self) -> Self:
        self.router()
        return self

    def router(self) -> Router:
        """The router that has every task of the preset."""
        policies = [
            Policy(task_slug=t.slug, models=t.models, selection_policy=t.selection_policy)
            for t in self.tasks
        ]
        return Router(
            name=self.slug,
            description=self.description,
            policies=policies,
            fallback_models=self.fallback_models,
            selection_policy=self.selection_policy,
        )


def load_presets(folder: Path) -> dict[str, Preset]:
    """Presets by slug; raises ConfigError for a broken file or a slug that is used twice."""
    if not folder.is_dir():
        raise ConfigError(f"presets: {folder} is no folder")
    presets: dict[str, Preset] = {}
    owners: dict[str, Path] = {}
    for path in sorted(folder.glob("*.yaml")):
        preset = parse(Preset, read_yaml(path), path)
        for slug in (preset.slug, *(f"task {task.slug}" for task in preset.tasks)):
            if slug in owners:
                raise ConfigError(f"{path}: {slug!r} is already in {owners[slug]}")
            owners[slug] = path
        presets[preset.slug] = preset
    return presets
