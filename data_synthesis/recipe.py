"""Typed recipes of routing data: one YAML each, unknown keys refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_synthesis.operators import AnyOperator
from data_synthesis.operators.base import Share
from routing.errors import InvalidRecord

Form = Literal["conversation", "decision"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceChoice(_Part):
    """One source of talk."""

    weight: Annotated[float, Field(gt=0)]
    """Share of the conversations, relative to the other sources."""
    folder: str | None = None
    """For talk kept on disk, from a teacher or from logs: its folder."""


class Duplicates(_Part):
    """When two conversations count as the same: by MinHash over word shingles of what users say."""

    shingle: Annotated[int, Field(ge=1)] = 3
    """Words of a shingle."""
    bands: Annotated[int, Field(ge=1)] = 4
    rows: Annotated[int, Field(ge=1)] = 16
    """Two sets of likeness J collide with probability 1 - (1 - J^rows)^bands."""
    slots: Annotated[int, Field(ge=1024)] = 2**21
    """Places in the table that remembers bands, eight bytes each; new ones push out the oldest."""


class Gates(_Part):
    """What the finished data must be like; a build whose data is not like this fails."""

    none_share: tuple[Share, Share] = (0.08, 0.35)
    """Least and most of the decisions that are "none"."""
    position_p: Share = 1e-4
    """Least p-value of a chi-square test that right routes stand on each place equally often."""
    task_share: Share = 0.05
    """Most of the decisions that one task may have."""
    top_grams: Share = 0.03
    """Most of all 5-grams of user text that the ten most frequent may make up."""
    duplicate_share: Share = 0.2
    """Most of the conversations drawn that may be dropped as duplicates."""


class DataRecipe(_Part):
    """What the data should be; how it is made follows from it."""

    name: str
    seed: int
    conversations: Annotated[int, Field(gt=0)]
    """Conversations drawn for training; duplicates and contaminated ones are then dropped."""
    validation_conversations: Annotated[int, Field(ge=0)]
    """Conversations drawn for validation, about tasks that training never sees."""
    sources: Annotated[dict[str, SourceChoice], Field(min_length=1)]
    """authored, clinc, metatool, sgd, or a name of your own with a folder."""
    operators: Annotated[list[AnyOperator], Field(min_length=1)]
    """Applied in order."""
    max_user_turns: Annotated[int, Field(ge=1)] = 10
    held_out_share: Share = 0.12
    """Share of each source's tasks, in whole groups, kept for validation."""
    shard_conversations: Annotated[int, Field(gt=0)] = 1000
    """Conversations drawn for one file."""
    forms: Annotated[list[Form], Field(min_length=1)] = ["conversation"]
    """A line for each conversation; a line for each decision too, as benchmarks have them."""
    duplicates: Duplicates = Duplicates()
    contamination_gram: Annotated[int, Field(ge=3)] = 8
    """Words in a row that a user's line may not share with a benchmark."""
    gates: Gates = Gates()


def load_recipe(path: Path) -> DataRecipe:
    """A recipe from YAML; raises InvalidRecord that names the file and the field."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        recipe = DataRecipe.model_validate(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InvalidRecord(f"{path}: {field}: {first['msg']}", field=field) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRecord(f"cannot read recipe {path}: {error}") from None
    if not any(operator.op == "offer_routes" for operator in recipe.operators):
        raise InvalidRecord(f"{path}: operators: offer_routes is needed", field="operators")
    return recipe
