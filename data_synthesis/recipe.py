"""Typed recipes of routing data: one YAML each, unknown keys refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from routing.errors import InvalidRecord

Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RouteCount(_Part):
    """Route counts are drawn uniformly from `low` to `high`; bands by weight."""

    low: Annotated[int, Field(ge=2)]
    high: int
    weight: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high < self.low:
            raise ValueError("high must not be below low")
        return self


class DataRecipe(_Part):
    """What the data should be; how it is made follows from it."""

    name: str
    seed: int
    conversations: Annotated[int, Field(gt=0)]
    """Conversation records for training."""
    validation_conversations: Annotated[int, Field(ge=0)]
    """Records whose requests belong to tasks that training never sees."""
    corpora: dict[str, Annotated[float, Field(gt=0)]]
    """Weight of each corpus as the source of a conversation."""
    route_counts: Annotated[list[RouteCount], Field(min_length=1)]
    held_out_share: Share = 0.12
    """Share of each corpus's tasks, in whole groups, kept for validation."""
    max_user_turns: Annotated[int, Field(ge=1)] = 10
    near_share: Share = 0.5
    """Probability that a distractor is drawn from the group of an offered task."""
    removed_share: Share = 0.14
    """Requests whose task is not offered; for dialogues, probability that one task is taken out."""
    out_of_scope_share: Share = 0.05
    """Requests that belong to no task of the corpus."""
    several_share: Share = 0.06
    """User turns that need two of the offered routes."""
    splice_share: Share = 0.25
    """Dialogues that are interrupted by requests about something else."""
    coarse_share: Share = 0.12
    """Conversations offered groups instead of tasks."""
    opaque_names_share: Share = 0.05
    """Conversations whose routes have names without meaning."""
    noise_share: Share = 0.12
    """User turns with hasty typing."""


def load_recipe(path: Path) -> DataRecipe:
    """A recipe from YAML; raises InvalidRecord that names the file and the field."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        return DataRecipe.model_validate(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InvalidRecord(f"{path}: {field}: {first['msg']}", field=field) from None
    except (OSError, yaml.YAMLError) as error:
        raise InvalidRecord(f"cannot read recipe {path}: {error}") from None
