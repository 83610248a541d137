"""Typed training recipes: one YAML each, unknown keys refused, every value printed at start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from routing.layout import Budget
from routing.pointer import LineState


class RecipeError(ValueError):
    """A recipe that cannot be read; the message names the file and the field."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(_Part):
    """A low-rank adapter (arXiv 2106.09685)."""

    r: Annotated[int, Field(gt=0)] = 16
    alpha: Annotated[int, Field(gt=0)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: list[str]
    """Names of the linear layers to adapt."""


class TrainRecipe(_Part):
    """One training run."""

    name: str
    base_model: str
    """A folder, or a base that `pointsman base` provides."""
    layers: Annotated[int, Field(gt=0)] | None = None
    """Decoder layers to keep, from the first: states in the middle match routes better than the
    last, and every layer left out saves its share of time. Left out, all are kept."""
    read_out: Literal["pointer", "identifier"] = "pointer"
    layout_version: Literal[1, 2] = 1
    """See `routing.layout`."""
    pointer_lines: LineState = "end"
    """What the pointer takes for a line's state; see `routing.pointer`."""
    pointer_dim: Annotated[int, Field(gt=0)] = 256
    identifiers: Annotated[int, Field(ge=2)] = 65
    """Identifiers to choose from; one more than the most routes that can be offered."""
    budget: Budget = Budget()
    lora: Lora | None = None
    """Left out, all weights of the kept layers are trained."""
    train_embeddings: bool = False
    """Whether training without LoRA changes the token embeddings too: a quarter of a nano."""
    batch_conversations: Annotated[int, Field(gt=0)] = 8
    """Conversations of one forward pass."""
    accumulation: Annotated[int, Field(gt=0)] = 1
    """Forward passes of one step, over all processes together."""
    processes: Annotated[int, Field(gt=0)] = 1
    """Data-parallel processes. On a CPU whose cores are shared with others, as many as cores with
    one thread each do twice the work of one process with as many threads."""
    max_steps: Annotated[int, Field(gt=0)]
    learning_rate: Annotated[float, Field(gt=0)]
    head_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of the pointer; left out, `learning_rate`."""
    warmup_steps: Annotated[int, Field(ge=0)] = 10
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    save_every: Annotated[int, Field(gt=0)] = 50
    seed: int = 0
    threads: Annotated[int, Field(gt=0)] = 2
    """Of each process."""

    @model_validator(mode="after")
    def _passes_can_be_shared(self) -> Self:
        if self.accumulation % self.processes:
            raise ValueError("accumulation must be a multiple of processes")
        return self


def load_recipe(path: Path, overrides: Mapping[str, Any] | None = None) -> TrainRecipe:
    """A recipe from YAML, `overrides` by dotted key on top; raises RecipeError."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RecipeError(f"cannot read recipe {path}: {error}") from None
    if not isinstance(loaded, dict):
        raise RecipeError(f"{path}: a recipe must be a mapping")
    for key, value in (overrides or {}).items():
        *parents, last = key.split(".")
        place = loaded
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    try:
        return TrainRecipe.model_validate(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
